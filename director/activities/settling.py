"""The end of a run on its sandbox's host: nothing of it runs, then the end is written."""

from director.activities.sandboxes import Sandboxes
from director.activities.telling import Signals
from director.domain.runs import SettleInput
from director.store import settling
from director.store.tables import RunRow


def settle_here(sandboxes: Sandboxes, signals: Signals, end: SettleInput) -> str | None:
    """Remove the sandbox of a run, write its end, and tell those who get what it held.

    Does nothing where another host has the sandbox, and gives that host."""
    with sandboxes.store.read() as session:
        host_id = session.get_one(RunRow, end.run_id).host_id
    if host_id not in (None, sandboxes.host_id):
        return host_id
    sandboxes.remove(end.run_id)
    with sandboxes.store.write() as session:
        granted = settling.settle(session, end)
    signals.granted(granted)
    return None
