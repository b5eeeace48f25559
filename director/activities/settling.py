"""The end of a run on its sandbox's host: nothing of it runs, then the end is written."""

from sqlmodel import Session

from director.activities.sandboxes import Sandboxes
from director.activities.telling import Signals
from director.domain.lifetimes import SandboxInput
from director.domain.runs import RunStatus, SettleInput
from director.store import sandboxes as sandbox_rows
from director.store import settling
from director.store.tables import RunRow, SandboxRow, SessionRow


def settle_here(sandboxes: Sandboxes, signals: Signals, end: SettleInput) -> str | None:
    """Remove the sandbox of a run, write its end, and tell those who get what it held. A sandbox
    that is to be kept becomes one like any other in the transaction of that end.

    Does nothing where another host has the sandbox, and gives that host."""
    with sandboxes.store.read() as session:
        run = session.get_one(RunRow, end.run_id)
        keep = _is_kept(session, run)
    if run.host_id not in (None, sandboxes.host_id):
        return run.host_id
    if not keep:
        sandboxes.clear(run)
    elif end.status in (RunStatus.CANCELLED, RunStatus.TIMED_OUT):
        sandboxes.leave(run)

    def settle(session: Session) -> tuple[list[str], SandboxInput | None]:
        return settling.settle(session, end, keep=keep), _left(session, run)

    granted, left = sandboxes.store.transact(settle)
    signals.granted(granted)
    if left is not None:
        signals.begin(left)
    return None


def _is_kept(session: Session, run: RunRow) -> bool:
    """Whether there is a sandbox that is to be kept, and somebody to keep it for."""
    ready = run.keep_sandbox and run.workspace_ready and not RunStatus(run.status).ended
    return ready and session.get_one(SessionRow, run.session_id).deleted_at is None


def _left(session: Session, run: RunRow) -> SandboxInput | None:
    """The sandbox that a run has left behind, where there is one that nothing carries yet."""
    id = session.get_one(RunRow, run.id).sandbox_id if run.keep_sandbox else None
    row = session.get(SandboxRow, id) if id is not None else None
    return sandbox_rows.input_of(row) if row is not None and row.started_at is None else None
