"""What is known of a run while it is watched: its steps, and the end of its output."""

import codecs
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from director.domain.base import Json
from director.domain.runs import RunStatus, StepStatus
from director.verify.evidence import plain

_LINE_LIMIT = 16 * 1024
"""Characters of a line that are kept; a progress bar may be one line of megabytes."""


@dataclass
class StepShow:
    """One step: `what` it does, and where it stands."""

    id: str
    type: str
    what: str
    status: StepStatus = StepStatus.PENDING
    started: datetime | None = None
    ended: datetime | None = None

    def seconds(self, now: datetime) -> float | None:
        """How long it took, or takes so far."""
        if self.started is None:
            return None
        return max(0.0, ((self.ended or now) - self.started).total_seconds())


@dataclass(frozen=True)
class Change:
    """Something that a frame told: of a step, or of the run where `step` is None."""

    status: str
    step: StepShow | None = None


class RunShow:
    """A run of a project, as the WebSocket's frames tell it and the API confirms it."""

    def __init__(self, name: str, run_id: str, steps: Sequence[Json]) -> None:
        self.name, self.run_id = name, run_id
        self.status = RunStatus.QUEUED
        self.steps = [
            StepShow(step.get("id") or f"step-{number}", step["type"], _what(step))
            for number, step in enumerate(steps, 1)
        ]
        self.tail = Tail()

    @property
    def running(self) -> StepShow | None:
        """The step that is at work."""
        return next((step for step in self.steps if step.status is StepStatus.RUNNING), None)

    def apply(self, frame: Json) -> list[Change]:
        """Take in a frame, and tell what it changed; one of another run changes nothing."""
        data = frame.get("data") or {}
        if frame.get("type") != "workflow_progress" or data.get("runId") != self.run_id:
            return []
        changes = []
        if (ended := data.get("endedStep")) is not None:
            changes += self._move(ended, ended=frame["timestamp"])
        if (current := data.get("currentStep")) is not None:
            changes += self._move(current)
        if data["status"] != self.status:
            self.status = RunStatus(data["status"])
            changes.append(Change(self.status))
        return changes

    def confirm(self, view: Json) -> None:
        """Take over what the API says of the run in the end."""
        self.status = RunStatus(view["status"])
        for step in view["steps"]:
            self._move(step, ended=step["endTime"])

    def _move(self, told: Json, ended: str | None = None) -> list[Change]:
        step, status = self.steps[told["index"]], StepStatus(told["status"])
        step.started = _moment(told.get("startTime")) or step.started
        step.ended = _moment(ended)
        if step.status is status:
            return []
        step.status = status
        return [Change(status, step)]


class Tail:
    """The last lines of an output, without terminal sequences; `\\r` begins a line anew."""

    def __init__(self, keep: int = 200) -> None:
        self.lines: deque[str] = deque(maxlen=keep)
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._open = ""

    def feed(self, content: bytes) -> list[str]:
        """Take in what came, and give the lines that are whole now."""
        *whole, rest = (self._open + self._decode(content)).split("\n")
        self._open = _cut(rest)
        return self._keep(whole)

    def close(self) -> list[str]:
        """Give what stands after the last line's end."""
        rest, self._open = self._open + self._decode(b"", True), ""
        return self._keep([rest] if rest else [])

    def last(self, count: int) -> list[str]:
        """The last lines, the unfinished one included."""
        lines = [*self.lines, *([cleaned(self._open)] if self._open else [])]
        return lines[-count:]

    def _keep(self, raw: Sequence[str]) -> list[str]:
        lines = [cleaned(line) for line in raw]
        self.lines.extend(lines)
        return lines


def cleaned(line: str) -> str:
    """One line as a terminal would show it in the end, harmless to the one that shows it now."""
    shown = next(filter(None, reversed(line.split("\r"))), "")[:_LINE_LIMIT]
    return "".join(_character(char) for char in plain(shown).expandtabs().rstrip())


def _character(char: str) -> str:
    if char.isprintable():
        return char
    return " " if char.isspace() else ""


def _cut(rest: str) -> str:
    """What has to be kept of an unfinished line: a `\\r` that something follows drops the rest."""
    head, _, last = rest.rstrip("\r").rpartition("\r")
    kept = last + "\r" if rest.endswith("\r") else last
    return (kept if head else rest)[:_LINE_LIMIT]


def _what(step: Json) -> str:
    return str(step.get("command") or step.get("criteria") or step.get("name") or "")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
