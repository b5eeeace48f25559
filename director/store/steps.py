"""What the activities of a run write, fenced so that an old attempt never overwrites a newer."""

from dataclasses import dataclass
from typing import Literal

from sqlmodel import Session

from director.domain.base import Json
from director.domain.errors import DeadlineError
from director.domain.events import EventType
from director.domain.runs import RunStatus, StepOutcome, StepStatus
from director.domain.times import to_millis, utc_now
from director.store import outputs, standing
from director.store.tables import RunRow, StepRow


@dataclass(frozen=True)
class StepKey:
    """Who writes: the step, the attempt as its user counts, and Temporal's own two counts."""

    run_id: str
    index: int
    attempt: int
    temporal_run_id: str
    activity_attempt: int


class StaleAttemptError(Exception):
    """Another attempt has the step, or the run has ended: this one writes nothing any more."""


@dataclass(frozen=True)
class Opened:
    """What became of opening a step: go on, it has ended already, or somebody else has it."""

    state: Literal["go", "ended", "stale"]
    outcome: StepOutcome | None = None


def open_step(session: Session, key: StepKey) -> Opened:
    """Write `running`, unless this attempt has its outcome or the run takes no steps any more."""
    run, step = _rows(session, key)
    if _is_this(step, key) and step.ended_at is not None:
        return Opened("ended", outcome_of(step, run.host_id))
    if RunStatus(run.status).ended or _is_newer(step, key):
        return Opened("stale")
    if run.temporal_run_id != key.temporal_run_id:
        run.temporal_run_id = key.temporal_run_id
        session.add(run)
    if run.status == RunStatus.CANCELLING:
        return Opened("ended", StepOutcome(status=StepStatus.CANCELLED, host_id=run.host_id))
    began = not (_is_this(step, key) and step.status == StepStatus.RUNNING)
    _take(session, step, key)
    _begin(session, run, began)
    return Opened("go")


def close_step(
    session: Session,
    key: StepKey,
    status: StepStatus,
    result: Json | None,
    error: Json | None,
) -> bool:
    """Write the outcome of an attempt with its event; False where another attempt has the step.

    `retrying` stands for a failure after which another attempt follows."""
    run, step = _rows(session, key)
    if not _is_this(step, key) or step.activity_attempt > key.activity_attempt:
        return False
    if step.ended_at is not None or RunStatus(run.status).ended:
        return False
    step.status, step.result, step.error, step.ended_at = status, result, error, utc_now()
    session.add(step)
    session.flush()
    standing.tell(session, run, EventType.STEP_ENDED, {"endedStep": _brief(step)})
    return True


def require(session: Session, key: StepKey, *, to_start: bool = False) -> None:
    """Raise StaleAttemptError unless this attempt has the step and the run is open; `to_start`
    something in the sandbox, the run must not be on its way to an end either."""
    run, step = _rows(session, key)
    status = RunStatus(run.status)
    if not _is_this(step, key) or step.activity_attempt != key.activity_attempt:
        raise StaleAttemptError("another attempt has this step")
    if status.ended or (to_start and status is RunStatus.CANCELLING):
        raise StaleAttemptError(f"the run is {status}")


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
    run = session.get_one(RunRow, key.run_id)
    return run, session.get_one(StepRow, (key.run_id, key.index))


def _is_this(step: StepRow, key: StepKey) -> bool:
    return step.temporal_run_id == key.temporal_run_id and step.attempt == key.attempt


def _is_newer(step: StepRow, key: StepKey) -> bool:
    if step.temporal_run_id != key.temporal_run_id:
        return False
    mine = (key.attempt, key.activity_attempt)
    return (step.attempt, step.activity_attempt) > mine


def _take(session: Session, step: StepRow, key: StepKey) -> None:
    if not _is_this(step, key):
        step.started_at, step.repeats = None, 0
    step.temporal_run_id, step.attempt = key.temporal_run_id, key.attempt
    step.activity_attempt = key.activity_attempt
    step.status, step.result, step.error, step.ended_at = StepStatus.RUNNING, None, None, None
    step.started_at = step.started_at or utc_now()
    session.add(step)
    session.flush()


def _begin(session: Session, run: RunRow, began: bool) -> None:
    standing.move(session, run, RunStatus.RUNNING, EventType.WORKFLOW_STARTED)
    if began:
        standing.tell(session, run, EventType.STEP_STARTED)


def _brief(step: StepRow) -> Json:
    return {
        "index": step.index,
        "id": step.id,
        "type": step.type,
        "status": step.status,
        "attempt": step.attempt,
    }
