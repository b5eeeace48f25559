"""On which host the sandbox of a run lies: claimed, given up and decided in transactions.

A time-out alone never means that a host is lost: a full host and a restarting worker look the
same. Only a lease that has run out does, and only where another host can take over."""

from enum import StrEnum
from functools import partial

from sqlmodel import Session, col, select

from director.domain.runs import StepStatus
from director.store import hosts, sessions
from director.store.tables import HostRow, RunRow, StepRow, TicketRow


class Claim(StrEnum):
    """What became of a claim."""

    MINE = "mine"
    ELSEWHERE = "elsewhere"
    FULL = "full"
    IMPOSSIBLE = "impossible"


class Decision(StrEnum):
    """Whether to go on waiting for a run's host."""

    WAIT = "wait"
    LOST = "lost"


def claim(session: Session, run: RunRow, host_id: str, memory_mib: int) -> Claim:
    """Take a place and memory on a host for a run's sandbox, unless it has them or they lack.

    `elsewhere`: another host has the sandbox; `full`: no room now, or the host is draining;
    `impossible`: no living host has so much memory at all."""
    _lock(session, run)
    if run.host_id is not None:
        return Claim.MINE if run.host_id == host_id else Claim.ELSEWHERE
    host = session.get(HostRow, host_id, with_for_update=True)
    if host is None or host.draining or not _has_room(session, host, memory_mib):
        most = max((row.memory_mib for row in hosts.living(session)), default=memory_mib)
        return Claim.IMPOSSIBLE if memory_mib > most else Claim.FULL
    run.host_id, run.memory_mib = host_id, memory_mib
    session.add(run)
    session.flush()
    return Claim.MINE


def with_room(session: Session, memory_mib: int) -> str | None:
    """The living host with most free places that has room for a sandbox of so much memory."""
    able = [
        host
        for host in hosts.living(session)
        if not host.draining and _has_room(session, host, memory_mib)
    ]
    return max(able, key=partial(_free_places, session)).id if able else None


def without_room(session: Session, limit: int = 1) -> list[str]:
    """The runs that wait for memory on any host, in no line, the most urgent and oldest first."""
    in_line = select(TicketRow.run_id).where(TicketRow.run_id == StepRow.run_id).exists()
    waiting = (StepRow.status == StepStatus.QUEUED, col(RunRow.host_id).is_(None), ~in_line)
    statement = select(RunRow.id).join(StepRow, col(StepRow.run_id) == RunRow.id)
    statement = statement.where(
        *waiting, col(RunRow.pause_wanted).is_(False), sessions.still_open()
    )
    return list(session.exec(statement.order_by(col(RunRow.priority), col(RunRow.id)).limit(limit)))


def decide(session: Session, run: RunRow) -> Decision:
    """Say whether the host of a run is lost, and let the run go from it in that case.

    Lost needs a lease that has run out and another host with room. A run that was let go before
    and has no new host yet is told `lost` again, so that the question may be repeated."""
    _lock(session, run)
    if run.host_id is None:
        return Decision.LOST if run.sandbox_epoch else Decision.WAIT
    if hosts.is_living(session, run.host_id):
        return Decision.WAIT
    others = [row for row in hosts.living(session) if row.id != run.host_id and not row.draining]
    if not any(_has_room(session, host, run.memory_mib or 0) for host in others):
        return Decision.WAIT
    _let_go(session, run)
    return Decision.LOST


def settle_elsewhere(session: Session, run: RunRow) -> bool:
    """Tell whether a run can be settled without its host, which its end need not wait for.

    So it is where no host has it, and where its host's lease has run out while another lives: it
    is let go, and the host removes what is left of it when it returns."""
    _lock(session, run)
    if run.host_id is None:
        return True
    alive = [row.id for row in hosts.living(session)]
    if not alive or run.host_id in alive:
        return False
    _let_go(session, run)
    return True


def is_displaced(run: RunRow, host_id: str, epoch: int) -> bool:
    """Tell whether a sandbox of that epoch on that host is no longer the run's."""
    return epoch < run.sandbox_epoch or run.host_id not in (None, host_id)


def _lock(session: Session, run: RunRow) -> None:
    """See the run as it is now, until the transaction ends."""
    session.flush()  # a refresh drops what is not written yet
    session.refresh(run, with_for_update=True)


def _has_room(session: Session, host: HostRow, memory_mib: int) -> bool:
    holds = hosts.reserved(session, host.id)
    free_mib = host.memory_mib - holds.memory_mib
    return holds.places < host.places and memory_mib <= free_mib


def _free_places(session: Session, host: HostRow) -> int:
    return host.places - hosts.reserved(session, host.id).places


def _let_go(session: Session, run: RunRow) -> None:
    run.host_id, run.workspace_ready = None, False
    run.sandbox_epoch += 1
    run.touch()
    session.add(run)
    session.flush()
