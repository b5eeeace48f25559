"""One reader of the event log for each process, and its fan-out in memory."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from itertools import islice, takewhile

import structlog

from director.api.frames import Frame, told
from director.api.listeners import GoingAwayError, Listener, LoginRevokedError
from director.domain.events import CATALOGUE, Event, Wanted
from director.domain.runs import RunStatus
from director.store import events, users
from director.store.engine import Store

log = structlog.get_logger()

_AFTER_FAULT = 1.0
_BATCH = 500
_LOGINS = 500
"""Logins that are asked for in one query."""

_KEPT, _KEPT_CHARS = 1000, 4 * 1024 * 1024
"""The newest events, which listeners get from memory."""


class Awaited:
    """Somebody waits until a run has ended, or has a status."""

    def __init__(self, status: RunStatus | None) -> None:
        self._status = status
        self._over = asyncio.Event()

    def hear(self, event: Event) -> None:
        """Judge an event of the run."""
        if CATALOGUE[event.type].final or self._has(event):
            self.end()

    def _has(self, event: Event) -> bool:
        return self._status is not None and event.data.get("status") == self._status

    def end(self) -> None:
        """Wait no more."""
        self._over.set()

    async def wait(self, seconds: float) -> None:
        """Wait until it is so, at most so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()


class Hub:
    """Reads the log as it grows, keeps its newest part in memory, and wakes who listens to it."""

    def __init__(self, store: Store, login_check_seconds: float = 1.0) -> None:
        self._store, self._login_check_seconds = store, login_check_seconds
        self._listeners: set[Listener] = set()
        self._awaited: dict[str, set[Awaited]] = {}
        self._changed = asyncio.Event()
        self._recent: deque[Frame] = deque()
        self._chars = 0
        self._closed = False
        self.floor = 0
        """Everything behind this cursor, up to `position`, is in memory."""
        self.position = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read the log while the block lasts."""
        self.floor = self.position = await self._store.fetch(events.newest)
        tasks = [asyncio.create_task(part()) for part in (self._tail, self._watch_logins)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def listening(self, login_id: str, wanted: Wanted, after: int | None) -> Iterator[Listener]:
        """Listen from a cursor on, or from now, as long as the login counts."""
        listener = Listener(self, self._store, login_id, wanted, after)
        self._listeners.add(listener)
        if self._closed:
            listener.end(GoingAwayError())
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    @contextmanager
    def awaiting(self, run_id: str, status: RunStatus | None = None) -> Iterator[Awaited]:
        """Hear from now on when a run ends, or has a status. Look at it after that: what was told
        before is not heard."""
        awaited = Awaited(status)
        if self._closed:
            awaited.end()
        of_run = self._awaited.setdefault(run_id, set())
        of_run.add(awaited)
        try:
            yield awaited
        finally:
            of_run.discard(awaited)
            if not of_run:
                self._awaited.pop(run_id, None)

    @property
    def count(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def recent(self, position: int) -> list[Frame]:
        """What is in memory behind a cursor that is not before `floor`, oldest first."""
        newer = list(takewhile(lambda frame: frame.cursor > position, reversed(self._recent)))
        newer.reverse()
        return newer

    def close(self) -> None:
        """End all that listens or waits here, since the process is to stop."""
        self._closed = True
        for listener in self._listeners:
            listener.end(GoingAwayError())
        for of_run in self._awaited.values():
            for awaited in of_run:
                awaited.end()
        self._tell_change()

    @property
    def closed(self) -> bool:
        """Whether the process is about to stop, so that nobody should wait any more."""
        return self._closed

    def mark(self) -> asyncio.Event:
        """What is set at the next change. Take it before you look, so that you miss none."""
        return self._changed

    async def changed(self, mark: asyncio.Event, seconds: float) -> None:
        """Wait until something was written to the database since the mark, at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(mark.wait(), seconds)

    async def _tail(self) -> None:
        """Publish whenever something was committed."""
        changes = self._store.changes()
        try:
            while True:
                await changes.wait()
                while not await self._published():
                    pass
        finally:
            await changes.close()

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
            behind = partial(events.after, cursor=self.position, limit=_BATCH)
            found = await self._store.fetch(behind)
            if found:
                self._spread([told(event) for event in found])
            if len(found) < _BATCH:
                break
        self._tell_change()

    def _spread(self, frames: Sequence[Frame]) -> None:
        self._recent.extend(frames)
        self._chars += sum(len(frame.text) for frame in frames)
        while len(self._recent) > _KEPT or self._chars > _KEPT_CHARS:
            oldest = self._recent.popleft()
            self.floor = oldest.cursor
            self._chars -= len(oldest.text)
        self.position = frames[-1].cursor
        for listener in self._listeners:
            listener.offer(frames)
        for frame in frames:
            if (event := frame.event) is not None:
                for awaited in self._awaited.get(event.subject, ()):
                    awaited.hear(event)

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _watch_logins(self) -> None:
        """One look at the logins of all listeners, however many they are."""
        while True:
            await asyncio.sleep(self._login_check_seconds)
            try:
                await self._end_revoked()
            except Exception:
                log.exception("the logins of listeners could not be read")

    async def _end_revoked(self) -> None:
        used = iter({listener.login_id for listener in self._listeners})
        while some := set(islice(used, _LOGINS)):
            gone = some - await self._store.fetch(partial(users.live_logins, login_ids=some))
            for listener in tuple(self._listeners):
                if listener.login_id in gone:
                    listener.end(LoginRevokedError())
