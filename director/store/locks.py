"""What a transaction locks, and in which order.

SQLite has one writer at a time. On Postgres writers work beside each other, so whoever decides by
what it has read locks that first, and reads it then. A row stays locked until the transaction ends,
and is locked once. So that no two wait for each other, everybody locks in this order:

1. the row of an `Idempotency-Key`
2. runs, or sandboxes, by id: whoever writes of a run or of a step of it has the run's row
3. one host
4. sessions, by id: with a session come the slots of its departments, which nobody else counts or
   gives meanwhile, also to steps of other runs, and the starts of its workflows
5. the places of all hosts
6. what is in a session: its departments, workflows and context windows; in a sandbox: its commands
7. users, by id
8. blobs, by hash
9. the subnets of all networks, then one network
10. security profiles; the rows of security events
11. the event log, last of all: see `events.write`

Where that is not kept, as by a delete of a session in which a run begins at the same moment,
Postgres ends one of two that wait for each other, and `Store.transact` repeats it."""

from enum import IntEnum
from typing import Any, TypeVar

from sqlalchemy import func
from sqlmodel import Session, SQLModel, select

Row = TypeVar("Row", bound=SQLModel)

_SPACE = 0x64697265
_LOCKED = "director_locked"


class Name(IntEnum):
    """What has no row of its own, with the number of its lock on Postgres."""

    FIRST_ADMIN = 1
    PLACES = 2
    EVENTS = 3
    SUBNETS = 4


def hold(session: Session, name: Name) -> None:
    """Lock a name until the transaction ends."""
    if name in _locked(session) or session.get_bind().dialect.name != "postgresql":
        return
    session.exec(select(func.pg_advisory_xact_lock(_SPACE, int(name))))
    _locked(session)[name] = None


def get(session: Session, kind: type[Row], id: Any) -> Row | None:
    """The row of that id as it is now, locked; None where there is none."""
    if (kind, id) in _locked(session):
        return session.get(kind, id)  # from the session: what is locked is kept there
    session.flush()  # what is not written yet would be lost
    as_update = {"key_share": True}  # others may still insert what refers to the row
    row = session.get(kind, id, populate_existing=True, with_for_update=as_update)
    if row is not None:
        keep(session, row, id)
    return row


def keep(session: Session, row: SQLModel, id: Any) -> None:
    """Note that a row is locked; it stays in the session, which forgets what nobody holds."""
    _locked(session)[type(row), id] = row


def is_kept(session: Session, kind: type[SQLModel], id: Any) -> bool:
    """Whether this transaction has locked a row."""
    return (kind, id) in _locked(session)


def get_one(session: Session, kind: type[Row], id: Any) -> Row:
    """The same, of a row that must be there."""
    row = get(session, kind, id)
    return session.get_one(kind, id) if row is None else row


def each(session: Session, kind: type[Row], ids: list[str]) -> list[Row]:
    """The rows of these ids, locked in the order of the ids."""
    found = (get(session, kind, id) for id in sorted(ids))
    return [row for row in found if row is not None]


def _locked(session: Session) -> dict[Any, SQLModel | None]:
    """What this transaction has locked already."""
    locked: dict[Any, SQLModel | None] = session.info.setdefault(_LOCKED, {})
    return locked
