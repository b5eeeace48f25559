"""The line before a pool of slots: its order, and the step from waiting to held.

The order is priority, then the owner with the fewest held tickets of the pool, then time."""

from collections import Counter
from itertools import groupby
from typing import Any

from sqlalchemy import func, or_
from sqlmodel import Session, col, delete, select

from director.domain.departments import TicketState
from director.domain.lifetimes import SandboxStatus
from director.domain.runs import RunStatus
from director.domain.times import utc_now
from director.store.tables import Placed, RunRow, SandboxRow, StepRow, TicketRow

PLACE = -1
"""Stands for the step in the ticket of a run as a whole."""
MOST = 500
"""Tickets granted at a time, so that other writers need not wait long."""

_GOING = [status for status in RunStatus if not status.ended and status != RunStatus.CANCELLING]
_BEGINNING = [status for status in SandboxStatus if status.beginning]
GRANTABLE = or_(
    select(RunRow.id)
    .where(
        RunRow.id == TicketRow.run_id,
        col(RunRow.pause_wanted).is_(False),
        col(RunRow.cancel_wanted).is_(False),
        col(RunRow.status).in_(_GOING),
    )
    .correlate(TicketRow)
    .exists(),
    select(SandboxRow.id)
    .where(
        SandboxRow.id == TicketRow.run_id,
        col(SandboxRow.delete_wanted).is_(False),
        col(SandboxRow.status).in_(_BEGINNING),
    )
    .correlate(TicketRow)
    .exists(),
)
"""The condition that the run of a ticket goes on, or that its sandbox is still to be made; others
are passed over in the line."""


def is_grantable(run: Placed) -> bool:
    """Whether the run or the sandbox goes on, as `GRANTABLE` has it."""
    if isinstance(run, SandboxRow):
        return not run.delete_wanted and run.status in _BEGINNING
    return not (run.pause_wanted or run.cancel_wanted) and run.status in _GOING


def grant(session: Session, pool: str, limit: int | None) -> list[TicketRow]:
    """Grant to those first in line while there is room; None is no limit."""
    queues = _queues(session, pool)
    if not queues:
        return []
    held = _held_by_owner(session, pool)
    room = MOST if limit is None else min(MOST, limit - held.total())
    granted: list[TicketRow] = []
    while len(granted) < room and (ticket := _next(session, pool, queues, held)) is not None:
        hold(session, ticket)
        held[ticket.owner_id] += 1
        granted.append(ticket)
    return granted


def is_waited_for(session: Session, pool: str) -> bool:
    """Whether anybody waits in a pool."""
    statement = select(TicketRow.run_id).where(*_waiting(pool)).limit(1)
    return session.exec(statement).first() is not None


def hold(session: Session, ticket: TicketRow) -> None:
    """Let a ticket be held. A step that named no department is in this one then, and waits in no
    other."""
    ticket.state, ticket.granted_at = TicketState.HELD, utc_now()
    session.add(ticket)
    session.flush()
    if ticket.step == PLACE:
        return
    step = session.get_one(StepRow, (ticket.run_id, ticket.step))
    if step.wish.is_open:
        step.department_id = ticket.pool
        session.add(step)
        remove(session, *of(ticket.run_id, ticket.step), TicketRow.pool != ticket.pool)


def remove(session: Session, *conditions: Any) -> int:
    """Delete the tickets of which all conditions hold; gives how many."""
    return session.exec(delete(TicketRow).where(*conditions)).rowcount


def held_counts(session: Session, pools: list[str]) -> Counter[str]:
    """How many tickets are held in each pool."""
    held = (col(TicketRow.pool).in_(pools), TicketRow.state == TicketState.HELD)
    counted = select(TicketRow.pool, func.count()).where(*held)
    return Counter(dict(session.exec(counted.group_by(TicketRow.pool)).all()))


def of(run_id: str, step: int) -> list[Any]:
    """The conditions that a ticket is of that step."""
    return [TicketRow.run_id == run_id, TicketRow.step == step]


def _next(
    session: Session, pool: str, queues: set[tuple[int, str]], held: Counter[str]
) -> TicketRow | None:
    """The head of the line; queues in which nobody can be granted anything are dropped."""

    def rank(queue: tuple[int, str]) -> tuple[int, int]:
        priority, owner = queue
        return priority, held[owner]

    for (priority, _), equal in groupby(sorted(queues, key=rank), key=rank):
        tied = set(equal)
        head = select(TicketRow).where(
            *_waiting(pool),
            TicketRow.priority == priority,
            col(TicketRow.owner_id).in_([owner for _, owner in tied]),
            GRANTABLE,
        )
        in_time = (col(TicketRow.enqueued_at), col(TicketRow.run_id), col(TicketRow.step))
        if (ticket := session.exec(head.order_by(*in_time).limit(1)).first()) is not None:
            return ticket
        queues -= tied
    return None


def _queues(session: Session, pool: str) -> set[tuple[int, str]]:
    """The priorities and owners of those who wait in a pool."""
    statement = select(TicketRow.priority, TicketRow.owner_id).where(*_waiting(pool))
    return {(priority, owner) for priority, owner in session.exec(statement.distinct())}


def _held_by_owner(session: Session, pool: str) -> Counter[str]:
    held = (TicketRow.pool == pool, TicketRow.state == TicketState.HELD)
    counted = select(TicketRow.owner_id, func.count()).where(*held)
    return Counter(dict(session.exec(counted.group_by(TicketRow.owner_id)).all()))


def _waiting(pool: str) -> list[Any]:
    return [TicketRow.pool == pool, TicketRow.state == TicketState.WAITING]
