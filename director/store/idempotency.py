"""Requests under an `Idempotency-Key`: what each has made, who is at it, and its answer."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement
from sqlmodel import Session, col, delete, select, update

from director.domain.ids import new_id
from director.domain.times import utc_now
from director.store.inserts import insert_into
from director.store.tables import IdempotencyRow

LEASE = timedelta(seconds=60)
KEPT = timedelta(hours=24)

_PREFIX = "idm"
_SWEPT = 100
"""How many expired rows one new key takes away at most."""


@dataclass(frozen=True)
class Use:
    """A key as one principal uses it on one route."""

    principal_id: str
    route: str
    key: str


@dataclass(frozen=True)
class Reply:
    """What is answered to a request, byte for byte, and the id of what it has made."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    made: str | None = None


def find(session: Session, use: Use, *, lock: bool = False) -> IdempotencyRow | None:
    """The row of a key, unless it has expired; locked for who is to change it."""
    statement = select(IdempotencyRow).where(*_is(use))
    if lock:
        statement = statement.with_for_update(key_share=True)
    row = session.exec(statement).first()
    return None if row is None or row.expires_at <= utc_now() else row


def claim(session: Session, use: Use, fingerprint: str) -> IdempotencyRow | None:
    """Add the row of a key that is not known, with a lease; some expired rows go. None where
    another request with this key was first: it has committed then."""
    purge(session, _SWEPT)
    session.exec(delete(IdempotencyRow).where(*_is(use)))  # an expired one beyond the batch
    now = utc_now()
    row = IdempotencyRow(
        id=new_id(_PREFIX),
        principal_id=use.principal_id,
        route=use.route,
        key=use.key,
        fingerprint=fingerprint,
        lease_until=now + LEASE,
        expires_at=now + KEPT,
    )
    insert = insert_into(session, IdempotencyRow).values(**row.model_dump())
    claimed = insert.on_conflict_do_nothing().returning(IdempotencyRow)
    found: IdempotencyRow | None = session.scalars(claimed).first()
    return found


def renew(session: Session, row: IdempotencyRow) -> None:
    """Lease a row that was left to somebody who goes on with it."""
    row.lease_until = utc_now() + LEASE
    session.add(row)


def release(session: Session, ids: Collection[str]) -> None:
    """Leave rows whose requests did not come to their end to whoever sends those again."""
    mine = (col(IdempotencyRow.id).in_(ids), col(IdempotencyRow.lease_until).is_not(None))
    session.exec(update(IdempotencyRow).where(*mine).values(lease_until=utc_now()))


def note(session: Session, row: IdempotencyRow, reply: Reply, *, known: bool) -> None:
    """Write what was made, and the answer where it is known before the request is done."""
    row.made = reply.made
    if known and row.status is None:
        _write(row, reply)
    session.add(row)


def conclude(session: Session, row: IdempotencyRow, reply: Reply) -> Reply:
    """Write that a request is done; gives its answer, which is the first that was written."""
    first = reply if row.status is None else reply_of(row)
    if not row.done:
        note(session, row, reply, known=True)
        row.lease_until, row.expires_at = None, utc_now() + KEPT
    return first


def reply_of(row: IdempotencyRow) -> Reply:
    """The answer that a row keeps."""
    return Reply(row.status or 0, row.body or b"", row.headers, row.made)


def purge(session: Session, limit: int) -> int:
    """Take away at most so many rows that have expired; gives how many."""
    expired = select(IdempotencyRow.id).where(IdempotencyRow.expires_at <= utc_now())
    oldest = expired.order_by(col(IdempotencyRow.expires_at)).limit(limit)
    oldest = oldest.with_for_update(skip_locked=True)  # others that purge take others
    return session.exec(delete(IdempotencyRow).where(col(IdempotencyRow.id).in_(oldest))).rowcount


def _write(row: IdempotencyRow, reply: Reply) -> None:
    row.status, row.headers, row.body = reply.status, dict(reply.headers), reply.body


def _is(use: Use) -> tuple[ColumnElement[bool], ...]:
    return (
        col(IdempotencyRow.principal_id) == use.principal_id,
        col(IdempotencyRow.route) == use.route,
        col(IdempotencyRow.key) == use.key,
    )
