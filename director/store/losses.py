"""What is ended without its host: sandboxes of a host that an operator gives up, and those whose
owner does not want to wait for it. Their files are lost; the host removes them if it returns."""

from typing import NamedTuple

from sqlmodel import Session, col, select

from director.domain.errors import ConflictError, NotFoundError
from director.domain.failures import FailureCode
from director.domain.lifetimes import OPEN_SANDBOXES, SandboxEnd, SandboxStatus
from director.domain.times import rfc3339
from director.store import executions, locks, placement, sandboxes
from director.store.sessions import still_open
from director.store.tables import HostRow, RunRow, SandboxRow


class Forgotten(NamedTuple):
    """The sandboxes that ended with a host, the runs that had theirs there, and who got a place by
    that and is to be signalled."""

    sandboxes: list[str]
    runs: list[str]
    granted: list[str]


def forget(session: Session, host_id: str) -> Forgotten:
    """Give up a host whose lease has run out, with the sandboxes that people have made there. Runs
    whose own sandbox was there learn it when they next ask for it.

    Raises NotFoundError, and ConflictError while the host lives, or comes back at this moment."""
    _checked_away(session.get(HostRow, host_id), host_id)
    ids = _placed_on(session, host_id)
    rows = locks.each(session, SandboxRow, ids)
    host = locks.get(session, HostRow, host_id)  # behind its sandboxes, as whoever claims one
    host = _checked_away(host, host_id)
    if _placed_on(session, host_id) != ids:
        raise ConflictError(f"host {host_id} takes work at this moment: it comes back")
    granted = [id for row in rows for id in _lost(session, row)]
    ended = [row.id for row in rows if SandboxStatus(row.status).ended]
    own = (RunRow.host_id == host_id, still_open(), col(RunRow.sandbox_id).is_(None))
    runs = list(session.exec(select(RunRow.id).where(*own).order_by(col(RunRow.id))))
    session.delete(host)
    session.flush()
    return Forgotten(ended, runs, list(dict.fromkeys(granted)))


def end_without_host(session: Session, row: SandboxRow) -> list[str]:
    """End a sandbox that is not wanted, without waiting for its host; nothing to do while that
    lives. Gives who gets its place."""
    if SandboxStatus(row.status).ended or row.host_id is None:
        return []
    if not placement.give_up(session, row):
        return []
    return sandboxes.settle(session, SandboxEnd(sandbox_id=row.id, status=SandboxStatus.DELETED))


def _checked_away(host: HostRow | None, host_id: str) -> HostRow:
    if host is None:
        raise NotFoundError("host", host_id)
    if host.living:
        raise ConflictError(
            f"host {host_id} lives: stop its workers, and forget it when its lease has run out",
            leaseUntil=rfc3339(host.lease_until),
        )
    return host


def _placed_on(session: Session, host_id: str) -> list[str]:
    here = (SandboxRow.host_id == host_id, col(SandboxRow.status).in_(OPEN_SANDBOXES))
    return list(session.exec(select(SandboxRow.id).where(*here).order_by(col(SandboxRow.id))))


def _lost(session: Session, row: SandboxRow) -> list[str]:
    """End a sandbox whose files are lost; one that has none yet is made elsewhere."""
    if SandboxStatus(row.status).beginning and row.resolved_image is None:
        placement.give_up(session, row)
        return []
    message = f"its host {row.host_id} was given up, and its files with it"
    row.error = {"code": FailureCode.HOST_LOST, "message": message}
    executions.lose_all(session, row.id, row.error)
    placement.give_up(session, row)
    return sandboxes.settle(session, SandboxEnd(sandbox_id=row.id, status=SandboxStatus.FAILED))
