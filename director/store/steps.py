"""What the activities of a run write, fenced so that an old attempt never overwrites a newer."""

from dataclasses import dataclass, field, replace
from functools import cache
from typing import Literal

from sqlalchemy import bindparam
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import Select

from director.domain.base import Json
from director.domain.departments import TicketState
from director.domain.errors import DeadlineError
from director.domain.events import EventType
from director.domain.failures import StepFailure
from director.domain.ids import RUN, SANDBOX
from director.domain.runs import RunStatus, StepOutcome, StepStatus
from director.domain.security_events import SecurityEventType
from director.domain.states import advance_step
from director.domain.times import to_millis, utc_now
from director.store import (
    hosts,
    locks,
    outputs,
    returns,
    security_events,
    standing,
    tickets,
)
from director.store.tables import RunRow, StepRow
from director.store.tickets import Taken


@dataclass(frozen=True)
class StepKey:
    """Who writes: the step, the attempt as its user counts, Temporal's execution, and a count that
    rises with every try of every activity of it."""

    run_id: str
    index: int
    attempt: int
    temporal_run_id: str
    activity_attempt: int


class StaleAttemptError(Exception):
    """Another attempt has the step, or the run has ended: this one writes nothing any more."""


@dataclass(frozen=True)
class Opened:
    """What became of opening a step.

    `go` on; `outcome` is to be told as it is (it has ended already, or must wait); `superseded`:
    an execution before this one, which was reset in Temporal, may still have a command running,
    which is to be ended first; `stale`: another attempt has it; `over`: the run has ended.
    `granted` are runs that are to be signalled. `rows` keeps what was read, so that the session
    need not read it again; `fresh`: the attempt begins, nothing was done for it before."""

    state: Literal["go", "outcome", "superseded", "stale", "over"]
    outcome: StepOutcome | None = None
    granted: list[str] = field(default_factory=list)
    rows: tuple[RunRow, StepRow] | None = None
    fresh: bool = False


def open_step(session: Session, key: StepKey, host_id: str, *, quiet: bool = False) -> Opened:
    """Write `running`, unless the step must wait or goes on elsewhere, this attempt has its
    outcome, or the run is to hold or takes no steps any more. `quiet` tells that nothing of a
    superseded execution runs.

    Raises StepFailure where no department is left that could take the step."""
    run, step = _rows(session, key)
    if (settled := _settled(run, step, key, host_id)) is not None:
        return settled
    if run.temporal_run_id not in (None, key.temporal_run_id) and not quiet:
        return Opened("superseded")
    granted = _adopted(session, run, key)
    if run.status == RunStatus.CANCELLING:
        cancelled = StepOutcome(status=StepStatus.CANCELLED, host_id=run.host_id)
        return Opened("outcome", cancelled, granted)
    if run.pause_wanted and not _is_begun(step, key):
        # the signal may be on its way, or lost with Temporal: reconcile sends it again
        held = StepOutcome(status=StepStatus.QUEUED, host_id=run.host_id)
        return Opened("outcome", held, granted)
    return _admitted(session, run, step, key, granted)


def _is_begun(step: StepRow, key: StepKey) -> bool:
    return _is_this(step, key) and step.status in (StepStatus.RUNNING, StepStatus.WAITING)


def _settled(run: RunRow, step: StepRow, key: StepKey, host_id: str) -> Opened | None:
    """What needs no writing: the attempt is over, is another's, or goes on elsewhere."""
    if _is_this(step, key) and step.ended_at is not None:
        return Opened("outcome", outcome_of(step, run.host_id))
    if RunStatus(run.status).ended:
        return Opened("over")
    if _is_newer(step, key) or key.temporal_run_id in run.superseded:
        return Opened("stale")
    if run.host_id not in (None, host_id):
        return Opened("outcome", StepOutcome(status=StepStatus.PENDING, host_id=run.host_id))
    return None


def _admitted(
    session: Session, run: RunRow, step: StepRow, key: StepKey, granted: list[str]
) -> Opened:
    """Begin the step if its department has a slot for it, else let it wait in line."""
    try:
        taken = _taken(session, run, step)
    except StepFailure as failure:
        _take(session, step, key, StepStatus.RUNNING)
        _begin(session, run, began=True)
        closed = close_step(session, key, StepStatus.FAILED, None, failure.error)
        return Opened("outcome", closed.outcome, [*granted, *closed.granted])
    granted = [*granted, *taken.granted]
    if taken.state is TicketState.WAITING:
        _queue(session, run, step, key)
        queued = StepOutcome(status=StepStatus.QUEUED, host_id=run.host_id)
        return Opened("outcome", queued, granted)
    went_on = _is_begun(step, key)
    _take(session, step, key, StepStatus.RUNNING)
    _begin(session, run, began=not went_on)
    return Opened("go", None, granted, (run, step), fresh=not went_on)


def _taken(session: Session, run: RunRow, step: StepRow) -> Taken:
    """Take a slot of the step's department, and for the run's first step a place of the hosts too.

    Both or none: whoever lacks one of them waits for that one and keeps none from others."""
    slot = tickets.take(session, run, step)
    if run.host_id is not None or run.sandbox_id is not None:
        return slot
    if slot.state is TicketState.WAITING:
        return slot.and_granted(tickets.leave_place(session, run.id, hosts.total_places))
    place = tickets.take_place(session, run, hosts.total_places(session))
    if place.state is TicketState.HELD:
        return slot.and_granted(place.granted)
    return place.and_granted([*slot.granted, *tickets.release(session, run.id, step.index)])


def _adopted(session: Session, run: RunRow, key: StepKey) -> list[str]:
    """Let another execution carry the run. One that was reset in Temporal performs this step and
    all behind it again: what they came to counts no more, and they need slots of their own."""
    before, run.temporal_run_id = run.temporal_run_id, key.temporal_run_id
    session.add(run)
    if before in (None, key.temporal_run_id):
        return []
    run.superseded = [*run.superseded, before]
    for index in range(key.index, run.total_steps):
        outputs.forget(session, run.id, index)  # their attempts are counted from 1 again
    return returns.begin_again(session, run, key.index)


def _queue(session: Session, run: RunRow, step: StepRow, key: StepKey) -> None:
    newly = step.status != StepStatus.QUEUED
    _take(session, step, key, StepStatus.QUEUED)
    if newly:
        standing.tell(session, run, EventType.STEP_QUEUED)


@dataclass(frozen=True)
class Closed:
    """The outcome of an attempt as it is recorded, and the runs that its slot went to."""

    outcome: StepOutcome
    granted: list[str] = field(default_factory=list)


def close_step(
    session: Session,
    key: StepKey,
    status: StepStatus,
    result: Json | None,
    error: Json | None,
) -> Closed:
    """Write the outcome of an attempt with its event and give its slot to the next in line.

    Nothing is written where it has an outcome already: that one counts. `retrying` stands for a
    failure after which another attempt follows. Raises StaleAttemptError where another attempt has
    the step, of which the status is no outcome of this one."""
    run, step = _rows(session, key)
    if not _has(step, key) or RunStatus(run.status).ended:
        if not _is_this(step, key) or step.ended_at is None:
            raise StaleAttemptError("another attempt has this step")
        return Closed(outcome_of(step, run.host_id))
    _move(step, status)
    step.result, step.error, step.ended_at = result, error, utc_now()
    session.add(step)
    session.flush()
    standing.tell(session, run, EventType.STEP_ENDED, {"endedStep": _brief(step)})
    _note_kill(session, run, step)
    granted = tickets.release(session, run.id, step.index) if step.wish.is_any else []
    return Closed(outcome_of(step, run.host_id), granted)


def _note_kill(session: Session, run: RunRow, step: StepRow) -> None:
    """Write a security event where the step's command was killed for want of memory or time."""
    kind = None
    if (step.result or {}).get("oomKilled"):
        kind = SecurityEventType.OOM_KILL
    elif (step.error or {}).get("code") == DeadlineError.code and step.type == "execute":
        kind = SecurityEventType.TIMEOUT_KILL
    if kind is not None:
        security_events.killed(
            session,
            kind,
            owner_id=run.owner_id,
            sandbox_id=SANDBOX + run.id.removeprefix(RUN),
            session_id=run.session_id,
            run_id=run.id,
            step=step.id,
        )


def requeue(session: Session, key: StepKey) -> Closed:
    """Let a step wait that has begun and found no room on any host; its slot and its place go to
    others, and its time begins anew. It is woken when memory may have become free:
    `placement.without_room`."""
    closed = _set_down(session, key, StepStatus.QUEUED, RunStatus.RUNNING, EventType.STEP_QUEUED)
    _, step = _rows(session, key)
    step.started_at = None
    session.add(step)
    left = tickets.leave_place(session, key.run_id, hosts.total_places)
    return replace(closed, granted=[*closed.granted, *left])


def await_approval(session: Session, key: StepKey) -> Closed:
    """Let a step wait for somebody's approval, and the run with it, without holding a slot."""
    kind = EventType.WORKFLOW_WAITING
    return _set_down(session, key, StepStatus.WAITING, RunStatus.WAITING, kind)


def _set_down(
    session: Session, key: StepKey, status: StepStatus, run_status: RunStatus, kind: EventType
) -> Closed:
    require(session, key, to_start=True)
    run, step = _rows(session, key)
    granted = tickets.release(session, run.id, step.index)
    _move(step, status)
    session.add(step)
    session.flush()
    if not standing.move(session, run, run_status, kind):
        standing.tell(session, run, kind)
    spent = to_millis(utc_now() - (step.started_at or utc_now()))
    outcome = StepOutcome(status=status, host_id=run.host_id, elapsed_ms=spent)
    return Closed(outcome, granted)


def require(session: Session, key: StepKey, *, to_start: bool = False) -> RunRow:
    """The run, if this attempt has the step and the run is open; `to_start` something in the
    sandbox, the run must not be on its way to an end either. It stays so until the transaction
    ends. Raises StaleAttemptError."""
    return _required(*_rows(session, key), key, to_start)


def check(session: Session, key: StepKey) -> RunRow:
    """As `require` to start something, for who only reads: it may be otherwise soon."""
    return seen(session, key).checked()


@dataclass(frozen=True)
class Seen:
    """A run and its step as who only reads sees them."""

    key: StepKey
    run: RunRow
    step: StepRow

    def checked(self) -> RunRow:
        """The run, if this attempt may start something. Raises StaleAttemptError."""
        return _required(self.run, self.step, self.key, to_start=True)


def seen(session: Session, key: StepKey) -> Seen:
    """How a run and its step stand now; it may be otherwise soon."""
    run, step = session.execute(_run_and_step(), {"run_id": key.run_id, "index": key.index}).one()
    return Seen(key, run, step)


def _required(run: RunRow, step: StepRow, key: StepKey, to_start: bool) -> RunRow:
    status = RunStatus(run.status)
    if not _has(step, key) or step.activity_attempt != key.activity_attempt:
        raise StaleAttemptError("another attempt has this step")
    if status.ended or (to_start and status is RunStatus.CANCELLING):
        raise StaleAttemptError(f"the run is {status}")
    return run


def repeat_step(session: Session, key: StepKey) -> int:
    """Count that the command of this attempt was lost and is run again, and forget what it has
    written; gives the new count. Raises StaleAttemptError."""
    require(session, key, to_start=True)
    _, step = _rows(session, key)
    step.repeats += 1
    session.add(step)
    outputs.forget(session, key.run_id, key.index, key.attempt)
    return step.repeats


def outcome_of(step: StepRow, host_id: str | None) -> StepOutcome:
    """The recorded outcome of a step, as the workflow gets it."""
    result, code = step.result or {}, (step.error or {}).get("code")
    status = StepStatus(step.status)
    if status is StepStatus.RETRYING:
        status = StepStatus.TIMED_OUT if code == DeadlineError.code else StepStatus.FAILED
    return StepOutcome(
        status=status,
        host_id=host_id,
        exit_code=result.get("exitCode"),
        checkpoint_id=result.get("checkpointId"),
        code=code,
        elapsed_ms=_elapsed_ms(step),
    )


def _elapsed_ms(step: StepRow) -> int:
    return to_millis(step.ended_at - step.started_at) if step.ended_at and step.started_at else 0


def _rows(session: Session, key: StepKey) -> tuple[RunRow, StepRow]:
    """The run, locked, and the step as it is then."""
    if not locks.is_kept(session, RunRow, key.run_id):
        session.flush()  # what is not written yet would be lost
        found = session.execute(
            _run_and_step_locked(),
            {"run_id": key.run_id, "index": key.index},
            execution_options={"populate_existing": True},
        ).one_or_none()
        if found is not None:
            locks.keep(session, found[0], key.run_id)
            return found[0], found[1]
    run = locks.get_one(session, RunRow, key.run_id)
    return run, session.get_one(StepRow, (key.run_id, key.index))


@cache
def _run_and_step() -> Select[RunRow, StepRow]:
    of_run, at = col(StepRow.run_id) == col(RunRow.id), col(StepRow.index) == bindparam("index")
    joined = select(RunRow, StepRow).join(StepRow, of_run)
    return joined.where(col(RunRow.id) == bindparam("run_id"), at)


@cache
def _run_and_step_locked() -> Select[RunRow, StepRow]:
    """Both are locked: Postgres shows a row that it had to wait for as it is now, but what is only
    joined to it as it was before."""
    return _run_and_step().with_for_update(of=[RunRow, StepRow], key_share=True)


def _is_this(step: StepRow, key: StepKey) -> bool:
    return step.temporal_run_id == key.temporal_run_id and step.attempt == key.attempt


def _is_newer(step: StepRow, key: StepKey) -> bool:
    if step.temporal_run_id != key.temporal_run_id:
        return False
    mine = (key.attempt, key.activity_attempt)
    return (step.attempt, step.activity_attempt) > mine


def _has(step: StepRow, key: StepKey) -> bool:
    """Whether the step is at work, and no later attempt of the activity has taken it over."""
    latest = _is_this(step, key) and step.activity_attempt <= key.activity_attempt
    return latest and step.status == StepStatus.RUNNING


def _take(session: Session, step: StepRow, key: StepKey, status: StepStatus) -> None:
    if not _is_this(step, key):
        step.started_at, step.repeats, step.approval = None, 0, None
    step.temporal_run_id, step.attempt = key.temporal_run_id, key.attempt
    step.activity_attempt = key.activity_attempt
    _move(step, status)
    step.result, step.error, step.ended_at = None, None, None
    if status is StepStatus.RUNNING:
        step.started_at = step.started_at or utc_now()
    session.add(step)
    session.flush()


def _move(step: StepRow, status: StepStatus) -> None:
    step.status = advance_step(StepStatus(step.status), status)


def _begin(session: Session, run: RunRow, *, began: bool) -> None:
    stand = standing.stand_of(session, run)
    first = run.started_at is None
    kind = EventType.WORKFLOW_STARTED if first else EventType.WORKFLOW_RESUMED
    run.started_at = run.started_at or utc_now()
    session.add(run)
    if not standing.move(session, run, RunStatus.RUNNING, kind, stand=stand) and first:
        standing.tell(session, run, kind, stand=stand)  # it was resumed before its first step
    if began:
        standing.tell(session, run, EventType.STEP_STARTED, stand=stand)


def _brief(step: StepRow) -> Json:
    return {
        "index": step.index,
        "id": step.id,
        "type": step.type,
        "status": step.status,
        "attempt": step.attempt,
    }
