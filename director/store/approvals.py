"""Approvals: decided once, by whoever may, and found again where the word was lost."""

from sqlmodel import Session, col, select

from director.domain.errors import ConflictError
from director.domain.runs import Approval, RunStatus, StepStatus
from director.store.tables import RunRow, StepRow


def decide(session: Session, run: RunRow, approval: Approval) -> None:
    """Record what was decided on the step that waits for it. Raises ConflictError where none
    waits, or the decision was made already."""
    waiting = (StepRow.run_id == run.id, StepRow.status == StepStatus.WAITING)
    step = session.exec(select(StepRow).where(*waiting)).first()
    if step is None or RunStatus(run.status).ended:
        message = f"run {run.id} does not wait for an approval: it is {run.status}"
        raise ConflictError(message, runId=run.id, status=run.status)
    if step.approval is not None:
        by = step.approval.get("by")
        raise ConflictError(f"step {step.id} was decided already, by {by}", runId=run.id)
    step.approval = approval.model_dump(mode="json", exclude_none=True)
    session.add(step)


def decided(session: Session) -> list[str]:
    """The runs that wait for an approval which is decided."""
    waiting = (StepRow.status == StepStatus.WAITING, col(StepRow.approval).is_not(None))
    statement = select(StepRow.run_id).join(RunRow, col(RunRow.id) == StepRow.run_id)
    return list(session.exec(statement.where(*waiting, RunRow.status == RunStatus.WAITING)))
