"""Sandboxes that nobody needs any more, removed from this host."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlmodel import Session, col, select
from temporalio.client import Client

from director.activities.complaints import Complaint
from director.activities.sandboxes import Sandboxes, run_id
from director.domain.runs import RunStatus
from director.domain.sandboxes import SandboxRecord
from director.domain.times import utc_now
from director.sandbox.runtime import SandboxError
from director.store import placement
from director.store.tables import RunRow
from director.temporal.executions import is_over

log = structlog.get_logger()

AGE = timedelta(seconds=60)
"""Younger sandboxes are spared: whoever makes one is perhaps at work."""

_CHUNK = 500


class Reaper:
    """Removes this installation's sandboxes on this host whose run has no need of them.

    Whether that is so, database and Temporal must both say; where one of them does not answer,
    nothing is removed."""

    def __init__(self, client: Client, sandboxes: Sandboxes, *, age: timedelta = AGE) -> None:
        self._client, self._sandboxes, self._age = client, sandboxes, age
        self._store = sandboxes.store
        self._complaint = Complaint("the reaper removes nothing", "the reaper is at work again")

    def sweep(self) -> None:
        """Remove every sandbox that its run gave up with this host. Raises SandboxError after
        all were tried, where trying again may help, and what the database raises."""
        self._remove(self._displaced(), "its run has given it up")

    async def reap(self) -> None:
        """One round. What fails is said once, and nothing is removed that is not certain."""
        try:
            left = await asyncio.to_thread(self._of_ended_runs)
            over = [each for each in left if await is_over(self._client, _owner(each))]
            await asyncio.to_thread(self._remove, over, "its run has ended")
            await asyncio.to_thread(self.sweep)
        except Exception as error:
            self._complaint.fails(error)
        else:
            self._complaint.works()

    def _displaced(self) -> list[SandboxRecord]:
        found = self._sandboxes.runtime.sandboxes()
        with self._store.read() as session:
            runs = _runs_of(session, found)
        host_id = self._sandboxes.host_id
        return [
            each
            for each in found
            if (run := runs.get(_owner(each))) is not None
            and placement.is_displaced(run, host_id, each.epoch)
        ]

    def _of_ended_runs(self) -> list[SandboxRecord]:
        """Sandboxes whose run has ended, or was never heard of."""
        grown = utc_now() - self._age
        old = [each for each in self._sandboxes.runtime.sandboxes() if each.made_at <= grown]
        with self._store.read() as session:
            runs = _runs_of(session, old)
        going = {id for id, run in runs.items() if not RunStatus(run.status).ended}
        return [each for each in old if _owner(each) not in going]

    def _remove(self, sandboxes: list[SandboxRecord], why: str) -> None:
        failed: SandboxError | None = None
        for each in sandboxes:
            try:
                self._sandboxes.runtime.remove(each.id, epoch=each.epoch)
                log.warning("sandbox removed", sandbox=each.id, run_id=_owner(each), why=why)
            except SandboxError as error:
                log.warning("sandbox not removed", sandbox=each.id, why=error.message)
                failed = error if error.retryable else failed
        if failed is not None:
            raise failed


def _owner(sandbox: SandboxRecord) -> str:
    """The run of a sandbox; what is left of one may not tell, but its name does."""
    return sandbox.owner or run_id(sandbox.id)


def _runs_of(session: Session, sandboxes: Sequence[SandboxRecord]) -> dict[str, RunRow]:
    owners = sorted({_owner(each) for each in sandboxes})
    found: dict[str, RunRow] = {}
    for start in range(0, len(owners), _CHUNK):
        some = col(RunRow.id).in_(owners[start : start + _CHUNK])
        found.update({run.id: run for run in session.exec(select(RunRow).where(some))})
    return found
