"""Queries of the messages of a session."""

from typing import Any

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from director.domain import messages as domain
from director.domain.errors import ConflictError, NotFoundError
from director.domain.events import EventType
from director.domain.ids import MESSAGE, new_id
from director.domain.pages import PageQuery, Pagination
from director.domain.users import Principal
from director.store import sessions
from director.store.lists import paged
from director.store.tables import MessageRow, SessionRow


def create(
    session: Session, principal: Principal, session_id: str, body: domain.MessageCreate
) -> domain.Message:
    """Add a message behind all others of a session. Raises ConflictError where the session takes
    no new work, or has too many."""
    parent = sessions.usable(session, principal, session_id)
    last = select(func.max(MessageRow.number)).where(MessageRow.session_id == session_id)
    number = (session.exec(last).one() or 0) + 1  # nobody else comes: the session is locked
    if number > domain.MOST_MESSAGES:
        raise ConflictError(
            f"session {session_id} has {domain.MOST_MESSAGES} messages, as many as allowed: go on"
            " in another",
            quota="messages",
            limit=domain.MOST_MESSAGES,
        )
    row = MessageRow(
        id=new_id(MESSAGE),
        session_id=parent.id,
        number=number,
        role=body.role,
        author=body.author or principal.username,
        content=body.content,
        details=body.metadata,
    )
    session.add(row)
    session.flush()
    brief = {"id": row.id, "role": row.role, "author": row.author}
    sessions.tell(session, parent, EventType.MESSAGE_CREATED, message=brief)
    return _view(row)


def listed(
    session: Session, principal: Principal, session_id: str, query: PageQuery
) -> tuple[list[domain.Message], Pagination]:
    """A page of a session's messages, in the order in which they came. Raises NotFoundError."""
    sessions.get(session, principal, session_id)
    rows, pagination = paged(session, MessageRow, _of(session_id), query, by="number")
    return [_view(row) for row in rows], pagination


def get(session: Session, principal: Principal, session_id: str, id: str) -> domain.Message:
    """A message of a session. Raises NotFoundError."""
    sessions.get(session, principal, session_id)
    conditions = (MessageRow.id == id, *_of(session_id))
    row = session.exec(select(MessageRow).where(*conditions)).first()
    if row is None:
        raise NotFoundError("message", id)
    return _view(row)


def purge(session: Session, limit: int) -> int:
    """Forget at most `limit` messages of sessions that were deleted; gives how many."""
    deleted = select(SessionRow.id).where(col(SessionRow.deleted_at).is_not(None))
    of_them = select(MessageRow.id).where(col(MessageRow.session_id).in_(deleted)).limit(limit)
    return session.exec(delete(MessageRow).where(col(MessageRow.id).in_(of_them))).rowcount


def _of(session_id: str) -> list[Any]:
    return [MessageRow.session_id == session_id, col(MessageRow.superseded_by).is_(None)]


def _view(row: MessageRow) -> domain.Message:
    shown = row.model_dump(exclude={"details"})
    return domain.Message.model_validate({**shown, "metadata": row.details})
