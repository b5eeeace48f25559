"""Queries of departments."""

from typing import Any

from sqlalchemy import func
from sqlmodel import Session, col, select

from director.domain import departments as domain
from director.domain.departments import TicketState
from director.domain.errors import ConflictError, NotFoundError
from director.domain.events import EventType
from director.domain.ids import DEPARTMENT, new_id
from director.domain.pages import PageQuery, Pagination
from director.domain.runs import StepStatus
from director.domain.sessions import merged
from director.domain.times import to_millis, utc_now
from director.domain.users import Principal
from director.store import sessions, tickets
from director.store.lists import paged
from director.store.ownership import seen_in, visible
from director.store.preconditions import check_match
from director.store.tables import DepartmentRow, SessionRow, StepRow

_DURATIONS = 1000
"""How many of the newest steps the durations of the metrics are taken from."""


def create(session: Session, principal: Principal, body: domain.DepartmentCreate) -> DepartmentRow:
    """Add a department to a session. Raises ConflictError over `maxDepartments`."""
    parent = sessions.usable(session, principal, body.session_id)
    _check_room(session, parent)
    row = DepartmentRow(
        id=new_id(DEPARTMENT),
        session_id=parent.id,
        owner_id=parent.owner_id,
        name=body.name,
        domain=body.domain,
        config=body.config.model_dump(mode="json", exclude_none=True),
        capabilities=body.capabilities,
    )
    session.add(row)
    session.flush()
    sessions.tell(session, parent, EventType.SESSION_METRICS)
    return row


def get(session: Session, principal: Principal, id: str) -> DepartmentRow:
    """The department of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(DepartmentRow, id)
    if row is None or row.deleted_at is not None or not visible(principal, row.owner_id):
        raise NotFoundError("department", id)
    return row


def listed(
    session: Session,
    principal: Principal,
    query: PageQuery,
    session_id: str | None,
    domain_name: str | None,
) -> tuple[list[domain.Department], Pagination]:
    """A page of the departments that the principal may see."""
    conditions: list[Any] = [col(DepartmentRow.deleted_at).is_(None)]
    conditions += seen_in(session, principal, DepartmentRow, session_id)
    if domain_name is not None:
        conditions.append(DepartmentRow.domain == domain_name)
    rows, pagination = paged(session, DepartmentRow, conditions, query)
    return [view(row) for row in rows], pagination


def update(
    session: Session,
    principal: Principal,
    id: str,
    body: domain.DepartmentUpdate,
    match: str | None,
) -> DepartmentRow:
    """Merge a change into a department; who it has room for then is for `tickets.grant`."""
    row = _locked(session, principal, id)
    check_match(row, match)
    for field in {"name", "domain", "status"} & body.model_fields_set:
        setattr(row, field, getattr(body, field))
    if "capabilities" in body.model_fields_set:
        row.capabilities = body.capabilities or []
    if "config" in body.model_fields_set:
        row.config = merged(row.config, body.config)
    row.touch()
    session.add(row)
    sessions.used(session, row.session_id)
    session.flush()
    return row


def delete(session: Session, principal: Principal, id: str, match: str | None) -> None:
    """Remove a department. Raises ConflictError while a step holds or awaits a slot of it."""
    row = _locked(session, principal, id)
    check_match(row, match)
    counts = tickets.counts(session, id)
    active, queued = counts[TicketState.HELD], counts[TicketState.WAITING]
    if active or queued:
        message = f"department {id} has {active} steps at work and {queued} in its line"
        raise ConflictError(message, activeTasks=active, queuedTasks=queued)
    row.deleted_at = utc_now()
    row.touch()
    session.add(row)
    sessions.used(session, row.session_id)
    session.flush()
    if (parent := session.get(SessionRow, row.session_id)) is not None:
        sessions.tell(session, parent, EventType.SESSION_METRICS)


def metrics(session: Session, row: DepartmentRow) -> domain.DepartmentMetrics:
    """What the department does and did; durations are of its newest 1000 ended steps."""
    counts = _counts(session, row.id)
    durations, last = _durations(session, row.id)
    slots = tickets.counts(session, row.id)
    active, limit = slots[TicketState.HELD], row.config.get("maxConcurrentTasks")
    return domain.DepartmentMetrics(
        active_tasks=active,
        queued_tasks=slots[TicketState.WAITING],
        completed_tasks=counts.get(StepStatus.COMPLETED, 0),
        failed_tasks=counts.get(StepStatus.FAILED, 0) + counts.get(StepStatus.TIMED_OUT, 0),
        avg_duration_ms=round(sum(durations) / len(durations)) if durations else None,
        p95_duration_ms=sorted(durations)[(len(durations) * 95 - 1) // 100] if durations else None,
        utilization=active / limit if limit else None,
        last_activity_at=last,
    )


def view(row: DepartmentRow) -> domain.Department:
    """The department as the API shows it."""
    return domain.Department.model_validate(row.model_dump())


def _locked(session: Session, principal: Principal, id: str) -> DepartmentRow:
    """The department, with its session and all slots in it."""
    sessions.lock_with(session, get(session, principal, id))
    return get(session, principal, id)


def _check_room(session: Session, parent: SessionRow) -> None:
    limit = parent.config.get("maxDepartments")
    present = sessions.metrics(session, parent.id).active_departments
    if limit is not None and present >= limit:
        raise ConflictError(
            f"session {parent.id} has {present} departments and allows {limit}",
            limit="maxDepartments",
            maxDepartments=limit,
            departments=present,
        )


def _counts(session: Session, id: str) -> dict[str, int]:
    counted = select(StepRow.status, func.count()).where(StepRow.department_id == id)
    return dict(session.exec(counted.group_by(StepRow.status)).all())


def _durations(session: Session, id: str) -> tuple[list[int], Any]:
    ended = (StepRow.department_id == id, col(StepRow.ended_at).is_not(None))
    spans = select(StepRow.started_at, StepRow.ended_at).where(*ended)
    rows = session.exec(spans.order_by(col(StepRow.ended_at).desc()).limit(_DURATIONS)).all()
    times = [(started, ended_at) for started, ended_at in rows if started and ended_at]
    last = max((ended for _, ended in times), default=None)
    return [to_millis(ended - started) for started, ended in times], last
