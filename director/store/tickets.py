"""Slots of departments and places of hosts: who has one, and who is next in line.

A ticket belongs to (run, step), never to a process; one of a place, to a run or to a sandbox. What
becomes free is granted in the transaction that frees it; the caller signals those that got it
after the commit."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import func, or_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from director.domain.departments import DepartmentStatus, TicketState
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import StepStatus
from director.domain.times import utc_now
from director.store import lines, locks
from director.store.lines import GRANTABLE, MOST, PLACE, held_counts, hold, is_grantable, of, remove
from director.store.matching import matching, unmatched
from director.store.tables import (
    DepartmentRow,
    Placed,
    RunRow,
    SandboxRow,
    SessionRow,
    StepRow,
    TicketRow,
)

PLACES = "places"
"""The pool of the places of all hosts: a run holds one until it has ended."""


@dataclass(frozen=True)
class Taken:
    """Whether to begin, and in which department; `held` without one means that none is needed.

    `granted` are other runs that got a slot on the way, to be signalled after the commit."""

    state: TicketState
    department_id: str | None = None
    granted: list[str] = field(default_factory=list)

    def and_granted(self, more: list[str]) -> "Taken":
        """The same, with further runs that got something."""
        return replace(self, granted=[*self.granted, *more])


def take(session: Session, run: RunRow, step: StepRow) -> Taken:
    """Take a slot for a step, or a place in the line; called again it finds its own ticket.

    Comes before anything is written of the step. Raises StepFailure where the department that it
    names is gone, or where none is as it wishes."""
    if step.department_id is None and not step.wish.is_open:
        return Taken(TicketState.HELD)
    _lock(session, run.session_id)
    if step.wish.is_open:
        session.refresh(step, ["department_id"])  # a slot that was granted has bound it
    own = _tickets(session, run.id, step.index)
    if (pool := _held(own)) is not None:
        return Taken(TicketState.HELD, pool)
    pools = _pools(session, run, step)
    if own:
        _keep_place(session, own, pools)
    granted = _grant_all(session, _roomiest_first(session, pools))
    if not own:
        _join(session, run, step, pools, crowded=len(granted) >= MOST)
    others = _runs(one for one in granted if (one.run_id, one.step) != (run.id, step.index))
    pool = _held(_tickets(session, run.id, step.index))
    return Taken(TicketState.WAITING if pool is None else TicketState.HELD, pool, others)


def take_place(session: Session, run: Placed, limit: int) -> Taken:
    """Take one of `limit` places of the hosts for a run or a sandbox, or a place in the line for
    one."""
    locks.hold(session, locks.Name.PLACES)
    own = session.get(TicketRow, (PLACES, run.id, PLACE))
    if own is not None and own.state == TicketState.HELD:
        return Taken(TicketState.HELD)
    granted = lines.grant(session, PLACES, limit)
    if own is None:
        own = _ticket(run, PLACES, PLACE)
        free = limit > held_counts(session, [PLACES])[PLACES] and len(granted) < MOST
        if free and is_grantable(run):
            hold(session, own)
        session.add(own)
        session.flush()
    return Taken(TicketState(own.state), None, _runs(one for one in granted if one is not own))


def release(session: Session, run_id: str, step: int | None = None) -> list[str]:
    """Give back the slot of a step, or its place in the line, or those of all steps of a run;
    gives the runs that get a slot now. The run keeps its place among those of the hosts."""
    wanted = TicketRow.pool != PLACES if step is None else TicketRow.step == step
    pools = _remove(session, run_id, wanted)
    return _runs(_grant_all(session, _departments(session, pools)))


def release_run(session: Session, run_id: str, places: Callable[[Session], int]) -> list[str]:
    """Give back all that a run holds or waits for, its place among those of the hosts too; gives
    the runs that get something now. `places` are counted after the slots are given."""
    granted = release(session, run_id)
    return list(dict.fromkeys([*granted, *leave_place(session, run_id, places)]))


def leave_place(session: Session, run_id: str, places: Callable[[Session], int]) -> list[str]:
    """Give back the place of a run that has no sandbox, or its place in the line; gives the runs
    that get one of the `places` now, which are counted only where somebody waits for one."""
    locks.hold(session, locks.Name.PLACES)
    removed = remove(session, TicketRow.run_id == run_id, TicketRow.pool == PLACES)
    if not removed or not lines.is_waited_for(session, PLACES):
        return []
    return _runs(lines.grant(session, PLACES, places(session)))


def put_back(session: Session, run_id: str) -> list[str]:
    """Put slots of a run that holds, whose steps have not begun, back into the line where they
    stood; gives the runs that get them."""
    _lock(session, session.get_one(RunRow, run_id).session_id)
    pools = _put_back(session, TicketRow.run_id == run_id)
    return _runs(_grant_all(session, _departments(session, pools)))


def hand_over(session: Session, run_id: str, sandbox_id: str) -> None:
    """Let the sandbox that a run leaves behind have the run's place among those of the hosts."""
    locks.hold(session, locks.Name.PLACES)
    own = session.get(TicketRow, (PLACES, run_id, PLACE))
    if own is not None:
        session.add(TicketRow(**{**own.model_dump(), "run_id": sandbox_id}))
        session.delete(own)
        session.flush()


def grant(session: Session, pool: str) -> list[str]:
    """Grant what a department has free, after it has changed; gives the runs that got it. One that
    is paused takes back what it has granted to steps that have not begun."""
    _lock(session, session.get_one(DepartmentRow, pool).session_id)
    row = locks.get_one(session, DepartmentRow, pool)
    if not _grants(row):
        _put_back(session, TicketRow.pool == pool)
    return _runs(_grant_department(session, row))


def grant_places(session: Session, limit: int) -> list[str]:
    """Grant the places of the hosts that are free; gives the runs that got one."""
    locks.hold(session, locks.Name.PLACES)
    return _runs(lines.grant(session, PLACES, limit))


def grant_all(session: Session) -> list[str]:
    """Grant what any department has free, for Reconcile: runs that go on after a pause may wait
    beside a free slot. Gives the runs that got one."""
    waiting = (TicketRow.state == TicketState.WAITING, TicketRow.pool != PLACES)
    pools = select(TicketRow.pool).where(*waiting)
    parent, id = col(DepartmentRow.session_id), col(DepartmentRow.id)
    found = session.exec(select(parent, id).where(id.in_(pools)).order_by(parent, id)).all()
    granted: list[TicketRow] = []
    for session_id, group in groupby(found, key=lambda pair: pair[0]):
        _lock(session, session_id)
        granted += _grant_all(session, _departments(session, {id for _, id in group}))
    return _runs(granted)


def unheard(session: Session, older_than: timedelta) -> list[str]:
    """Runs and sandboxes that were granted something so long ago and have not begun: the signal
    was lost."""
    other = aliased(TicketRow)
    waits = select(other.run_id).where(
        other.run_id == TicketRow.run_id, other.state == TicketState.WAITING
    )
    statement = (
        select(TicketRow.run_id)
        .join(StepRow, col(StepRow.run_id) == TicketRow.run_id)
        .where(
            or_(col(StepRow.index) == TicketRow.step, col(TicketRow.step) == PLACE),
            TicketRow.state == TicketState.HELD,
            col(TicketRow.granted_at) < utc_now() - older_than,
            StepRow.status == StepStatus.QUEUED,
            ~waits.exists(),
            GRANTABLE,
        )
    )
    sandboxes = (
        select(TicketRow.run_id)
        .join(SandboxRow, col(SandboxRow.id) == TicketRow.run_id)
        .where(
            TicketRow.state == TicketState.HELD,
            col(TicketRow.granted_at) < utc_now() - older_than,
            col(SandboxRow.host_id).is_(None),
            GRANTABLE,
        )
    )
    return sorted({*session.exec(statement), *session.exec(sandboxes)})


def counts(session: Session, pool: str) -> Counter[str]:
    """How many tickets of a pool are held, and how many wait."""
    counted = select(TicketRow.state, func.count()).where(TicketRow.pool == pool)
    return Counter(dict(session.exec(counted.group_by(TicketRow.state)).all()))


def _lock(session: Session, session_id: str) -> None:
    """Let nobody else count slots of this session: a step can wait in several of its departments,
    so that a lock on one of them would not do."""
    locks.get_one(session, SessionRow, session_id)


def _pools(session: Session, run: RunRow, step: StepRow) -> list[DepartmentRow]:
    """The departments in which a step may run: the one that it names or has got, else all that
    match."""
    wish = step.wish
    if wish.department_id is not None:
        row = session.get_one(DepartmentRow, wish.department_id)
        if row.deleted_at is None:
            return [row]
        if not wish.is_open:
            message = f"department {row.id}, in which this step is to run, was deleted"
            raise StepFailure(FailureCode.NO_DEPARTMENT, message)
    found = matching(session, run.session_id, wish)
    if not found:
        raise StepFailure(FailureCode.NO_DEPARTMENT, unmatched(session, run.session_id, wish))
    return found


def _join(
    session: Session, run: RunRow, step: StepRow, pools: list[DepartmentRow], *, crowded: bool
) -> None:
    """Add a step that has no ticket: it takes a slot where most are free, else it waits in the
    line of every pool; `crowded` says that others stand in line before a slot that is free."""
    best = _roomiest_first(session, pools)[0]
    room, _ = _rooms(session, [best])[best.id]
    if room > 0 and not crowded and is_grantable(run):
        hold(session, _ticket(run, best.id, step.index))
    else:
        session.add_all([_ticket(run, pool.id, step.index) for pool in pools])
    session.flush()


def _keep_place(session: Session, own: list[TicketRow], pools: list[DepartmentRow]) -> None:
    """Let a step wait in the pools that match now, since when it has waited."""
    wanted = {pool.id for pool in pools}
    for ticket in own:
        if ticket.pool not in wanted:
            session.delete(ticket)
    first = min(own, key=lambda ticket: ticket.enqueued_at)
    for pool in wanted - {ticket.pool for ticket in own}:
        session.add(TicketRow(**{**first.model_dump(), "pool": pool}))
    session.flush()


def _ticket(run: Placed, pool: str, step: int) -> TicketRow:
    """A run stands in line since it was asked for, and once a host has it since its step is to
    begin: what a dying worker or a full host costs it on the way must not let others pass."""
    return TicketRow(
        pool=pool,
        run_id=run.id,
        step=step,
        priority=run.priority,
        owner_id=run.owner_id,
        enqueued_at=utc_now() if run.host_id else run.created_at,
    )


def _grant_all(session: Session, rows: Iterable[DepartmentRow]) -> list[TicketRow]:
    return [ticket for row in rows for ticket in _grant_department(session, row)]


def _grant_department(session: Session, row: DepartmentRow) -> list[TicketRow]:
    if not _grants(row):
        return []
    return lines.grant(session, row.id, row.config.get("maxConcurrentTasks"))


def _grants(row: DepartmentRow) -> bool:
    return row.deleted_at is None and row.status != DepartmentStatus.PAUSED


def _roomiest_first(session: Session, pools: list[DepartmentRow]) -> list[DepartmentRow]:
    """The pools with most free slots first; where they are equal, with the fewest held."""
    if len(pools) == 1:
        return pools
    rooms = _rooms(session, pools)
    return sorted(pools, key=lambda pool: (-rooms[pool.id][0], rooms[pool.id][1]))


def _rooms(session: Session, pools: list[DepartmentRow]) -> dict[str, tuple[float, int]]:
    """How many slots are free in each pool, and how many are held."""
    held = held_counts(session, [pool.id for pool in pools])

    def room(pool: DepartmentRow) -> float:
        limit = pool.config.get("maxConcurrentTasks", math.inf)
        return limit - held[pool.id] if _grants(pool) else 0

    return {pool.id: (room(pool), held[pool.id]) for pool in pools}


def _departments(session: Session, pools: set[str]) -> list[DepartmentRow]:
    if not pools:
        return []
    statement = select(DepartmentRow).where(col(DepartmentRow.id).in_(pools))
    return list(session.exec(statement.order_by(col(DepartmentRow.id))))


def _remove(session: Session, run_id: str, *conditions: Any) -> set[str]:
    """Delete tickets of a run; gives the pools in which they were."""
    chosen = (TicketRow.run_id == run_id, *conditions)
    pools = set(session.exec(select(TicketRow.pool).where(*chosen)))
    if pools:
        _lock(session, session.get_one(RunRow, run_id).session_id)
        remove(session, *chosen)
    return pools


def _put_back(session: Session, condition: Any) -> set[str]:
    """Put the slots of steps that have not begun back into the line; gives their pools."""
    idle = (
        select(TicketRow)
        .join(StepRow, col(StepRow.run_id) == TicketRow.run_id)
        .where(
            condition,
            StepRow.index == TicketRow.step,
            TicketRow.state == TicketState.HELD,
            StepRow.status == StepStatus.QUEUED,
        )
    )
    tickets = list(session.exec(idle))
    for ticket in tickets:
        ticket.state, ticket.granted_at = TicketState.WAITING, None
        session.add(ticket)
    session.flush()
    return {ticket.pool for ticket in tickets}


def _tickets(session: Session, run_id: str, step: int) -> list[TicketRow]:
    return list(session.exec(select(TicketRow).where(*of(run_id, step))))


def _held(tickets: list[TicketRow]) -> str | None:
    """The pool in which one of the tickets is held."""
    return next((one.pool for one in tickets if one.state == TicketState.HELD), None)


def _runs(tickets: Iterable[TicketRow]) -> list[str]:
    return list(dict.fromkeys(ticket.run_id for ticket in tickets))
