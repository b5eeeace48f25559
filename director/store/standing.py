"""Where a run stands: moved, shown and told."""

from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Executable, bindparam, case, func, update
from sqlalchemy.orm import defer
from sqlalchemy.orm.util import identity_key
from sqlmodel import Session, col, select

from director.domain import runs as domain
from director.domain.archives import Workspace
from director.domain.base import Json
from director.domain.events import EventType
from director.domain.runs import RunStatus, StepStatus
from director.domain.states import advance
from director.domain.times import rfc3339, utc_now
from director.store import events, locks, sessions
from director.store.base import UtcDateTime
from director.store.tables import RunRow, SessionRow, StepRow, WorkflowRow

_UNDER_WAY = (StepStatus.RUNNING, StepStatus.RETRYING, StepStatus.WAITING, StepStatus.QUEUED)
_STEP_SHOWN = set(domain.StepView.model_fields) - {"result", "error"}


class Stand(NamedTuple):
    """How many steps of a run are completed, and the first that is at work."""

    done: int
    current: Json | None = None


def move(
    session: Session,
    run: RunRow,
    wanted: RunStatus,
    kind: EventType,
    more: Json | None = None,
    stand: Stand | None = None,
) -> bool:
    """Advance a run's status, with its workflow's and the event; False where no move exists.
    `stand` is where the run stands after that, if that is known."""
    status = advance(RunStatus(run.status), wanted)
    if status == run.status:
        return False
    now = utc_now()
    run.status = status
    if status.ended:
        run.completed_at = now
    run.touch()
    session.add(run)
    parent = locks.get_one(session, SessionRow, run.session_id) if status.ended else None
    session.flush()
    _move_workflow(session, run, now)
    tell(session, run, kind, more, stand)
    if parent is not None:
        parent.renew()
        session.add(parent)
        sessions.tell(session, parent, EventType.SESSION_METRICS)
    return True


def _move_workflow(session: Session, run: RunRow, now: datetime) -> None:
    """Let the workflow have the status of its latest run; other runs of it do not show."""
    id = run.workflow_id
    values = {"run": run.id, "workflow": id, "moved": run.status, "now": now}
    session.execute(_latest_moved(), values)
    if (loaded := session.identity_map.get(identity_key(WorkflowRow, id))) is not None:
        session.refresh(loaded)


@cache
def _latest_moved() -> Executable:
    now, changed = bindparam("now", type_=UtcDateTime()), col(WorkflowRow.updated_at)
    moved = update(WorkflowRow.__table__).values(  # type: ignore[attr-defined]
        status=bindparam("moved"), updated_at=case((changed > now, changed), else_=now)
    )
    of_run = col(WorkflowRow.latest_run_id) == bindparam("run")
    return moved.where(col(WorkflowRow.id) == bindparam("workflow"), of_run)


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
        workspace=Workspace.of(run.cloned),
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


def tell(
    session: Session,
    run: RunRow,
    kind: EventType,
    more: Json | None = None,
    stand: Stand | None = None,
) -> None:
    """Append an event of the run: where it stands, as the `workflow_progress` message tells it."""
    done, current = stand or stand_of(session, run)
    data: dict[str, Any] = {
        "workflowId": run.workflow_id,
        "runId": run.id,
        "sessionId": run.session_id,
        "event": kind,
        "status": run.status,
        "step": done,
        "totalSteps": run.total_steps,
        "progress": _progress(run, done),
        "currentStep": current,
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


def stand_of(session: Session, run: RunRow) -> Stand:
    """Where a run stands now."""
    found = session.execute(_by_status(), {"run_id": run.id}).all()
    done = sum(count for status, count, _ in found if status == StepStatus.COMPLETED)
    at_work = [first for status, _, first in found if status in _UNDER_WAY]
    if RunStatus(run.status).ended or not at_work:
        return Stand(done)
    # without its result, which may be large; whoever has just written it has it in the session
    slim = (defer(StepRow.result), defer(StepRow.error))  # type: ignore[arg-type]
    row = session.get_one(StepRow, (run.id, min(at_work)), options=slim)
    current = {
        "index": row.index,
        "id": row.id,
        "type": row.type,
        "status": row.status,
        "attempt": row.attempt,
        "startTime": rfc3339(row.started_at) if row.started_at else None,
    }
    return Stand(done, current)


@cache
def _by_status() -> Executable:
    """Made once: every event of a run asks it."""
    counted = select(col(StepRow.status), func.count(), func.min(StepRow.index))
    of_run = col(StepRow.run_id) == bindparam("run_id")
    return counted.where(of_run).group_by(col(StepRow.status))
