"""Hosts, their leases, and what open runs have reserved on them."""

from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from director.domain import hosts as domain
from director.domain.errors import NotFoundError
from director.domain.hosts import LEASE, Capacity
from director.domain.pages import PageQuery, Pagination
from director.domain.times import utc_now
from director.store.sessions import still_open
from director.store.tables import HostRow, RunRow


class Reserved(NamedTuple):
    """What the open runs of a host hold of it."""

    places: int = 0
    memory_mib: int = 0


def register(
    session: Session, host_id: str, capacity: Capacity, lease: timedelta = LEASE
) -> HostRow:
    """Begin a lease, or join the one that another worker of the host has.

    The epoch rises where the lease had run out: whoever relied on it was perhaps let go."""
    row = session.get(HostRow, host_id, with_for_update=True)
    if row is None:
        row = HostRow(id=host_id, places=0, memory_mib=0, lease_until=utc_now() + lease)
    elif not row.living:
        row.epoch += 1
    row.places, row.memory_mib = capacity.places, capacity.memory_mib
    row.lease_until = max(row.lease_until, utc_now() + lease)
    row.touch()
    session.add(row)
    session.flush()
    return row


def renew(session: Session, host_id: str, lease: timedelta = LEASE) -> int | None:
    """Lengthen a lease; gives the host's epoch, or None where the lease has run out already:
    the host must register again."""
    row = session.get(HostRow, host_id, with_for_update=True)
    if row is None or not row.living:
        return None
    row.lease_until = max(row.lease_until, utc_now() + lease)
    session.add(row)
    return row.epoch


def is_living(session: Session, host_id: str) -> bool:
    """Whether a host's lease lasts; one that never registered is not living."""
    row = session.get(HostRow, host_id)
    return row is not None and row.living


def living(session: Session) -> list[HostRow]:
    """The hosts whose lease lasts, draining ones included."""
    alive = col(HostRow.lease_until) > utc_now()
    return list(session.exec(select(HostRow).where(alive).order_by(col(HostRow.id))))


def total_places(session: Session) -> int:
    """How many runs may have a place: as many sandboxes as the living hosts that are not draining
    hold together, and those that the other hosts still have, which take none of these."""
    rows = session.exec(select(HostRow)).all()
    holds = _reserved(session, [row.id for row in rows])
    room = {row.id: row.places for row in rows if row.living and not row.draining}
    return sum(max(room.get(id, 0), held.places) for id, held in holds.items())


def reserved(session: Session, host_id: str) -> Reserved:
    """What the open runs of a host hold of it."""
    return _reserved(session, [host_id])[host_id]


def set_draining(session: Session, host_id: str, draining: bool) -> domain.Host:
    """Let a host take new sandboxes, or no more. Raises NotFoundError."""
    row = session.get(HostRow, host_id, with_for_update=True)
    if row is None:
        raise NotFoundError("host", host_id)
    row.draining = draining
    row.touch()
    session.add(row)
    session.flush()
    return _view(row, reserved(session, host_id))


def listed(session: Session, query: PageQuery) -> tuple[list[domain.Host], Pagination]:
    """A page of the hosts, newest first. They are few: there are offsets and no cursors."""
    newest = (col(HostRow.created_at).desc(), col(HostRow.id).desc())
    rows = list(session.exec(select(HostRow).order_by(*newest)))
    shown = rows[query.offset : query.offset + query.limit]
    holds = _reserved(session, [row.id for row in shown])
    pagination = Pagination(
        total=len(rows),
        limit=query.limit,
        offset=query.offset,
        has_more=len(rows) > query.offset + query.limit,
        next_cursor=None,
    )
    return [_view(row, holds[row.id]) for row in shown], pagination


def _view(row: HostRow, holds: Reserved) -> domain.Host:
    counts = {"used": holds.places, "used_memory_mib": holds.memory_mib, "living": row.living}
    return domain.Host.model_validate({**row.model_dump(), **counts})


def _reserved(session: Session, host_ids: list[str]) -> dict[str, Reserved]:
    memory = func.sum(RunRow.memory_mib)
    statement = (
        select(RunRow.host_id, func.count(), memory)
        .where(col(RunRow.host_id).in_(host_ids), still_open())
        .group_by(col(RunRow.host_id))
    )
    found = {id: Reserved(count, int(mib or 0)) for id, count, mib in session.exec(statement)}
    return {id: found.get(id, Reserved()) for id in host_ids}
