"""One reader of the event log for each process, and its fan-out in memory."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial

import structlog

from director.domain.events import Event
from director.store import events
from director.store.engine import Store

log = structlog.get_logger()

_PERIOD = 0.02
_AFTER_FAULT = 1.0
_BATCH = 500
_BACKLOG = 1000
"""Events that a subscriber may be behind before it is given up."""


class Subscription:
    """A listener's queue of events; `lagging` once it was too slow to be kept up to date."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.lagging = False
        self._queue: asyncio.Queue[Event] = asyncio.Queue(_BACKLOG)

    def offer(self, event: Event) -> None:
        """Put an event into the queue, or mark the listener as lagging."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.lagging = True

    async def next(self) -> Event:
        """The next event, in order."""
        return await self._queue.get()


class Hub:
    """Reads the log as it grows and hands each event to every subscriber."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._subscriptions: set[Subscription] = set()
        self._changed = asyncio.Event()
        self._position = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the log while the block lasts."""
        self._position = await self._store.fetch(events.newest)
        task = asyncio.create_task(self._tail(), name="event-tailer")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    @contextmanager
    def subscribed(self) -> Iterator[Subscription]:
        """Listen from the present position on."""
        subscription = Subscription(self._position)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def mark(self) -> asyncio.Event:
        """What is set at the next change. Take it before you look, so that you miss none."""
        return self._changed

    async def changed(self, mark: asyncio.Event, seconds: float) -> None:
        """Wait until something was written to the database since the mark, at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(mark.wait(), seconds)

    async def _tail(self) -> None:
        """Watch SQLite's data version: it moves when any other connection commits."""
        path = self._store.engine.url.database
        connection = sqlite3.connect(path or "", isolation_level=None)
        seen = -1
        try:
            while True:
                (version,) = connection.execute("PRAGMA data_version").fetchone()
                if version != seen and await self._published():
                    seen = version
                await asyncio.sleep(_PERIOD)
        finally:
            connection.close()

    async def _published(self) -> bool:
        """Publish what is new; a fault must not end the only reader, so it is tried again."""
        try:
            await self._publish()
        except Exception:
            log.exception("the event log could not be read")
            await asyncio.sleep(_AFTER_FAULT)
            return False
        return True

    async def _publish(self) -> None:
        while True:
            behind = partial(events.after, cursor=self._position, limit=_BATCH)
            found = await self._store.fetch(behind)
            for event in found:
                self._position = event.id
                for subscription in self._subscriptions:
                    subscription.offer(event)
            if len(found) < _BATCH:
                break
        self._changed.set()
        self._changed = asyncio.Event()
