"""Judges observations: each figure that must be zero has a rule of its own here."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from math import inf
from typing import NamedTuple

from chaos.ledger import lines
from chaos.observations import ENDED, Command, Frame, Line, Observations, Order, Recess, Run

_CLOCK = 0.005
"""The API tells times in milliseconds."""


@dataclass(frozen=True)
class Figure:
    """A count of what must not be, with a line for each case."""

    name: str
    cases: list[str] = field(default_factory=list)

    @property
    def value(self) -> int:
        """How many cases there are."""
        return len(self.cases)


def check(seen: Observations, *, doubles: bool = True) -> list[Figure]:
    """Every figure that must be zero. `doubles`: a client that asks again must not get a second
    run or workflow, which needs idempotency keys."""
    evidence = _Evidence(seen)
    rules: dict[str, Callable[[_Evidence], Iterator[str]]] = {
        "runs lost": _lost,
        "runs with another end than ordered": _other_ends,
        "orders doubled": _doubled,
        "commands run twice": _twice,
        "commands missing or not ended": _missing,
        "outputs that differ from what was written": _outputs,
        "lines lost from files": _lost_lines,
        "signs of life after a run's end": _after_end,
        "steps begun while paused": _while_paused,
        "checkpoints missing or doubled": _checkpoints,
        "events missing": _missing_events,
        "events doubled or out of order": _doubled_events,
        "slots exceeded": _exceeded,
        "slots lost": _lost_slots,
        "steps begun out of their order": _out_of_order,
        "faults answered": lambda evidence: iter(evidence.seen.faults),
        "containers left": lambda evidence: iter(evidence.seen.remains.containers),
        "processes left": lambda evidence: iter(evidence.seen.remains.processes),
        "mounts left": lambda evidence: iter(evidence.seen.remains.mounts),
        "sandbox folders left": lambda evidence: iter(evidence.seen.remains.folders),
    }
    if not doubles:
        del rules["orders doubled"]
    return [Figure(name, list(rule(evidence))) for name, rule in rules.items()]


def _at(line: Line) -> float:
    return line.at


class _Evidence:
    """Observations, arranged as the rules need them."""

    def __init__(self, seen: Observations) -> None:
        self.seen = seen
        self.orders = {order.name: order for order in seen.orders}
        self.runs: dict[str, list[Run]] = defaultdict(list)
        for run in seen.runs:
            self.runs[run.name].append(run)
        self.lines = {
            run_id: sorted({line for text in texts for line in lines(text)}, key=_at)
            for run_id, texts in seen.ledgers.items()
        }

    def pairs(self) -> Iterator[tuple[Order, Run]]:
        """Every run with the order that asked for it."""
        for run in self.seen.runs:
            if run.name in self.orders:
                yield self.orders[run.name], run

    def executions(self, run_id: str, label: str) -> list[list[Line]]:
        """The lines of each execution of a command in a run, in the order of their begins."""
        found: dict[str, list[Line]] = defaultdict(list)
        for line in self.lines.get(run_id, []):
            if line.label == label:
                found[line.nonce].append(line)
        return list(found.values())

    def commands(self) -> Iterator[tuple[Order, Run, Command, list[list[Line]]]]:
        """Every command of every run with its executions."""
        for order, run in self.pairs():
            for command in order.commands:
                yield order, run, command, self.executions(run.id, command.label)

    def lasting(self) -> Iterator[tuple[Order, Run, Command, list[list[Line]]]]:
        """The same, of runs that have ended as far as their clients know, without what a reset
        has ended and begun again."""
        for order, run, command, executions in self.commands():
            if _known(order, run) and run.status in ENDED:
                yield order, run, command, executions[-1:] if order.again else executions

    @cached_property
    def spans(self) -> dict[str, list["Span"]]:
        """By department: when its steps were at work, as they say themselves."""
        found: dict[str, list[Span]] = defaultdict(list)
        for order, run, command, executions in self.commands():
            department = order.department or run.departments.get(command.step)
            for attempt, written in enumerate(executions, 1):
                if department is not None:
                    step = f"{command.step}.{attempt}"
                    span = Span(written[0].at, written[-1].at, run.id, step, command.label)
                    found[department].append(span)
        return found


class Span(NamedTuple):
    """From when to when a step was at work; one that was ended from outside counts until its last
    sign of life."""

    begin: float
    end: float
    run_id: str
    step: str
    """Its number and attempt."""
    label: str

    @property
    def key(self) -> tuple[str, str]:
        """Which attempt of which step it is."""
        return self.run_id, self.step


def _what(order: Order, run: Run) -> str:
    return f"{order.name} ({order.kind}, {run.id}, {run.status})"


def _known(order: Order, run: Run) -> bool:
    """Whether the client was told of this run; another one it could not steer."""
    return order.run_id == run.id


def _lost(evidence: _Evidence) -> Iterator[str]:
    for order in evidence.seen.orders:
        if order.run_id is None:
            yield f"{order.name} ({order.kind}): its start was never answered"
        elif not any(_known(order, run) for run in evidence.runs[order.name]):
            yield f"{order.name} ({order.kind}): {order.run_id} is not listed"
    for order, run in evidence.pairs():
        if run.status not in ENDED:
            yield f"{_what(order, run)} has no end"


def _other_ends(evidence: _Evidence) -> Iterator[str]:
    for order, run in evidence.pairs():
        if _known(order, run) and run.status in ENDED and run.status not in order.ends:
            yield f"{_what(order, run)}, ordered: {', '.join(sorted(order.ends))}"


def _doubled(evidence: _Evidence) -> Iterator[str]:
    for name, count in Counter(evidence.seen.workflows).items():
        if count > 1:
            yield f"{name}: {count} workflows"
    for name, runs in evidence.runs.items():
        for run in runs[1:]:
            yield f"{name}: {run.id} beside {runs[0].id}"


def _twice(evidence: _Evidence) -> Iterator[str]:
    for order, run, command, executions in evidence.commands():
        begun = [lines for lines in executions if lines[0].verb == "begin"]
        for execution in begun[command.most :]:
            yield f"{_what(order, run)}: {execution[0]} after {begun[0][0]}"


def _missing(evidence: _Evidence) -> Iterator[str]:
    for order, run, command, executions in evidence.lasting():
        if len(executions) < command.least:
            wanted = f"{command.label} ran {len(executions)} times of {command.least}"
            yield f"{_what(order, run)}: {wanted}"
        for execution in executions:
            verbs = Counter(line.verb for line in execution)
            whole = (verbs["begin"], verbs["end"]) == (1, 1)
            if not (whole if command.ends else verbs["begin"] == 1):
                yield f"{_what(order, run)}: {command.label} has {dict(verbs)}"


def _outputs(evidence: _Evidence) -> Iterator[str]:
    for order, run, command, executions in evidence.lasting():
        said = [text for (step, _), text in sorted(run.outputs.items()) if step == command.step]
        what = f"{_what(order, run)}: {command.label}"
        if command.ends and len(said) != len(executions):
            yield f"{what}: {len(said)} outputs of {len(executions)} executions"
        for attempt, (text, written) in enumerate(zip(said, executions, strict=False), 1):
            told, counted = _told(text)
            if differing := _difference(told, written, whole=command.ends):
                yield f"{what}, attempt {attempt}: {differing}"
            if counted != "".join(f"{n}\n" for n in range(1, command.counts + 1)):
                yield f"{what}, attempt {attempt}: {_miscount(counted, command.counts)}"


def _told(text: str) -> tuple[list[Line], str]:
    """What an output tells, and apart from it what it counts."""
    rows = text.splitlines(keepends=True)
    counted = [row for row in rows if row.rstrip("\n").isdigit()]
    return lines("".join(row for row in rows if not row.rstrip("\n").isdigit())), "".join(counted)


def _miscount(counted: str, wanted: int) -> str:
    numbers = counted.split()
    for number, told in enumerate(numbers, 1):
        if told != str(number):
            return f"it counts {told} where {number} is wanted"
    return f"it counts to {len(numbers)} of {wanted}"


def _difference(told: list[Line], written: list[Line], *, whole: bool) -> str | None:
    """Where an output and the ledger part. One that was ended from outside may lack its last
    lines in one of them, and a shell may have said by what it was ended."""
    if not whole:
        told = [line for line in told if line.verb != "?"]
        shorter = min(len(told), len(written))
        told, written = told[:shorter], written[:shorter]
    for number, (one, other) in enumerate(zip_longest(told, written), 1):
        if one != other:
            return f"line {number} is {one} and was written as {other}"
    return None


def _lost_lines(evidence: _Evidence) -> Iterator[str]:
    """What a command wrote must not be in a file that was replaced, and not in the present."""
    again = {order.run_id for order in evidence.seen.orders if order.again}
    for run_id, texts in evidence.seen.ledgers.items():
        if run_id in again:
            continue
        last = set(lines(texts[-1])) if texts else set()
        for text in texts[:-1]:
            for line in set(lines(text)) - last:
                yield f"{run_id}: {line}"
    for run_id, found in evidence.lines.items():
        yield from (f"{run_id}: torn: {line.label}" for line in found if line.verb == "?")


def _after_end(evidence: _Evidence) -> Iterator[str]:
    for order, run in evidence.pairs():
        for line in evidence.lines.get(run.id, []):
            if run.completed_at is not None and line.at > run.completed_at + _CLOCK:
                yield f"{_what(order, run)}: {line}, {line.at - run.completed_at:.3f} s late"


def _while_paused(evidence: _Evidence) -> Iterator[str]:
    for order, run in evidence.pairs():
        for start, end in order.held:
            for line in evidence.lines.get(run.id, []):
                if line.verb == "begin" and start < line.at < end:
                    yield f"{_what(order, run)}: {line}"

    for recess in evidence.seen.recesses:
        yield from _begun_in(recess, evidence)


def _begun_in(recess: Recess, evidence: _Evidence) -> Iterator[str]:
    """Steps that had got a slot before may begin in it: these, and those at work."""
    spans = evidence.spans.get(recess.department, [])
    begun = [span for span in spans if recess.begin < span.begin < recess.end]
    had = len(begun) + len(_at_work(spans, recess.begin))
    if had > evidence.seen.limits[recess.department]:
        names = ", ".join(f"{span.label} ({span.step})" for span in begun)
        yield f"{recess.department}, paused at {recess.begin:.3f}: {names}"


def _checkpoints(evidence: _Evidence) -> Iterator[str]:
    for order, run in evidence.pairs():
        if run.status == "completed" and len(run.checkpoints) != order.checkpoints:
            taken = ", ".join(run.checkpoints) or "none"
            yield f"{_what(order, run)}: {taken} taken of {order.checkpoints}"


def _missing_events(evidence: _Evidence) -> Iterator[str]:
    """Each subject has `seq` 1..n, the same n for every listener; each run has its last event,
    and one for the begin and the end of every attempt of a step."""
    longest: Counter[str] = Counter()
    for frames in evidence.seen.heard:
        for frame in frames:
            longest[frame.subject] = max(longest[frame.subject], frame.seq)
    for listener, frames in enumerate(evidence.seen.heard, 1):
        got: dict[str, dict[int, Frame]] = defaultdict(dict)
        for frame in frames:
            got[frame.subject][frame.seq] = frame
        for subject, last in longest.items():
            for seq in sorted(set(range(1, last + 1)) - got[subject].keys()):
                yield f"listener {listener}: {subject} has no event {seq} of {last}"
        for order, run in evidence.pairs():
            for missing in _untold(run, got[run.id]):
                yield f"listener {listener}: {_what(order, run)}: {missing}"


def _untold(run: Run, told: dict[int, Frame]) -> Iterator[str]:
    final = told[max(told)] if told else None
    if run.status in ENDED and (final is None or final.status != run.status):
        yield f"its end was not told: {final}"
    if run.status != "completed":
        return
    for event in ("step.started", "step.ended"):
        steps = {frame.step for frame in told.values() if frame.event == event}
        for step, attempts in run.attempts.items():
            for attempt in range(1, attempts + 1):
                if f"{step}.{attempt}" not in steps:
                    yield f"no {event} of step {step}, attempt {attempt}"


def _doubled_events(evidence: _Evidence) -> Iterator[str]:
    again = {order.run_id for order in evidence.seen.orders if order.again}
    for listener, frames in enumerate(evidence.seen.heard, 1):
        last, told = 0, set()
        for frame in frames:
            if frame.id <= last:
                yield f"listener {listener}: cursor {frame.id} after {last}"
            if frame.event == "step.queued":
                # a step that has begun and found no room on any host begins once more
                told.discard((frame.subject, f"step.started of {frame.step}"))
            for what in _once(frame, again=frame.subject in again):
                if (frame.subject, what) in told:
                    yield f"listener {listener}: {frame.subject} has {what} twice"
                told.add((frame.subject, what))
            last = max(last, frame.id)


def _once(frame: Frame, *, again: bool) -> Iterator[str]:
    """What an event is the only one of its subject for."""
    yield f"event {frame.seq}"
    if frame.step and frame.event != "step.queued" and not again:
        yield f"{frame.event} of {frame.step}"
    if frame.status in ENDED:
        yield "an end"


def _exceeded(evidence: _Evidence) -> Iterator[str]:
    for department, spans in evidence.spans.items():
        limit = evidence.seen.limits[department]
        for span in spans:
            at_work = _at_work(spans, span.begin)
            if len(at_work) > limit:
                names = ", ".join(f"{one.label} ({one.step})" for one in at_work)
                yield f"{department} (limit {limit}) at {span.begin:.3f}: {names}"
    for width in evidence.seen.widths:
        if width.reached > width.limit:
            yield f"{width.department}: {width.reached} at once in the calm, limit {width.limit}"


def _at_work(spans: list[Span], moment: float) -> list[Span]:
    """Who is at work; a slot may be taken in the moment in which it is freed."""
    return [span for span in spans if span.begin <= moment and moment < span.end]


def _out_of_order(evidence: _Evidence) -> Iterator[str]:
    """Slots are granted in the order of the line. Whoever stood before a step that begins and has
    not begun has therefore got a slot: these, and those at work, cannot be more than there are
    slots, whatever died in between."""
    line = _line(evidence.seen)
    for department, spans in evidence.spans.items():
        limit = evidence.seen.limits[department]
        for span in spans:
            passed = [
                other
                for other in spans
                if other.begin > span.begin and line[other.key].is_before(line[span.key])
            ]
            if passed and len(passed) + len(_at_work(spans, span.begin)) > limit:
                names = ", ".join(f"{one.label} ({one.step})" for one in passed)
                yield f"{department} (limit {limit}): {span.label} ({span.step}) passed {names}"


class _Place(NamedTuple):
    """Where a step stands in line, by the cursors of the events that tell it."""

    since: float = inf
    """When its run was asked for, or once that has begun, when the step joined the line."""
    joined: float = inf

    def is_before(self, other: "_Place") -> bool:
        """Whether it is certain: it is older, and was there when the other came."""
        return self.since < other.since < inf and self.joined < other.joined


_NOWHERE = _Place()


def _line(seen: Observations) -> dict[tuple[str, str], _Place]:
    """The places of all attempts of steps. One that has begun and joins the line again found no
    room on any host: when it gets to the line from there no event tells, so it has none here."""
    found: dict[tuple[str, str], _Place] = defaultdict(_Place)
    asked: dict[str, int] = {}
    begun: set[tuple[str, str]] = set()
    for frame in sorted({frame for frames in seen.heard for frame in frames}):
        key = (frame.subject, frame.step)
        if frame.event == "workflow.queued":
            asked[frame.subject] = frame.id
        elif frame.event == "step.queued":
            since = asked.get(frame.subject, frame.id)
            found[key] = _NOWHERE if key in begun else _Place(since, frame.id)
        elif frame.event == "step.started":
            found.setdefault(key, _Place(asked.get(frame.subject, frame.id), frame.id))
            begun.add(key)
        elif frame.event == "step.ended":
            asked.pop(frame.subject, None)
    return found


def _lost_slots(evidence: _Evidence) -> Iterator[str]:
    for width in evidence.seen.widths:
        if width.reached < width.limit:
            yield f"{width.department}: only {width.reached} of {width.limit} at once in the calm"
        if width.active or width.queued:
            yield f"{width.department}: {width.active} active, {width.queued} queued at the end"
