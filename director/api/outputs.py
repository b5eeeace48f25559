"""Giving out what a step wrote: whole, or as it comes, to whoever reads at whatever pace.

Nothing is queued for a follower: it looks into the store when it has sent what it found before."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import structlog
from sqlmodel import Session

from director.api.hub import Hub
from director.blobs.store import Blobs
from director.domain.errors import BrokenOffError, GoneError, NotFoundError, refused
from director.domain.outputs import OutputCursor, Stream
from director.domain.runs import StepStatus
from director.domain.times import utc_now
from director.store import outputs, standing
from director.store.engine import Store
from director.store.outputs import Look
from director.store.tables import OutputRow, RunRow, StepRow

log = structlog.get_logger()

IDLE_SECONDS = 15.0
"""After so long without output a follower is told that there was none."""

LIVE = {
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",  # or a proxy collects what should come at once
    "X-Content-Type-Options": "nosniff",
}
"""Headers of what streams."""

_NUMBER = re.compile(r"[1-9][0-9]{0,3}")
_LOOK_SECONDS = 1.0
_SHARE = 4
"""A follower rests this much longer than its last look took, however often the database changes:
many of them slow down instead of keeping everybody else from reading."""


class Piece(NamedTuple):
    """Bytes of a stream, and the cursor behind them."""

    stream: Stream
    content: bytes
    cursor: OutputCursor


class Restarted(NamedTuple):
    """What was given before counts no more: the command runs again, and its output begins anew."""

    cursor: OutputCursor


class NextAttempt(NamedTuple):
    """The attempt has failed, and what follows is of the next one."""

    cursor: OutputCursor


class Ended(NamedTuple):
    """Nothing follows; `look` is what the step looked like then."""

    cursor: OutputCursor
    look: Look


class Idle(NamedTuple):
    """Nothing came for a while."""


Told = Piece | Restarted | NextAttempt | Ended | Idle


class Asked(NamedTuple):
    """Which output somebody wants."""

    run_id: str
    step: int
    stream: Stream | None = None
    onward: bool = False
    """Go on to the next attempt where the step is tried again."""


@dataclass
class Parts:
    """What all readers of outputs work with."""

    store: Store
    blobs: Blobs
    hub: Hub


class OutputReader:
    """Reads the recorded pieces of a step in the order in which they were recorded, each byte
    once, from a cursor on or from the beginning."""

    def __init__(
        self,
        parts: Parts,
        asked: Asked,
        cursor: OutputCursor,
        allowed: Callable[[], Awaitable[bool]] | None = None,
        login_seconds: float = 5,
    ) -> None:
        self._parts, self._asked, self._at = parts, asked, cursor
        self._allowed, self._login_seconds = allowed, login_seconds
        self._asked_at = time.monotonic()

    @property
    def cursor(self) -> OutputCursor:
        """Up to where it has read."""
        return self._at

    async def read(self, *, follow: bool, idle: float = IDLE_SECONDS) -> AsyncIterator[Told]:
        """What is recorded and, to follow, what comes until the step or the attempt has ended.

        Raises BrokenOffError where bytes are missing, the reader's login has ended, or the process
        is to stop."""
        heard = time.monotonic()
        while True:
            await self._check_allowed(follow=follow)
            mark, begun = self._parts.hub.mark(), time.monotonic()
            look = await self._parts.store.fetch(self._look)
            took = time.monotonic() - begun
            for row in look.pieces:
                yield await self._piece(row)
            turn = None if look.pieces else self._turn(look, follow=follow)
            if turn is not None:
                yield turn
            if isinstance(turn, Ended):
                return
            if look.pieces or turn is not None:
                heard = time.monotonic()
                continue
            if time.monotonic() - heard >= idle:
                heard = time.monotonic()
                yield Idle()
            await asyncio.sleep(_SHARE * took)
            await self._parts.hub.changed(mark, min(_LOOK_SECONDS, idle))

    def _look(self, session: Session) -> Look:
        asked = self._asked
        return outputs.look(session, asked.run_id, asked.step, self._at, asked.stream)

    async def _piece(self, row: OutputRow) -> Piece:
        """The bytes of a row that lie behind the cursor, which is moved behind them."""
        stream: Stream = "stdout" if row.stream == "stdout" else "stderr"
        begin = self._at.at(stream)
        if row.offset > begin:
            raise BrokenOffError("the bytes before these are no longer kept")
        content = row.content
        if content is None:
            content = await asyncio.to_thread(self._parts.blobs.get, row.hash)
        self._at = self._at.moved(stream, row.offset + row.size)
        return Piece(stream, content[begin - row.offset :], self._at)

    def _turn(self, look: Look, *, follow: bool) -> Restarted | NextAttempt | Ended | None:
        """What becomes of a reader that has read all that there is behind its cursor."""
        row, at = look.step, self._at
        present = max(row.attempt, 1) if self._asked.onward else at.attempt
        if row.output_epoch != at.epoch or present < at.attempt:
            self._at = OutputCursor(row.output_epoch, present)
            return Restarted(self._at)
        if follow and present > at.attempt:
            self._at = OutputCursor(at.epoch, present)
            return NextAttempt(self._at)
        if not follow or self._is_over(look):
            return Ended(at, look)
        return None

    def _is_over(self, look: Look) -> bool:
        row = look.step
        if look.run_ended or row.attempt > self._at.attempt:
            return True
        ended = row.attempt == self._at.attempt and row.ended_at is not None
        return ended and not (self._asked.onward and row.status == StepStatus.RETRYING)

    async def _check_allowed(self, *, follow: bool) -> None:
        if follow and self._parts.hub.closed:
            raise BrokenOffError("the server restarts")
        if self._allowed is None or time.monotonic() < self._asked_at + self._login_seconds:
            return
        self._asked_at = time.monotonic()
        if not await self._allowed():
            raise BrokenOffError("the login has ended")


async def plain(reader: OutputReader, *, follow: bool) -> AsyncIterator[bytes]:
    """The bytes alone. Raises BrokenOffError where those given already count no more."""
    given = False
    async for told in reader.read(follow=follow):
        if isinstance(told, Piece):
            given = True
            yield told.content
        elif isinstance(told, Restarted) and given:
            raise BrokenOffError("the command runs again, from its beginning")


def step_of(session: Session, run: RunRow, named: str) -> StepRow:
    """A step of a run by its id, or by its number from 1. Raises NotFoundError."""
    rows = standing.steps_of(session, run.id)
    for row in rows:
        if row.id == named:
            return row
    if _NUMBER.fullmatch(named) and int(named) <= len(rows):
        return rows[int(named) - 1]
    raise NotFoundError("step", named)


def check_kept(run: RunRow, kept: timedelta | None) -> None:
    """Raise GoneError where the output of a run is so old that it is not kept any more."""
    old = kept and run.completed_at and run.completed_at < utc_now() - kept
    if run.output_dropped or old:
        raise GoneError(
            "the output of this run is no longer kept; its steps' results still show the begin"
            " and the end of it",
            runId=run.id,
        )


def begin(row: StepRow, attempt: int | None, resumed: str | None = None) -> OutputCursor:
    """Where to begin: behind a cursor that was told, or where the attempt begins.

    Raises NotFoundError for an attempt that is not there, ValidationError for no cursor of it."""
    if attempt is not None and attempt > max(row.attempt, 1):
        raise NotFoundError("attempt", str(attempt))
    if resumed is None:
        return OutputCursor(row.output_epoch, attempt or max(row.attempt, 1))
    cursor = OutputCursor.parse(resumed)
    if cursor is None or attempt not in (None, cursor.attempt):
        raise refused("cursor", "is none that was told for this output", resumed)
    return cursor
