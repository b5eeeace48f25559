"""Where a run stands: moved, shown and told."""

from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select

from director.domain import runs as domain
from director.domain.base import Json
from director.domain.events import EventType
from director.domain.runs import RunStatus, StepStatus
from director.domain.states import advance
from director.domain.times import rfc3339, utc_now
from director.store import events, sessions
from director.store.tables import RunRow, SessionRow, StepRow, WorkflowRow

_UNDER_WAY = (StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.WAITING, StepStatus.QUEUED)
_STEP_SHOWN = set(domain.StepView.model_fields) - {"result", "error"}


def move(
    session: Session,
    run: RunRow,
    wanted: RunStatus,
    kind: EventType,
    more: Json | None = None,
) -> bool:
    """Advance a run's status, with its workflow's and the event; False where no move exists."""
    status = advance(RunStatus(run.status), wanted)
    if status == run.status:
        return False
    now = utc_now()
    run.status = status
    if status.ended:
        run.completed_at = now
    run.touch()
    session.add(run)
    workflow = session.get_one(WorkflowRow, run.workflow_id)
    if workflow.latest_run_id == run.id:
        workflow.status = status
        workflow.touch()
        session.add(workflow)
    session.flush()
    tell(session, run, kind, more)
    if status.ended:
        parent = session.get_one(SessionRow, run.session_id)
        parent.renew()
        session.add(parent)
        sessions.tell(session, parent, EventType.SESSION_METRICS)
    return True


def steps_of(session: Session, run_id: str) -> list[StepRow]:
    """The steps of a run, in order."""
    statement = select(StepRow).where(StepRow.run_id == run_id)
    return list(session.exec(statement.order_by(col(StepRow.index))))


def view(session: Session, run: RunRow) -> domain.RunView:
    """A run as the API shows it."""
    return _view(run, [step_view(row) for row in steps_of(session, run.id)])


def _view(run: RunRow, steps: list[domain.StepView]) -> domain.RunView:
    done = sum(step.status is StepStatus.COMPLETED for step in steps)
    current = next((step for step in steps if step.status in _UNDER_WAY), None)
    temporal = {"workflowId": run.id, "runId": run.temporal_run_id}
    return domain.RunView(
        **run.model_dump(include=set(domain.RunView.model_fields)),
        run_id=run.id,
        definition_version=run.version,
        sandbox_losses=run.sandbox_epoch,
        pause_requested=run.pause_wanted and not RunStatus(run.status).ended,
        step=done,
        progress=_progress(run, done),
        current_step=None if RunStatus(run.status).ended else current,
        steps=steps,
        temporal=temporal if run.temporal_run_id else None,
    )


def step_view(row: StepRow) -> domain.StepView:
    """A step as the API shows it."""
    return _step_view(row, row.result, row.error)


def _step_view(row: StepRow, result: Json | None, error: Json | None) -> domain.StepView:
    return domain.StepView(
        **row.model_dump(include=_STEP_SHOWN),
        start_time=row.started_at,
        end_time=row.ended_at,
        result=result,
        error=error,
    )


def page_of_views(session: Session, runs: list[RunRow]) -> list[domain.RunView]:
    """Several runs as the API lists them; their steps without results, which may be large."""
    steps = _steps_without_results(session, [run.id for run in runs])
    return [_view(run, steps[run.id]) for run in runs]


def _steps_without_results(
    session: Session, run_ids: list[str]
) -> dict[str, list[domain.StepView]]:
    """The steps of several runs by run, in order."""
    slim = (defer(StepRow.result), defer(StepRow.error))  # type: ignore[arg-type]
    statement = select(StepRow).where(col(StepRow.run_id).in_(run_ids)).options(*slim)
    found: dict[str, list[domain.StepView]] = {id: [] for id in run_ids}
    for row in session.exec(statement.order_by(col(StepRow.run_id), col(StepRow.index))):
        found[row.run_id].append(_step_view(row, None, None))
    return found


def tell(session: Session, run: RunRow, kind: EventType, more: Json | None = None) -> None:
    """Append an event of the run: where it stands, as the `workflow_progress` message tells it."""
    done = _completed(session, run.id)
    data: dict[str, Any] = {
        "workflowId": run.workflow_id,
        "runId": run.id,
        "sessionId": run.session_id,
        "event": kind,
        "status": run.status,
        "step": done,
        "totalSteps": run.total_steps,
        "progress": _progress(run, done),
        "currentStep": _under_way(session, run),
        **(more or {}),
    }
    events.append(
        session,
        kind,
        subject=run.id,
        owner_id=run.owner_id,
        session_id=run.session_id,
        workflow_id=run.workflow_id,
        data=data,
    )


def _progress(run: RunRow, done: int) -> int:
    if run.status == RunStatus.COMPLETED:
        return 100
    return min(99, domain.percent(done, run.total_steps))


def _completed(session: Session, run_id: str) -> int:
    completed = (StepRow.run_id == run_id, StepRow.status == StepStatus.COMPLETED)
    return session.exec(select(func.count()).select_from(StepRow).where(*completed)).one()


def _under_way(session: Session, run: RunRow) -> Json | None:
    """The step that is at work, without its result: a result may be large."""
    if RunStatus(run.status).ended:
        return None
    at_work = (StepRow.run_id == run.id, col(StepRow.status).in_(_UNDER_WAY))
    slim = (defer(StepRow.result), defer(StepRow.error))  # type: ignore[arg-type]
    statement = select(StepRow).where(*at_work).options(*slim).order_by(col(StepRow.index))
    row = session.exec(statement.limit(1)).first()
    if row is None:
        return None
    return {
        "index": row.index,
        "id": row.id,
        "type": row.type,
        "status": row.status,
        "attempt": row.attempt,
        "startTime": rfc3339(row.started_at) if row.started_at else None,
    }
