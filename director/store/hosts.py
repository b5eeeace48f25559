"""Hosts, their leases, and what open runs and sandboxes have reserved on them."""

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import and_, func
from sqlmodel import Session, col, select

from director.domain import hosts as domain
from director.domain.errors import NotFoundError
from director.domain.hosts import LEASE, Capacity
from director.domain.lifetimes import SandboxStatus
from director.domain.pages import PageQuery, Pagination
from director.domain.times import utc_now
from director.store import locks
from director.store.inserts import insert_into
from director.store.sessions import still_open
from director.store.tables import HostRow, RunRow, SandboxRow

_PLACED = [status for status in SandboxStatus if status.placed]


class Reserved(NamedTuple):
    """What the open runs and the sandboxes of a host hold of it."""

    places: int = 0
    memory_mib: int = 0


def register(
    session: Session, host_id: str, capacity: Capacity, lease: timedelta = LEASE
) -> HostRow:
    """Begin a lease, or join the one that another worker of the host has.

    The epoch rises where the lease had run out: whoever relied on it was perhaps let go."""
    row = locks.get(session, HostRow, host_id)
    if row is None:
        new = HostRow(id=host_id, places=0, memory_mib=0, lease_until=utc_now() + lease)
        insert = insert_into(session, HostRow).values(**new.model_dump())
        session.exec(insert.on_conflict_do_nothing())  # another worker of it may be as far
        row = locks.get_one(session, HostRow, host_id)
    elif not row.living:
        row.epoch += 1
    row.places, row.memory_mib = capacity.places, capacity.memory_mib
    row.lease_until = max(row.lease_until, utc_now() + lease)
    row.touch()
    session.add(row)
    session.flush()
    return row


def renew(session: Session, host_id: str, lease: timedelta = LEASE) -> HostRow | None:
    """Lengthen a lease; None where it has run out already: the host must register again."""
    row = locks.get(session, HostRow, host_id)
    if row is None or not row.living:
        return None
    row.lease_until = max(row.lease_until, utc_now() + lease)
    session.add(row)
    return row


def is_living(session: Session, host_id: str) -> bool:
    """Whether a host's lease lasts; one that never registered is not living."""
    row = session.get(HostRow, host_id)
    return row is not None and row.living


def named(session: Session, ids: Iterable[str | None]) -> dict[str, HostRow]:
    """The hosts of some ids, by their ids."""
    wanted = {id for id in ids if id is not None}
    found = session.exec(select(HostRow).where(col(HostRow.id).in_(wanted))) if wanted else ()
    return {row.id: row for row in found}


def living(session: Session) -> list[HostRow]:
    """The hosts whose lease lasts, draining ones included."""
    alive = col(HostRow.lease_until) > utc_now()
    return list(session.exec(select(HostRow).where(alive).order_by(col(HostRow.id))))


def total_places(session: Session) -> int:
    """How many runs and sandboxes may have a place: as many as the living hosts that are not
    draining hold together, and those that the other hosts still have, which take none of these.

    Nobody else counts or gives places until the transaction ends."""
    locks.hold(session, locks.Name.PLACES)
    rows = session.exec(select(HostRow)).all()
    holds = _reserved(session, [row.id for row in rows])
    room = {row.id: row.places for row in rows if row.living and not row.draining}
    return sum(max(room.get(id, 0), held.places) for id, held in holds.items())


def reserved(session: Session, host_id: str) -> Reserved:
    """What the open runs and the sandboxes of a host hold of it."""
    return _reserved(session, [host_id])[host_id]


def set_draining(session: Session, host_id: str, draining: bool) -> domain.Host:
    """Let a host take new sandboxes, or no more. Raises NotFoundError."""
    row = locks.get(session, HostRow, host_id)
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
    found = dict.fromkeys(host_ids, Reserved())
    own = and_(still_open(), col(RunRow.sandbox_id).is_(None))
    for row, going in (
        (RunRow, own),
        (SandboxRow, col(SandboxRow.status).in_(_PLACED)),
    ):
        held = select(col(row.host_id), func.count(), func.sum(row.memory_mib))
        of_hosts = held.where(col(row.host_id).in_(host_ids), going).group_by(col(row.host_id))
        for id, count, mib in session.execute(of_hosts):
            places, memory = found[id]
            found[id] = Reserved(places + count, memory + int(mib or 0))
    return found
