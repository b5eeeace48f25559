"""A run goes on from an earlier step again: after a reset in Temporal, or with another sandbox."""

from sqlmodel import Session

from director.domain.checkpoints import CheckpointStatus
from director.domain.events import EventType
from director.domain.runs import StepStatus
from director.domain.states import advance_step
from director.store import standing, tickets
from director.store.tables import CheckpointRow, RunRow, StepRow


def begin_elsewhere(
    session: Session, run: RunRow, before: int | None = None
) -> tuple[int, list[str]]:
    """Let a run that lost its sandbox go on behind the last checkpoint `before` the step that it
    is at, or else from its first step; gives that step's index, and the runs that got its slots.

    A step that is repeated has checkpoints of its earlier attempt behind it: those do not count."""
    done = standing.steps_of(session, run.id)[:before]
    kept = [step for step in done if _is_kept(session, step)]
    run.workspace_from = (kept[-1].result or {})["checkpointId"] if kept else None
    session.add(run)
    index = kept[-1].index + 1 if kept else 0
    granted = begin_again(session, run, index)
    more = {"sandboxLosses": run.sandbox_epoch, "repeatFrom": index}
    standing.tell(session, run, EventType.WORKFLOW_SANDBOX_LOST, more)
    return index, granted


def _is_kept(session: Session, step: StepRow) -> bool:
    if step.type != "checkpoint" or step.status != StepStatus.COMPLETED:
        return False
    row = session.get(CheckpointRow, (step.result or {}).get("checkpointId"))
    return row is not None and row.status == CheckpointStatus.READY


def begin_again(session: Session, run: RunRow, index: int) -> list[str]:
    """Take back what a step and all behind it came to, since the run goes on from there; gives
    the runs that got their slots."""
    granted = tickets.release(session, run.id)
    for step in standing.steps_of(session, run.id):
        if step.index >= index and step.status != StepStatus.PENDING:
            step.status = advance_step(StepStatus(step.status), StepStatus.PENDING)
            step.result, step.error, step.ended_at = None, None, None
            session.add(step)
    session.flush()
    return granted
