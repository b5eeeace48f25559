"""Queries of sessions."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, Executable, and_, bindparam, func, literal_column, or_
from sqlmodel import Session, col, select

from director.domain import sessions as domain
from director.domain.base import Json
from director.domain.errors import ConflictError, NotFoundError
from director.domain.events import EventType
from director.domain.ids import SESSION, new_id
from director.domain.lifetimes import OPEN_SANDBOXES, SandboxStatus
from director.domain.pages import PageQuery, Pagination
from director.domain.runs import RunStatus
from director.domain.sessions import SessionMetrics, SessionStatus
from director.domain.times import utc_now
from director.domain.users import Principal
from director.store import events, locks, security, security_events
from director.store.lists import paged
from director.store.ownership import owned, visible
from director.store.preconditions import check_match
from director.store.tables import (
    ContextRow,
    DepartmentRow,
    NetworkRow,
    RunRow,
    SandboxRow,
    SessionRow,
    WorkflowRow,
)

_BATCH = 100
_PLAIN = {"name", "description", "status", "security_profile_id"}
_OPEN: list[ColumnElement[str]] = [
    literal_column(f"'{status}'") for status in RunStatus if not status.ended
]
"""As text of the statement: a list of values is spelt out anew at each execution."""
_IS_ASKED = col(SessionRow.id) == bindparam("id")


def create(session: Session, principal: Principal, body: domain.SessionCreate) -> domain.Session:
    """Add a session. Raises NotFoundError for a profile that the principal may not see."""
    if body.security_profile_id is not None:
        security.named(session, principal, body.security_profile_id)
    row = SessionRow(
        id=new_id(SESSION),
        owner_id=principal.user_id,
        type=body.type,
        name=body.name,
        description=body.description,
        config=body.config.model_dump(mode="json", exclude_none=True),
        security_profile_id=body.security_profile_id,
    )
    row.renew()
    session.add(row)
    session.flush()
    return tell(session, row, EventType.SESSION_CREATED)


def get(session: Session, principal: Principal, id: str) -> SessionRow:
    """The session of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(SessionRow, id)
    if row is None or not _seen(principal, row):
        raise NotFoundError("session", id)
    return row


def shown(session: Session, principal: Principal, id: str) -> domain.Session:
    """The session as the API shows it, if the principal may see it. Raises NotFoundError."""
    found = session.execute(_with_counts(), {"id": id}).first()
    if found is None or not _seen(principal, found[0]):
        raise NotFoundError("session", id)
    row, *counts = found
    return _view(row, _metrics(counts))


def _seen(principal: Principal, row: SessionRow) -> bool:
    return row.deleted_at is None and visible(principal, row.owner_id)


def _locked(session: Session, principal: Principal, id: str) -> SessionRow:
    """The same, for who is to change it or what is in it."""
    locks.get(session, SessionRow, id)
    return get(session, principal, id)


def lock_with(session: Session, row: DepartmentRow | WorkflowRow) -> None:
    """Lock what is in a session, and before it the session with all the slots in there."""
    locks.get_one(session, SessionRow, row.session_id)
    locks.get_one(session, type(row), row.id)


def usable(session: Session, principal: Principal, id: str) -> SessionRow:
    """The session, if new work may begin in it. Raises NotFoundError or ConflictError."""
    row = _locked(session, principal, id)
    if (status := status_of(session, row)) is not SessionStatus.ACTIVE:
        raise ConflictError(
            f"session {id} is {status}; new work needs an active one", status=status
        )
    row.renew()
    return row


def used(session: Session, id: str) -> None:
    """Begin a session's idle time anew because of a write in it, unless it is over already."""
    row = locks.get(session, SessionRow, id)
    if row is not None and status_of(session, row) is not SessionStatus.EXPIRED:
        row.renew()
        session.add(row)


def listed(
    session: Session, principal: Principal, query: PageQuery, status: SessionStatus | None
) -> tuple[list[domain.Session], Pagination]:
    """A page of the sessions that the principal may see."""
    conditions: list[Any] = [col(SessionRow.deleted_at).is_(None)]
    conditions += owned(principal, SessionRow)
    if status is not None:
        conditions.append(_has_status(status))
    rows, pagination = paged(session, SessionRow, conditions, query)
    ids = {"ids": [row.id for row in rows]}
    counts = {id: _metrics(counts) for id, *counts in session.execute(_counts_of_some(), ids)}
    return [_view(row, counts[row.id]) for row in rows], pagination


def update(
    session: Session,
    principal: Principal,
    id: str,
    body: domain.SessionUpdate,
    match: str | None,
) -> domain.Session:
    """Merge a change into a session. One that has expired only `status: active` revives."""
    row = _locked(session, principal, id)
    check_match(row, match)
    stays_expired = (
        status_of(session, row) is SessionStatus.EXPIRED
        and body.status is not domain.SettableStatus.ACTIVE
    )
    if body.security_profile_id is not None:
        security.named(session, principal, body.security_profile_id)
    for field in _PLAIN & body.model_fields_set:
        setattr(row, field, getattr(body, field))
    if "security_profile_id" in body.model_fields_set:
        profile = row.security_profile_id
        message = f"the security profile of session {row.id} is {profile or 'none'}"
        security_events.changed(session, row, message, securityProfileId=profile)
    if "config" in body.model_fields_set:
        row.config = domain.merged(row.config, body.config)
    if not stays_expired:
        row.renew()
    row.touch()
    session.add(row)
    session.flush()
    return tell(session, row, EventType.SESSION_UPDATED)


def delete(
    session: Session, principal: Principal, id: str, match: str | None, *, force: bool
) -> list[str]:
    """Take a session and what is in it out of sight; gives the runs that are to be cancelled.

    Raises ConflictError while something runs in it, unless forced: a run, or a sandbox that is
    neither stopped nor over; and while sandboxes of elsewhere are in a network of it."""
    get(session, principal, id)
    locks.each(session, RunRow, open_runs(session, id))
    locks.each(session, SandboxRow, _living_sandboxes(session, id))
    row = _locked(session, principal, id)
    check_match(row, match)
    running, living = open_runs(session, id), _living_sandboxes(session, id)
    if (running or living) and not force:
        raise ConflictError(
            f"session {id} has work running: cancel its workflows and stop its sandboxes first, or"
            " delete with ?force=true",
            runIds=running[:20],
            sandboxIds=living[:20],
        )
    if not force and (guests := _guests(session, id)):
        raise ConflictError(
            f"{len(guests)} sandboxes that are not of session {id} are in its networks: delete"
            " them, or send ?force=true, which takes them out",
            sandboxIds=guests[:20],
        )
    _hide_contents(session, id)
    row.deleted_at = utc_now()
    row.touch()
    session.add(row)
    session.flush()
    tell(session, row, EventType.SESSION_DELETED)
    return running


def _hide_contents(session: Session, id: str) -> None:
    for kind in (DepartmentRow, WorkflowRow, ContextRow):
        inside = select(kind).where(kind.session_id == id, col(kind.deleted_at).is_(None))
        for child in session.exec(inside):
            child.deleted_at = utc_now()
            session.add(child)


def _living_sandboxes(session: Session, id: str) -> list[str]:
    living = [status for status in SandboxStatus if status.placed]
    shown = (SandboxRow.session_id == id, col(SandboxRow.deleted_at).is_(None))
    placed = col(SandboxRow.status).in_(living)
    return list(session.exec(select(SandboxRow.id).where(*shown, placed)))


def _guests(session: Session, id: str) -> list[str]:
    """Sandboxes of other sessions, or of none, that are to be in networks of a session."""
    here = (NetworkRow.session_id == id, col(NetworkRow.deleted_at).is_(None))
    theirs = (SandboxRow.network_id == NetworkRow.id, col(SandboxRow.status).in_(OPEN_SANDBOXES))
    foreign = col(SandboxRow.session_id).is_distinct_from(id)
    return list(session.exec(select(SandboxRow.id).where(*here, *theirs, foreign)))


def open_runs(session: Session, id: str) -> list[str]:
    """The ids of the runs of a session that have not ended."""
    return list(session.exec(select(RunRow.id).where(RunRow.session_id == id, still_open())))


def due(session: Session) -> list[str]:
    """Sessions whose idle time is over and of which that is not written yet: the oldest of them,
    in the order in which they are to be locked."""
    over = select(SessionRow.id).where(_idle(), col(SessionRow.deleted_at).is_(None))
    return sorted(session.exec(over.order_by(col(SessionRow.expires_at)).limit(_BATCH)))


def expire(session: Session) -> None:
    """Write and tell that sessions have expired."""
    for id in due(session):
        row = locks.get_one(session, SessionRow, id)
        if status_of(session, row) is not SessionStatus.EXPIRED or row.deleted_at is not None:
            continue  # it was used meanwhile
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
    return _metrics(session.execute(_counts_of_one(), {"id": id}).one())


def _metrics(counts: Sequence[int]) -> SessionMetrics:
    departments, tasks, running = counts
    return SessionMetrics.model_construct(
        active_departments=departments, total_tasks=tasks, running_tasks=running
    )


# Each statement is made once, since to make it costs more than to ask it.


@cache
def _with_counts() -> Executable:
    return sqlalchemy.select(SessionRow, *_counts()).where(_IS_ASKED)


@cache
def _counts_of_one() -> Executable:
    return sqlalchemy.select(*_counts()).where(_IS_ASKED)


@cache
def _counts_of_some() -> Executable:
    asked = col(SessionRow.id).in_(bindparam("ids", expanding=True))
    return sqlalchemy.select(col(SessionRow.id), *_counts()).where(asked)


def _counts() -> list[Any]:
    def count(kind: Any, *conditions: Any) -> ColumnElement[int]:
        inside = (kind.session_id == SessionRow.id, *conditions)
        counted = select(func.count()).select_from(kind).where(*inside)
        return counted.correlate(SessionRow).scalar_subquery()

    return [
        count(DepartmentRow, col(DepartmentRow.deleted_at).is_(None)),
        count(RunRow),
        count(RunRow, still_open()),
    ]


def view(session: Session, row: SessionRow) -> domain.Session:
    """The session as the API shows it."""
    return _view(row, metrics(session, row.id))


def _view(row: SessionRow, counts: SessionMetrics) -> domain.Session:
    expired = _is_due(row) and counts.running_tasks == 0
    present = {"status": SessionStatus.EXPIRED if expired else row.status, "metrics": counts}
    return domain.Session.model_validate({**row.model_dump(), **present})


def tell(session: Session, row: SessionRow, kind: EventType, **more: Json) -> domain.Session:
    """Append an event of the session to the log, with what else is to be told; gives the session as
    it is told."""
    present = view(session, row)
    data = {
        "sessionId": row.id,
        "status": "deleted" if row.deleted_at else present.status,
        "metrics": present.metrics.model_dump(mode="json"),
        **more,
    }
    events.append(
        session, kind, subject=row.id, owner_id=row.owner_id, session_id=row.id, data=data
    )
    return present


def still_open() -> ColumnElement[bool]:
    """The condition that a run has not ended."""
    return col(RunRow.status).in_(_OPEN)


def _has_status(status: SessionStatus) -> ColumnElement[bool]:
    stored, expires = col(SessionRow.status), col(SessionRow.expires_at)
    if status is SessionStatus.EXPIRED:
        return or_(stored == status, _idle())
    if status is SessionStatus.ACTIVE:
        return and_(stored == status, or_(expires.is_(None), expires > utc_now(), _busy()))
    return stored == status


def _idle() -> ColumnElement[bool]:
    """The condition that a session has expired and that this is not written yet."""
    over = col(SessionRow.expires_at) <= utc_now()
    return and_(col(SessionRow.status) == SessionStatus.ACTIVE, over, ~_busy())


def _busy() -> ColumnElement[bool]:
    return select(RunRow.id).where(RunRow.session_id == SessionRow.id, still_open()).exists()
