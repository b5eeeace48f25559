"""Queries of sessions."""

from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_
from sqlmodel import Session, col, select

from director.domain import sessions as domain
from director.domain.errors import ConflictError, NotFoundError
from director.domain.events import EventType
from director.domain.ids import SESSION, new_id
from director.domain.pages import PageQuery, Pagination
from director.domain.runs import RunStatus
from director.domain.sessions import SessionMetrics, SessionStatus
from director.domain.times import utc_now
from director.domain.users import Principal
from director.store import events
from director.store.lists import paged
from director.store.ownership import visible
from director.store.preconditions import check_match
from director.store.tables import DepartmentRow, RunRow, SessionRow, WorkflowRow

_BATCH = 100


def create(session: Session, principal: Principal, body: domain.SessionCreate) -> SessionRow:
    """Add a session."""
    row = SessionRow(
        id=new_id(SESSION),
        owner_id=principal.user_id,
        type=body.type,
        name=body.name,
        description=body.description,
        config=body.config.model_dump(mode="json", exclude_none=True),
    )
    row.renew()
    session.add(row)
    session.flush()
    tell(session, row, EventType.SESSION_CREATED)
    return row


def get(session: Session, principal: Principal, id: str) -> SessionRow:
    """The session of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(SessionRow, id)
    if row is None or row.deleted_at is not None or not visible(principal, row.owner_id):
        raise NotFoundError("session", id)
    return row


def usable(session: Session, principal: Principal, id: str) -> SessionRow:
    """The session, if new work may begin in it. Raises NotFoundError or ConflictError."""
    row = get(session, principal, id)
    if (status := status_of(session, row)) is not SessionStatus.ACTIVE:
        raise ConflictError(
            f"session {id} is {status}; new work needs an active one", status=status
        )
    row.renew()
    return row


def used(session: Session, id: str) -> None:
    """Begin a session's idle time anew because of a write in it, unless it is over already."""
    row = session.get(SessionRow, id)
    if row is not None and status_of(session, row) is not SessionStatus.EXPIRED:
        row.renew()
        session.add(row)


def listed(
    session: Session, principal: Principal, query: PageQuery, status: SessionStatus | None
) -> tuple[list[domain.Session], Pagination]:
    """A page of the sessions that the principal may see."""
    conditions: list[Any] = [col(SessionRow.deleted_at).is_(None)]
    if not principal.sees_all:
        conditions.append(SessionRow.owner_id == principal.user_id)
    if status is not None:
        conditions.append(_has_status(status))
    rows, pagination = paged(session, SessionRow, conditions, query)
    counts = _metrics(session, [row.id for row in rows])
    return [_view(row, counts[row.id]) for row in rows], pagination


def update(
    session: Session,
    principal: Principal,
    id: str,
    body: domain.SessionUpdate,
    match: str | None,
) -> SessionRow:
    """Merge a change into a session. One that has expired only `status: active` revives."""
    row = get(session, principal, id)
    check_match(row, match)
    stays_expired = (
        status_of(session, row) is SessionStatus.EXPIRED
        and body.status is not domain.SettableStatus.ACTIVE
    )
    for field in {"name", "description", "status"} & body.model_fields_set:
        setattr(row, field, getattr(body, field))
    if "config" in body.model_fields_set:
        row.config = domain.merged(row.config, body.config)
    if not stays_expired:
        row.renew()
    row.touch()
    session.add(row)
    session.flush()
    tell(session, row, EventType.SESSION_UPDATED)
    return row


def delete(
    session: Session, principal: Principal, id: str, match: str | None, *, force: bool
) -> list[str]:
    """Take a session and what is in it out of sight; gives the runs that are to be cancelled.

    Raises ConflictError while something runs in it, unless forced."""
    row = get(session, principal, id)
    check_match(row, match)
    running = open_runs(session, id)
    if running and not force:
        raise ConflictError(
            f"session {id} has work running; cancel it first, or delete with ?force=true",
            runIds=running[:20],
        )
    _hide_contents(session, id)
    row.deleted_at = utc_now()
    row.touch()
    session.add(row)
    session.flush()
    tell(session, row, EventType.SESSION_DELETED)
    return running


def _hide_contents(session: Session, id: str) -> None:
    for kind in (DepartmentRow, WorkflowRow):
        inside = select(kind).where(kind.session_id == id, col(kind.deleted_at).is_(None))
        for child in session.exec(inside):
            child.deleted_at = utc_now()
            session.add(child)


def open_runs(session: Session, id: str) -> list[str]:
    """The ids of the runs of a session that have not ended."""
    return list(session.exec(select(RunRow.id).where(RunRow.session_id == id, still_open())))


def due(session: Session) -> list[str]:
    """Sessions whose idle time is over and of which that is not written yet, a batch of them."""
    active = SessionRow.status == SessionStatus.ACTIVE
    over = (active, _has_status(SessionStatus.EXPIRED), col(SessionRow.deleted_at).is_(None))
    return list(session.exec(select(SessionRow.id).where(*over).limit(_BATCH)))


def expire(session: Session) -> None:
    """Write and tell that sessions have expired."""
    for id in due(session):
        row = session.get_one(SessionRow, id)
        row.status = SessionStatus.EXPIRED
        row.touch()
        session.add(row)
        session.flush()
        tell(session, row, EventType.SESSION_EXPIRED)


def status_of(session: Session, row: SessionRow) -> SessionStatus:
    """The status as of now: an idle time that is over expires a session with no work in it."""
    if _is_due(row) and not open_runs(session, row.id):
        return SessionStatus.EXPIRED
    return SessionStatus(row.status)


def _is_due(row: SessionRow) -> bool:
    over = row.expires_at is not None and row.expires_at <= utc_now()
    return over and row.status == SessionStatus.ACTIVE


def metrics(session: Session, id: str) -> SessionMetrics:
    """Counts of what the session holds."""
    return _metrics(session, [id])[id]


def _metrics(session: Session, ids: list[str]) -> dict[str, SessionMetrics]:
    def counts(kind: Any, *conditions: Any) -> dict[str, int]:
        counted = select(kind.session_id, func.count()).where(col(kind.session_id).in_(ids))
        return dict(session.exec(counted.where(*conditions).group_by(kind.session_id)).all())

    active = counts(DepartmentRow, col(DepartmentRow.deleted_at).is_(None))
    total, running = counts(RunRow), counts(RunRow, still_open())
    return {
        id: SessionMetrics(
            active_departments=active.get(id, 0),
            total_tasks=total.get(id, 0),
            running_tasks=running.get(id, 0),
        )
        for id in ids
    }


def view(session: Session, row: SessionRow) -> domain.Session:
    """The session as the API shows it."""
    return _view(row, metrics(session, row.id))


def _view(row: SessionRow, counts: SessionMetrics) -> domain.Session:
    expired = _is_due(row) and counts.running_tasks == 0
    present = {"status": SessionStatus.EXPIRED if expired else row.status, "metrics": counts}
    return domain.Session.model_validate({**row.model_dump(), **present})


def tell(session: Session, row: SessionRow, kind: EventType) -> None:
    """Append an event of the session to the log."""
    data = {
        "sessionId": row.id,
        "status": "deleted" if row.deleted_at else status_of(session, row),
        "metrics": metrics(session, row.id).model_dump(mode="json"),
    }
    events.append(
        session, kind, subject=row.id, owner_id=row.owner_id, session_id=row.id, data=data
    )


def still_open() -> ColumnElement[bool]:
    """The condition that a run has not ended."""
    return col(RunRow.status).in_([status for status in RunStatus if not status.ended])


def _has_status(status: SessionStatus) -> ColumnElement[bool]:
    stored = col(SessionRow.status)
    busy = select(RunRow.id).where(RunRow.session_id == SessionRow.id, still_open()).exists()
    expires = col(SessionRow.expires_at)
    idle = and_(stored == SessionStatus.ACTIVE, expires <= utc_now(), ~busy)
    if status is SessionStatus.EXPIRED:
        return or_(stored == status, idle)
    if status is SessionStatus.ACTIVE:
        return and_(stored == status, or_(expires.is_(None), expires > utc_now(), busy))
    return stored == status
