"""What keeps a host a host: its lease, and order among the sandboxes on it."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from temporalio.client import Client

from director.activities.complaints import Complaint
from director.activities.reaper import AGE, Reaper
from director.activities.sandboxes import Sandboxes
from director.domain.hosts import LEASE, Capacity
from director.store import hosts

log = structlog.get_logger()

Registration = tuple[datetime, int]

_LAST_ROUND_SECONDS = 5
"""How long the end waits for a round that is at work."""


@dataclass(frozen=True)
class Periods:
    """How often what is done, and how old what must be."""

    lease: timedelta = LEASE
    renew: timedelta = timedelta(seconds=2)
    reap: timedelta = timedelta(seconds=15)
    age: timedelta = AGE


class HostKeeper:
    """Registers this host and renews its lease; removes the sandboxes that it lost meanwhile,
    settles what ended unseen in Temporal, and reaps.

    Every worker of a host has one. Nothing that fails in here ends the worker."""

    def __init__(
        self,
        client: Client,
        sandboxes: Sandboxes,
        settle: Sequence[Callable[[], None]],
        capacity: Capacity,
        periods: Periods,
    ) -> None:
        self._store, self._host_id = sandboxes.store, sandboxes.host_id
        self._reaper = Reaper(client, sandboxes, age=periods.age)
        self._capacity, self._periods = capacity, periods
        self._registration: Registration | None = None
        self._swept: Registration | None = None
        """The one in which the host's sandboxes were last gone through."""
        self._lease = Complaint("the host's lease is not renewed", "the host's lease is renewed")
        self._sweep = Complaint("sandboxes that this host has lost are left", "they are removed")
        what = "what was ended in Temporal is left"
        self._settle = [(Complaint(what, "it is settled"), work) for work in settle]

    @asynccontextmanager
    async def keeping(self, stopped: asyncio.Event) -> AsyncIterator[None]:
        """Be a host while the block lasts. The block begins once the host is registered and has
        no sandbox that its run gave up meanwhile, or when `stopped` is set."""
        over, ended = threading.Event(), asyncio.Event()
        renewing = threading.Thread(target=self._renew, args=(over,), name="lease", daemon=True)
        await asyncio.to_thread(self._hold)
        renewing.start()
        while not await asyncio.to_thread(self._swept_since_registered) and not stopped.is_set():
            await _pause(stopped, self._periods.renew)
        caring = asyncio.create_task(self._care(ended))
        try:
            yield
        finally:
            ended.set()
            await asyncio.wait({caring}, timeout=_LAST_ROUND_SECONDS)
            caring.cancel()
            over.set()
            await asyncio.to_thread(renewing.join, _LAST_ROUND_SECONDS)

    def _renew(self, over: threading.Event) -> None:
        """In a thread of its own, so that no work of the worker can delay it."""
        while not over.wait(self._periods.renew.total_seconds()):
            self._hold()

    def _hold(self) -> None:
        """Renew the lease, or register where there is none any more."""
        _done(self._lease, self._hold_lease)

    def _hold_lease(self) -> None:
        length = self._periods.lease
        with self._store.write() as session:
            row = hosts.renew(session, self._host_id, length) if self._registration else None
            row = row or hosts.register(session, self._host_id, self._capacity, length)
            registration = row.registration
        if registration != self._registration:
            log.info("host registered", host=self._host_id, epoch=registration[1])
            self._registration = registration

    def _swept_since_registered(self) -> bool:
        """Remove what was lost with the last lease; False where that is to be tried again."""
        registration = self._registration
        if registration is None or registration == self._swept:
            return registration is not None
        if not _done(self._sweep, self._reaper.sweep):
            return False
        self._swept = registration
        return True

    def _put_in_order(self) -> None:
        self._swept_since_registered()
        for complaint, work in self._settle:
            _done(complaint, work)

    async def _care(self, ended: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        reaped = clock()
        while not ended.is_set():
            await asyncio.to_thread(self._put_in_order)
            if clock() - reaped >= self._periods.reap.total_seconds():
                await self._reaper.reap()
                reaped = clock()
            await _pause(ended, self._periods.renew)


def _done(complaint: Complaint, work: Callable[[], None]) -> bool:
    try:
        work()
    except Exception as error:
        complaint.fails(error)
        return False
    complaint.works()
    return True


async def _pause(event: asyncio.Event, period: timedelta) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), period.total_seconds())
