"""One listener of the event log: what it missed, then what comes, however it is sent to it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog
from sqlmodel import Session

from director.api.frames import Frame, coalesced, quiet, resync, told
from director.domain.events import Event, Wanted
from director.store import events
from director.store.engine import Store
from director.store.events import ForgottenError

log = structlog.get_logger()

_BATCH = 500
_SENT_AT_ONCE = 8
_SCAN_SECONDS = 1.0
"""What somebody who does not want to wait waits while much is looked through that is not for
them."""


@dataclass(frozen=True)
class Timing:
    """How long a client may take to authenticate and to take what is sent, and how long a stream
    may be quiet."""

    auth_seconds: float = 10
    send_seconds: float = 30
    quiet_seconds: float = 15


class EndedError(Exception):
    """The listener gets nothing more."""


class LoginRevokedError(EndedError):
    """The login that it listens with counts no more."""


class GoingAwayError(EndedError):
    """The process is to stop; another goes on from the cursor."""


class SlowError(EndedError):
    """Something could not be sent in time."""


class Recent(Protocol):
    """The newest part of the log in memory: all behind `floor`, up to `position`."""

    floor: int
    position: int

    def recent(self, position: int) -> list[Frame]:
        """What is behind a cursor that is not before `floor`, oldest first."""


class Listener:
    """Hands out what is wanted, each event once and in order: from the store where it is behind
    what is in memory, else from memory. It holds nothing itself, however slow it is taken from.

    `cursor`: all up to it was taken and sent. `wanted` may change meanwhile. `push` writes at once,
    or says that it cannot: who has all that was before gets the next so, without being woken."""

    def __init__(
        self, hub: Recent, store: Store, login_id: str, wanted: Wanted, after: int | None
    ) -> None:
        self._hub, self._store = hub, store
        self.login_id, self.wanted = login_id, wanted
        self._position = self.cursor = hub.position if after is None else after
        self._known = self._was_live = after is None
        self._ended: Exception | None = None
        self._woken: asyncio.Future[None] | None = None
        self.push: Callable[[bytes], bool] | None = None

    @property
    def behind(self) -> bool:
        """Whether there is more to take at once."""
        return self._position < self._hub.position

    def offer(self, frames: Sequence[Frame]) -> None:
        """Push what of this is wanted, or wake up; one that does not wait finds it by itself."""
        if self._woken is None or self._woken.done() or self._position >= frames[-1].cursor:
            return
        found = [frame for frame in frames if self._takes(frame) and frame.cursor > self._position]
        if not found or self._pushed(found):
            self._position = self.cursor = frames[-1].cursor
        else:
            self._woken.set_result(None)

    def _pushed(self, frames: Sequence[Frame]) -> bool:
        if self.push is None or len(frames) > _SENT_AT_ONCE:
            return False
        message = b"".join([frame.message for frame in frames])
        try:
            return self.push(message)
        except Exception:  # others are to be told, too; it hears of the fault where it writes
            log.exception("a message could not be pushed")
            return False

    def end(self, reason: Exception) -> None:
        """Let `next` raise this as soon as it is asked, or now where it waits."""
        self._ended = self._ended or reason
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def next(self, seconds: float | None = None, limit: int = _BATCH) -> list[Frame]:
        """What comes next, at most `limit`; nothing where nothing came in so many seconds.

        Raises what it was ended with."""
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        patience = loop.time() + max(seconds or 0, _SCAN_SECONDS)
        while True:
            if self._ended is not None:
                raise self._ended
            if (self.behind or not self._known) and (found := await self._read(limit)):
                return found
            if self.behind:
                if deadline is not None and loop.time() > patience:
                    return []
            elif not await self._wait(deadline):
                return []

    def sent(self, frame: Frame) -> None:
        """Note that a frame was sent."""
        self.cursor = frame.cursor

    def taken(self) -> None:
        """Note that all that was handed out was sent; what was not wanted lies behind as well."""
        self.cursor = self._position

    async def _read(self, limit: int) -> list[Frame]:
        if not self._known and self._position > self._hub.position:
            newest, oldest = await self._store.fetch(_ends)
            if self._position > newest:
                return [self._begin_anew(oldest)]
        self._known = True
        if self._position < self._hub.floor:
            return await self._from_store(limit)
        self._was_live = True
        return self._from_memory(limit)

    def _from_memory(self, limit: int) -> list[Frame]:
        found: list[Frame] = []
        for frame in self._hub.recent(self._position):
            self._position = frame.cursor
            if self._takes(frame):
                found.append(frame)
                if len(found) == limit:
                    break
        return found

    async def _from_store(self, limit: int) -> list[Frame]:
        """Who has been live and fell behind what is in memory is too slow for all of it."""
        read = partial(
            events.read,
            cursor=self._position,
            until=self._hub.position,
            wanted=self.wanted,
            limit=limit,
        )
        try:
            found, self._position = await self._store.fetch(read)
        except ForgottenError as error:
            return [self._begin_anew(error.oldest)]
        return coalesced(found) if self._was_live else [told(event) for event in found]

    def _begin_anew(self, oldest: int) -> Frame:
        self._known = True
        self._position = self._hub.position
        return resync(self._position, oldest)

    def _takes(self, frame: Frame) -> bool:
        event: Event | None = frame.event
        return event is not None and self.wanted.takes(event)

    async def _wait(self, deadline: float | None) -> bool:
        """Wait for what is wanted; False where the time is over."""
        self._woken = asyncio.get_running_loop().create_future()
        try:
            if deadline is None:
                await self._woken
            else:
                async with asyncio.timeout_at(deadline):
                    await self._woken
        except TimeoutError:
            return False
        finally:
            self._woken = None
        return True


async def pump(
    listener: Listener,
    write: Callable[[Frame], Awaitable[None]],
    send_seconds: float,
    quiet_seconds: float | None = None,
) -> None:
    """Write what comes until the listener is ended, or some frames do not get through in time.

    After so many quiet seconds it writes where to go on from. Raises EndedError, and what `write`
    raises."""
    while True:
        frames = await listener.next(quiet_seconds) or [quiet(listener.cursor)]
        try:
            for at in range(0, len(frames), _SENT_AT_ONCE):
                async with asyncio.timeout(send_seconds):
                    for frame in frames[at : at + _SENT_AT_ONCE]:
                        await write(frame)
                        listener.sent(frame)
                if at + _SENT_AT_ONCE < len(frames):
                    await asyncio.sleep(0)  # others have something to do, too
        except TimeoutError:
            raise SlowError from None
        listener.taken()


def _ends(session: Session) -> tuple[int, int]:
    return events.newest(session), events.purged(session)
