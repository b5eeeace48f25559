"""Sandboxes that nobody needs any more, removed from this host."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TypeVar

import structlog
from sqlmodel import Session, col, select
from temporalio.client import Client

from director.activities.complaints import Complaint
from director.activities.sandboxes import Sandboxes, run_id
from director.domain.lifetimes import SandboxStatus
from director.domain.runs import RunStatus
from director.domain.sandboxes import SandboxRecord
from director.domain.times import utc_now
from director.sandbox.runtime import SandboxError
from director.store import placement
from director.store.tables import Placed, RunRow, SandboxRow
from director.temporal.executions import is_over

log = structlog.get_logger()

AGE = timedelta(seconds=60)
"""Younger sandboxes are spared: whoever makes one is perhaps at work."""

_CHUNK = 500

Row = TypeVar("Row", RunRow, SandboxRow)


class Reaper:
    """Removes this installation's sandboxes on this host whose owner has no need of them.

    Whether that is so, database and Temporal must both say; where one of them does not answer,
    nothing is removed."""

    def __init__(self, client: Client, sandboxes: Sandboxes, *, age: timedelta = AGE) -> None:
        self._client, self._sandboxes, self._age = client, sandboxes, age
        self._store = sandboxes.store
        self._complaint = Complaint("the reaper removes nothing", "the reaper is at work again")

    def sweep(self) -> None:
        """Remove every sandbox that its owner gave up with this host. Raises SandboxError after
        all were tried, where trying again may help, and what the database raises."""
        self._remove(self._displaced(), "its owner has given it up")

    async def reap(self) -> None:
        """One round. What fails is said once, and nothing is removed that is not certain."""
        try:
            left = await asyncio.to_thread(self._of_ended_owners)
            over = [each for each, owner in left if await is_over(self._client, owner)]
            await asyncio.to_thread(self._remove, over, "its owner has ended")
            await asyncio.to_thread(self.sweep)
        except Exception as error:
            self._complaint.fails(error)
        else:
            self._complaint.works()

    def _displaced(self) -> list[SandboxRecord]:
        found = self._sandboxes.runtime.sandboxes()
        with self._store.read() as session:
            owners = _owners_of(session, found)
        host_id = self._sandboxes.host_id
        abandoned = self._sandboxes.clones.is_abandoned
        return [
            each
            for each in found
            if abandoned(each.id)
            or (
                (owner := owners.get(each.id)) is not None
                and placement.is_displaced(owner, host_id, each.epoch)
            )
        ]

    def _of_ended_owners(self) -> list[tuple[SandboxRecord, str]]:
        """Sandboxes whose owner has ended, or was never heard of, and the workflow of each."""
        grown = utc_now() - self._age
        old = [each for each in self._sandboxes.runtime.sandboxes() if each.made_at <= grown]
        with self._store.read() as session:
            owners = _owners_of(session, old)
        left = [each for each in old if not _is_going(owners.get(each.id))]
        return [(each, _workflow(each, owners.get(each.id))) for each in left]

    def _remove(self, sandboxes: list[SandboxRecord], why: str) -> None:
        failed: SandboxError | None = None
        for each in sandboxes:
            try:
                self._sandboxes.runtime.remove(each.id, epoch=each.epoch)
                log.warning("sandbox removed", sandbox=each.id, owner=each.owner, why=why)
            except SandboxError as error:
                log.warning("sandbox not removed", sandbox=each.id, why=error.message)
                failed = error if error.retryable else failed
        if failed is not None:
            raise failed


def _is_going(owner: Placed | None) -> bool:
    if isinstance(owner, SandboxRow):
        return not SandboxStatus(owner.status).ended
    return owner is not None and not RunStatus(owner.status).ended


def _workflow(sandbox: SandboxRecord, owner: Placed | None) -> str:
    """The workflow that a sandbox is for; what is left of one may not tell, but its name does."""
    return owner.id if owner is not None else sandbox.owner or run_id(sandbox.id)


def _owners_of(session: Session, sandboxes: Sequence[SandboxRecord]) -> dict[str, Placed]:
    """The run, or the sandbox that somebody made, for which each of these is, by its id."""
    found: dict[str, Placed] = {}
    made = _rows(session, SandboxRow, [each.id for each in sandboxes])
    runs = _rows(session, RunRow, [each.owner or run_id(each.id) for each in sandboxes])
    for each in sandboxes:
        owner = made.get(each.id) or runs.get(each.owner or run_id(each.id))
        if owner is not None:
            found[each.id] = owner
    return found


def _rows(session: Session, kind: type[Row], ids: Sequence[str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for start in range(0, len(ids), _CHUNK):
        some = col(kind.id).in_(ids[start : start + _CHUNK])
        found.update({row.id: row for row in session.exec(select(kind).where(some))})
    return found
