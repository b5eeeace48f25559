"""The event log: appended in the transaction of the change that it tells, read by cursor."""

from sqlalchemy import func
from sqlmodel import Session, col, select

from director.domain.base import Json
from director.domain.events import Event, EventType
from director.store.tables import EventRow


def append(
    session: Session,
    kind: EventType,
    *,
    subject: str,
    owner_id: str,
    data: Json,
    session_id: str | None = None,
    workflow_id: str | None = None,
) -> None:
    """Append an event with the next `seq` of its subject."""
    last = select(func.max(EventRow.seq)).where(EventRow.subject == subject)
    session.add(
        EventRow(
            subject=subject,
            seq=(session.exec(last).one() or 0) + 1,
            type=kind,
            owner_id=owner_id,
            session_id=session_id,
            workflow_id=workflow_id,
            data=data,
        )
    )
    session.flush()


def after(session: Session, cursor: int, limit: int) -> list[Event]:
    """Events behind a cursor, oldest first."""
    statement = select(EventRow).where(col(EventRow.id) > cursor)
    rows = session.exec(statement.order_by(col(EventRow.id)).limit(limit))
    return [Event.model_validate(row) for row in rows]


def newest(session: Session) -> int:
    """The cursor of the last event; 0 where there is none."""
    return session.exec(select(func.max(EventRow.id))).one() or 0
