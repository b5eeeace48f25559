"""Blobs that nothing needs any more, removed a day after anybody has touched them."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice

import structlog

from director.blobs.store import Blobs
from director.domain.times import utc_now
from director.store import blobs as rows
from director.store.engine import Store

log = structlog.get_logger()

AGE = timedelta(hours=24)
"""A blob is spared for so long after somebody has touched it: nobody writes what is to need it for
longer than that."""

_BATCH = 500
_ROUND_SECONDS = 1.0


@dataclass
class Collection:
    """A part of each round of reconcile, so that one worker does it at a time.

    A round ends after a second; what is left is left to the next one."""

    store: Store
    blobs: Blobs
    age: timedelta = AGE
    period: timedelta = timedelta(minutes=10)
    """Between two rounds that look for what is unused."""
    listing: timedelta = timedelta(hours=24)
    """Between two lists of all blobs, which find those without a row."""
    _next_at: float = field(default=float("-inf"), init=False)
    _list_at: float = field(default=float("-inf"), init=False)

    async def collect(self) -> None:
        """Remove what is unused, a second's worth of it."""
        if time.monotonic() < self._next_at:
            return
        if await asyncio.to_thread(self.collect_for, _ROUND_SECONDS):
            self._next_at = time.monotonic() + self.period.total_seconds()

    def collect_for(self, seconds: float) -> bool:
        """Whether nothing is left that is unused."""
        if time.monotonic() >= self._list_at:
            self._adopt()
            self._list_at = time.monotonic() + self.listing.total_seconds()
        until, removed = time.monotonic() + seconds, 0
        before = utc_now() - self.age
        while time.monotonic() < until:
            with self.store.read() as session:
                found = rows.unused(session, before, _BATCH)
            for hash in found:
                removed += self._remove(hash)
                if time.monotonic() >= until:
                    break
            if not found:
                break
        if removed:
            log.info("blobs that nothing needs were removed", count=removed)
        return time.monotonic() < until

    def _remove(self, hash: str) -> bool:
        before = utc_now() - self.age
        with self.store.write() as session:
            dropped = rows.drop(session, hash, before)
            if dropped:
                self.blobs.delete(hash)  # while the row is locked
        return dropped

    def _adopt(self) -> None:
        names = self.blobs.names(self.age)
        while batch := list(islice(names, _BATCH)):
            with self.store.write() as session:
                rows.adopt(session, batch)
