"""The event log: appended in the transaction of the change that it tells, read by cursor, and
forgotten from its old end."""

from datetime import datetime
from functools import cache
from itertools import takewhile

from sqlalchemy import ColumnElement, Executable, bindparam, delete, exists, func, insert, update
from sqlalchemy.orm import aliased
from sqlmodel import Session, SQLModel, col, select

from director.domain.base import Json
from director.domain.events import Event, EventType, Wanted
from director.domain.times import utc_now
from director.store import locks
from director.store.tables import EventRow, LogPositionRow

_PURGED = "purged"
_SPAN = 5000
"""Events that are looked through at once for those of wanted types: it bounds a query."""

_UNSYNCHRONISED = {"synchronize_session": False}

_APPENDED = "director_events"


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
    """Append an event. It gets its id and the next `seq` of its subject in `write`."""
    session.info.setdefault(_APPENDED, []).append(
        {
            "subject": subject,
            "type": kind,
            "owner_id": owner_id,
            "session_id": session_id,
            "workflow_id": workflow_id,
            "data": data,
            "created_at": utc_now(),
        }
    )


def write(session: Session) -> None:
    """Write the events that were appended, as the last thing before the commit, and one transaction
    after the other: a reader that has seen an id never sees a lower one appear."""
    appended: list[Json] = session.info.pop(_APPENDED, [])
    if not appended:
        return
    session.flush()
    locks.hold(session, locks.Name.EVENTS)
    session.execute(_insert(), [{**event, "of_subject": event["subject"]} for event in appended])


@cache
def _insert() -> Executable:
    """Numbers an event as it is inserted, behind those of its subject that are there by then."""
    of_subject = col(EventRow.subject) == bindparam("of_subject")
    last = select(func.max(EventRow.seq)).where(of_subject).scalar_subquery()
    return insert(SQLModel.metadata.tables["events"]).values(seq=func.coalesce(last, 0) + 1)


def after(session: Session, cursor: int, limit: int) -> list[Event]:
    """Events behind a cursor, oldest first."""
    statement = select(EventRow).where(col(EventRow.id) > cursor)
    rows = session.exec(statement.order_by(col(EventRow.id)).limit(limit))
    return [Event.model_validate(row) for row in rows]


class ForgottenError(Exception):
    """Events behind a cursor are gone; `oldest` is the first cursor from which none is."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"events up to {oldest} are gone")
        self.oldest = oldest


def read(
    session: Session, cursor: int, until: int, wanted: Wanted, limit: int
) -> tuple[list[Event], int]:
    """Wanted events behind a cursor, oldest first, and the cursor to go on from: `until` where
    there are no more. Raises ForgottenError."""
    behind, chosen = col(EventRow.id) > cursor, _chosen(wanted)
    last = until
    if wanted.types is not None:
        edge = select(EventRow.id).where(behind, *chosen).order_by(col(EventRow.id))
        last = min(until, session.exec(edge.offset(_SPAN - 1).limit(1)).first() or until)
        chosen.append(col(EventRow.type).in_(wanted.types))
    statement = select(EventRow).where(behind, col(EventRow.id) <= last, *chosen)
    rows = session.exec(statement.order_by(col(EventRow.id)).limit(limit)).all()
    # After the events: what was purged while they were read must not look as if it had never been.
    if (oldest := purged(session)) > cursor:
        raise ForgottenError(oldest)
    found = [Event.model_validate(row) for row in rows]
    return found, found[-1].id if len(found) == limit else last


def _chosen(wanted: Wanted) -> list[ColumnElement[bool]]:
    """The conditions that an index leads to; types have none."""
    equal = {
        EventRow.owner_id: wanted.owner_id,
        EventRow.session_id: wanted.session_id,
        EventRow.workflow_id: wanted.workflow_id,
    }
    return [col(column) == value for column, value in equal.items() if value is not None]


def newest(session: Session) -> int:
    """The cursor of the last event; 0 where there is none."""
    return session.exec(select(func.max(EventRow.id))).one() or 0


def purged(session: Session) -> int:
    """The cursor up to which events are gone; 0 where none is."""
    row = session.get(LogPositionRow, _PURGED, populate_existing=True)
    return row.position if row else 0


def purge(session: Session, before: datetime, limit: int) -> int:
    """Forget at most `limit` of the oldest events, made before a moment; gives how many.

    Fewer than `limit` means that nothing is left to forget. The last event of a subject leaves an
    empty row that nobody is shown, so that the subject's `seq` goes on from it."""
    mark = locks.get(session, LogPositionRow, _PURGED) or LogPositionRow(name=_PURGED, position=0)
    old = _oldest(session, mark.position, before, limit)
    if not old:
        return 0
    kept, last = mark.position, old[-1]
    batch = (col(EventRow.id) > kept, col(EventRow.id) <= last)
    again = select(EventRow.subject).where(*batch)
    emptied = (col(EventRow.id) <= kept, col(EventRow.subject).in_(again))
    later = aliased(EventRow)
    superseded = exists().where(
        col(later.subject) == col(EventRow.subject), col(later.seq) > col(EventRow.seq)
    )
    for gone in (emptied, (*batch, superseded)):
        session.exec(delete(EventRow).where(*gone), execution_options=_UNSYNCHRONISED)
    emptied_now = update(EventRow).where(*batch).values(data={})
    session.exec(emptied_now, execution_options=_UNSYNCHRONISED)
    mark.position = last
    session.add(mark)
    session.flush()
    return len(old)


def _oldest(session: Session, position: int, before: datetime, limit: int) -> list[int]:
    """The ids behind a position, up to the first event that is not old enough."""
    statement = select(EventRow.id, EventRow.created_at).where(col(EventRow.id) > position)
    rows = session.exec(statement.order_by(col(EventRow.id)).limit(limit))
    return [id for id, made in takewhile(lambda row: row[1] < before, rows) if id is not None]
