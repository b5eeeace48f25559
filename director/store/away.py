"""Whether the host of a sandbox answers, as people are told: a sandbox waits there for its host,
with its files, as long as nobody gives it up."""

from datetime import timedelta

from sqlmodel import Session

from director.domain.errors import HostAwayError
from director.domain.lifetimes import SandboxHost, SandboxStatus
from director.domain.times import rfc3339, utc_now
from director.store.tables import HostRow, SandboxRow


def host_of(sandbox: SandboxRow, host: HostRow | None) -> SandboxHost | None:
    """Where a sandbox is, for the API; None before it is placed, and when it has ended."""
    if sandbox.host_id is None or SandboxStatus(sandbox.status).ended:
        return None
    living = host is not None and host.living
    since = None if host is None or living else host.lease_until
    return SandboxHost(id=sandbox.host_id, reachable=living, since=since)


def is_reachable(session: Session, sandbox: SandboxRow, patience: timedelta = timedelta(0)) -> bool:
    """Whether the host of a sandbox answers, or has not answered for less than so long. One that
    is being made may be made elsewhere."""
    if sandbox.host_id is None or sandbox.started_at is None:
        return True
    host = session.get(HostRow, sandbox.host_id)
    return host is not None and host.lease_until > utc_now() - patience


def check(session: Session, sandbox: SandboxRow, patience: timedelta = timedelta(0)) -> None:
    """Raise HostAwayError where the host of a sandbox does not answer: what it is asked for now
    could only wait."""
    if is_reachable(session, sandbox, patience):
        return
    host = session.get(HostRow, sandbox.host_id)
    since = f" since {rfc3339(host.lease_until)}" if host is not None else ""
    raise HostAwayError(
        f"the host of sandbox {sandbox.id} does not answer{since}: what is in it is kept there; try"
        " again when the host is back, or delete the sandbox",
        sandboxId=sandbox.id,
        hostId=sandbox.host_id,
    )
