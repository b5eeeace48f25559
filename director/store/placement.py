"""On which host a sandbox lies, of a run or of a person: claimed, given up and decided in
transactions.

A time-out alone never means that a host is lost: a full host and a restarting worker look the
same. Only a lease that has run out does, and only where another host can take over."""

from enum import StrEnum
from functools import partial

from sqlmodel import Session, col, select

from director.domain.lifetimes import SandboxStatus
from director.domain.runs import StepStatus
from director.store import hosts, locks, sessions
from director.store.tables import HostRow, Placed, RunRow, SandboxRow, StepRow, TicketRow


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


def claim(
    session: Session, run: Placed, host_id: str, memory_mib: int, *, only_here: bool = False
) -> Claim:
    """Take a place and memory on a host for a sandbox, unless it has them or they lack.

    `elsewhere`: another host has the sandbox; `full`: no room now, or the host is draining;
    `impossible`: no living host, or not the only one that it may be on, has so much memory."""
    locks.get_one(session, type(run), run.id)
    if run.host_id is not None:
        return Claim.MINE if run.host_id == host_id else Claim.ELSEWHERE
    host = locks.get(session, HostRow, host_id)
    if host is None or host.draining or not _has_room(session, host, memory_mib):
        able = [row for row in hosts.living(session) if row.id == host_id or not only_here]
        most = max((row.memory_mib for row in able), default=memory_mib)
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
    """The runs, and else the sandboxes, that wait for memory on any host, in no line, the most
    urgent and oldest first."""
    in_line = select(TicketRow.run_id).where(TicketRow.run_id == StepRow.run_id).exists()
    waiting = (StepRow.status == StepStatus.QUEUED, col(RunRow.host_id).is_(None), ~in_line)
    statement = select(RunRow.id).join(StepRow, col(StepRow.run_id) == RunRow.id)
    statement = statement.where(
        *waiting, col(RunRow.pause_wanted).is_(False), sessions.still_open()
    )
    statement = statement.order_by(col(RunRow.priority), col(RunRow.id)).limit(limit)
    found = list(session.exec(statement))
    return found or _sandboxes_without_room(session, limit)


def _sandboxes_without_room(session: Session, limit: int) -> list[str]:
    in_line = select(TicketRow.run_id).where(TicketRow.run_id == SandboxRow.id).exists()
    statement = select(SandboxRow.id).where(
        SandboxRow.status == SandboxStatus.CREATING,
        col(SandboxRow.temporal_run_id).is_not(None),
        col(SandboxRow.host_id).is_(None),
        ~in_line,
    )
    in_order = (col(SandboxRow.priority), col(SandboxRow.id))
    return list(session.exec(statement.order_by(*in_order).limit(limit)))


def decide(session: Session, run: RunRow) -> Decision:
    """Say whether the host of a run is lost, and let the run go from it in that case.

    Lost needs a lease that has run out and another host with room, or that the host was forgotten.
    A run that was let go before and has no new host yet is told `lost` again, so that the question
    may be repeated."""
    locks.get_one(session, RunRow, run.id)
    if run.sandbox_id is not None:
        _leave_ended(session, run, run.sandbox_id)
        return Decision.WAIT
    if run.host_id is None:
        return Decision.LOST if run.sandbox_epoch else Decision.WAIT
    host = locks.get(session, HostRow, run.host_id)  # it must not come back while it is given up
    if host is not None and (host.living or not _is_room_beside(session, host, run)):
        return Decision.WAIT
    _let_go(session, run)
    return Decision.LOST


def settle_elsewhere(session: Session, run: Placed) -> bool:
    """Tell whether a run can be settled without its host, which its end need not wait for.

    So it is where no host has it, where its host was forgotten, and where its host's lease has run
    out while another lives: it is let go, and the host removes what is left of it when it
    returns."""
    locks.get_one(session, type(run), run.id)
    if isinstance(run, RunRow) and run.sandbox_id is not None:
        _leave_ended(session, run, run.sandbox_id)
        return run.host_id is None
    if run.host_id is None:
        return True
    host = locks.get(session, HostRow, run.host_id)  # it must not come back while it is given up
    if host is not None and not hosts.living(session):
        return False
    return give_up(session, run)


def give_up(session: Session, run: Placed) -> bool:
    """Let a sandbox go from a host that does not live, wherever it may go from there; False where
    the host lives. It removes what is left there when it returns."""
    host = locks.get(session, HostRow, run.host_id)
    if host is not None and host.living:
        return False
    _let_go(session, run)
    return True


def _leave_ended(session: Session, run: RunRow, sandbox_id: str) -> None:
    """Let a run go from the host of somebody's sandbox once that has ended, and with it all that
    the run had there. Before, its commands may go on there, whether the host answers or not."""
    if SandboxStatus(session.get_one(SandboxRow, sandbox_id).status).ended:
        run.host_id = None
        session.add(run)
        session.flush()


def is_displaced(run: Placed, host_id: str, epoch: int) -> bool:
    """Tell whether a sandbox of that epoch on that host is no longer its owner's."""
    return epoch < run.sandbox_epoch or run.host_id not in (None, host_id)


def _has_room(session: Session, host: HostRow, memory_mib: int) -> bool:
    holds = hosts.reserved(session, host.id)
    free_mib = host.memory_mib - holds.memory_mib
    return holds.places < host.places and memory_mib <= free_mib


def _is_room_beside(session: Session, host: HostRow, run: RunRow) -> bool:
    others = [row for row in hosts.living(session) if row.id != host.id and not row.draining]
    return any(_has_room(session, other, run.memory_mib or 0) for other in others)


def _free_places(session: Session, host: HostRow) -> int:
    return host.places - hosts.reserved(session, host.id).places


def _let_go(session: Session, run: Placed) -> None:
    run.host_id = None
    if isinstance(run, RunRow):
        run.workspace_ready = False
    run.sandbox_epoch += 1
    run.touch()
    session.add(run)
    session.flush()
