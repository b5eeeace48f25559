"""One session with a workflow for each example: create, start, watch, and see how it ended."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from director.cli.client import Client, ClientError, Feed
from director.cli.examples import CRITERIA, EXAMPLES, FOLDER, Example, pack
from director.cli.results import Result, print_end
from director.cli.screens import Screen
from director.cli.show import RunShow
from director.cli.stack import StackError
from director.domain.base import Json
from director.domain.runs import RunStatus

_PERIOD = 0.1
_SILENCE_SECONDS = 90
"""How long a run may say nothing; a step that lasts says so, about once a second at first."""

_OUTPUT_SECONDS = 2
"""How long the frame of a step's end waits for the last of its output."""

_CANCEL_SECONDS = 45


class Tour:
    """Does what the API document's Complete Workflow Example does, and shows it.

    Runs whose end was not seen are in `unsettled`. `check` raises when the stack is broken."""

    def __init__(
        self, client: Client, screen: Screen, check: Callable[[], None], unsettled: set[str]
    ) -> None:
        self._client, self._screen, self._check = client, screen, check
        self._unsettled = unsettled
        self._feed = Feed(client)
        self._session, self._department = "", ""

    @contextmanager
    def opened(self) -> Iterator[Self]:
        """Make session and department, and listen while the block lasts. Raises ClientError."""
        session = {"type": "director", "name": "Development Session"}
        self._session = self._client.post("/sessions", session)["id"]
        department = {
            "sessionId": self._session,
            "name": "Code Review Department",
            "domain": "code-review",
            "capabilities": ["javascript", "python"],
        }
        self._department = self._client.post("/departments", department)["id"]
        self._screen.console.print(f"Session {self._session}\nDepartment {self._department}")
        with self._client.socket(self._session) as socket:
            self._feed.listen(socket)
            yield self

    def perform(self, example: Example) -> Result:
        """Run one example to its end. Raises ClientError; cancels the run when interrupted."""
        self._announce(example)
        workflow = self._workflow(example)
        try:
            started = self._client.post(f"/workflows/{workflow}/start")
            run = RunShow(example.name, started["runId"], example.steps)
            self._unsettled.add(run.run_id)
            self._watch(run, f"/workflows/{workflow}/runs/{run.run_id}")
        except BaseException as error:
            self._screen.end()
            # What is broken cannot be waited for.
            self._cancel(workflow, 0 if isinstance(error, StackError) else _CANCEL_SECONDS)
            raise
        self._screen.end()
        self._unsettled.discard(run.run_id)
        view = self._client.get(f"/workflows/{workflow}/runs/{run.run_id}")
        run.confirm(view)
        result = Result(example, run, view)
        print_end(self._screen.console, result, with_output=not self._screen.keeps_output)
        return result

    def _announce(self, example: Example) -> None:
        number = f"{EXAMPLES.index(example) + 1}/{len(EXAMPLES)}"
        meant = "" if example.passes else " This one is meant to fail."
        steps = f"`{example.command}`, verify `{CRITERIA}`, checkpoint."
        self._screen.console.print(f"\n{number} {example.name}: {steps}{meant}")

    def _workflow(self, example: Example) -> str:
        archive = self._client.upload(pack(FOLDER / example.name), example.name)
        workflow = {
            "sessionId": self._session,
            "name": f"Automated Code Review: {example.name}",
            "departmentId": self._department,
            "steps": example.steps,
            "workspace": {"archiveId": archive["id"]},
        }
        return str(self._client.post("/workflows", workflow)["id"])

    def _watch(self, run: RunShow, path: str) -> None:
        self._screen.begin(run)
        self._feed.follow(f"{path}/steps/1/output")
        frames = Frames()
        heard = time.monotonic()
        while not run.status.ended or frames.waiting:
            for item in self._feed.take(_PERIOD):
                heard = time.monotonic()
                if isinstance(item, dict):
                    frames.add(item)
                else:
                    self._wrote(run, item)
            for frame in frames.due(self._feed.following):
                self._screen.changed(run, run.apply(frame))
            self._screen.tick(run)
            self._check()
            if time.monotonic() - heard > _SILENCE_SECONDS:
                raise ClientError(f"nothing was heard of {run.run_id} for {_SILENCE_SECONDS} s")

    def _wrote(self, run: RunShow, content: bytes | None) -> None:
        lines = run.tail.close() if content is None else run.tail.feed(content)
        self._screen.wrote(run, lines)

    def _cancel(self, workflow: str, seconds: int) -> None:
        """Cancel what was started and may still run; where that fails the sandbox stays noted."""
        path = f"/workflows/{workflow}"
        try:
            run = self._client.get(f"{path}/status")
            if run["runId"] is None:
                return
            self._unsettled.add(run["runId"])
            if not RunStatus(run["status"]).ended:
                self._screen.console.print(f"Cancelling {run['runId']} …")
                run = self._client.post(f"{path}/cancel?wait={seconds}")
        except ClientError as error:
            self._screen.console.print(f"The run could not be cancelled: {error}")
            return
        if RunStatus(run["status"]).ended:
            self._unsettled.discard(run["runId"])


class Frames:
    """Frames in their order; the end of a command is held until its output has been shown."""

    def __init__(self) -> None:
        self.waiting: deque[Json] = deque()
        self._held_since: float | None = None

    def add(self, frame: Json) -> None:
        """Take a frame in."""
        self.waiting.append(frame)

    def due(self, more_output: bool) -> Iterator[Json]:
        """Give the frames whose turn it is; `more_output` tells that some is still to come."""
        while self.waiting and not (more_output and self._holds(self.waiting[0])):
            self._held_since = None
            yield self.waiting.popleft()

    def _holds(self, frame: Json) -> bool:
        ended = (frame.get("data") or {}).get("endedStep") or {}
        if ended.get("type") != "execute":
            return False
        self._held_since = self._held_since or time.monotonic()
        return time.monotonic() < self._held_since + _OUTPUT_SECONDS
