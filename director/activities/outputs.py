"""Recording what a command writes, while it writes it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from sqlmodel import Session

from director.blobs.store import Blobs
from director.domain.outputs import STREAMS, Stream
from director.sandbox.runtime import Execution
from director.store import outputs, steps
from director.store.engine import Store
from director.store.steps import StepKey
from director.store.tables import OutputRow

PIECE = 256 * 1024
INLINE = 32 * 1024
"""Bytes of each stream that a result holds: the head and the tail; all is in the output store."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.025, 0.15
_SHARE, _SLOWEST_PAUSE = 5, 0.5
"""The pause is at least so many times what recording took, so that many commands that talk do not
fill a slow disk; but nobody waits longer for a line."""

JUDGED = 1024 * 1024
"""Bytes at the end of the output that a criterion sees."""


class Pace:
    """When small pieces may be recorded, each of which costs a commit: at once where nothing came
    of late, then ever more rarely while output flows."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next, self._pause = clock(), 0.0

    def due(self) -> bool:
        """Whether small pieces may be recorded now."""
        return self._clock() >= self._next

    def passed(self, begun: float, *, found: bool) -> None:
        """Note what a look found that was due, and from when on it was recorded."""
        now = self._clock()
        if not found:
            self._pause = 0.0
            return
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._next = now + max(self._pause, min(_SHARE * (now - begun), _SLOWEST_PAUSE))

    def now(self) -> float:
        """The time by its clock."""
        return self._clock()


class _Piece(NamedTuple):
    """A part of a stream that is not written yet; its bytes are a blob where they are not here."""

    stream: Stream
    offset: int
    size: int
    hash: str
    content: bytes | None

    def lies(self, stream: Stream, start: int, end: int) -> bool:
        """Whether it has any of these bytes of the stream."""
        return self.stream == stream and self.offset < end and self.offset + self.size > start

    def row(self, of: tuple[str, int, int]) -> OutputRow:
        """What stands for it in the index."""
        run_id, step, attempt = of
        return OutputRow(run_id=run_id, step=step, attempt=attempt, **self._asdict())


class OutputRecorder:
    """Takes over from the sandbox what an attempt has written, once each byte.

    A later worker goes on where the recorded pieces end. `of` names the attempt; `require` raises
    where it may write nothing any more."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        of: tuple[str, int, int],
        require: Callable[[Session], object],
        pace: Pace | None = None,
        *,
        fresh: bool = False,
    ) -> None:
        """`fresh`: the attempt has just begun, so that nothing is recorded."""
        self._store, self._blobs = store, blobs
        self._of, self._require = of, require
        self._pace = pace or Pace()
        self._last: list[_Piece] = []
        self._ends: dict[Stream, int] = dict.fromkeys(STREAMS, 0)
        if not fresh:
            with store.read() as session:
                for stream in STREAMS:
                    self._ends[stream] = outputs.recorded(session, *self._of, stream)

    @classmethod
    def of_step(
        cls,
        store: Store,
        blobs: Blobs,
        key: StepKey,
        pace: Pace | None = None,
        *,
        fresh: bool = False,
    ) -> "OutputRecorder":
        """A recorder for an attempt of a step."""
        of = (key.run_id, key.index, key.attempt)
        return cls(store, blobs, of, lambda session: steps.require(session, key), pace, fresh=fresh)

    @property
    def size(self) -> int:
        """Bytes recorded so far, of both streams."""
        return sum(self._ends.values())

    def record(self, execution: Execution, *, everything: bool) -> None:
        """Take over what is there now; small pieces at their pace. `everything`, once the command
        has ended: what is small is left for `save`. Raises StaleAttemptError."""
        begun, due = self._pace.now(), self._pace.due()
        found = False
        for stream in STREAMS:
            for piece in self._taken(execution, stream, small=due or everything):
                found = True
                if everything and piece.size < PIECE:
                    self._last.append(piece)
                else:
                    self._write([piece])
        if due:
            self._pace.passed(begun, found=found)

    def save(self, session: Session) -> None:
        """Write what is left, in the transaction that writes how the command ended."""
        self._append(session, self._last)

    @contextmanager
    def keeping(self) -> Iterator[None]:
        """Write what is left also where the block raises, and nobody saves it."""
        try:
            yield
        except Exception:
            if self._last:
                self._write(self._last)
            raise

    def _taken(self, execution: Execution, stream: Stream, *, small: bool) -> Iterator[_Piece]:
        while content := execution.read(stream, self._ends[stream], PIECE):
            if len(content) < PIECE and not small:
                break
            yield self._piece(stream, content)

    def restart(self) -> None:
        """Begin anew: the command was lost, what it wrote is forgotten, and it runs again."""
        self._last.clear()
        self._ends = dict.fromkeys(self._ends, 0)

    def inline(self, stream: Stream) -> str:
        """The head and the tail of a stream, as text, with a line between that says what is not
        shown."""
        size = self._ends[stream]
        if size <= INLINE:
            return self.tail(stream, INLINE)
        half = INLINE // 2
        between = f"\n… {size - INLINE} bytes are only in the step's output …\n"
        return self._text(stream, 0, half) + between + self.tail(stream, half)

    def tail(self, stream: Stream, size: int) -> str:
        """The last bytes of a stream as text."""
        end = self._ends[stream]
        return self._text(stream, max(0, end - size), end)

    def _piece(self, stream: Stream, content: bytes) -> _Piece:
        offset, size = self._ends[stream], len(content)
        self._ends[stream] += size
        if size <= outputs.INLINE:
            return _Piece(stream, offset, size, "", content)
        return _Piece(stream, offset, size, self._blobs.put(content), None)

    def _write(self, pieces: Sequence[_Piece]) -> None:
        with self._store.write() as session:
            self._append(session, pieces)

    def _append(self, session: Session, pieces: Sequence[_Piece]) -> None:
        if pieces:
            self._require(session)
        for piece in pieces:
            outputs.append(session, piece.row(self._of))

    def _text(self, stream: Stream, start: int, end: int) -> str:
        if start == end:
            return ""
        with self._store.read() as session:
            rows = outputs.span(session, *self._of, stream, start, end)
        rows += [piece.row(self._of) for piece in self._last if piece.lies(stream, start, end)]
        content = b"".join(content_of(row, self._blobs) for row in rows)
        skipped = start - rows[0].offset if rows else 0
        return content[skipped : skipped + end - start].decode(errors="replace")


def content_of(row: OutputRow, blobs: Blobs) -> bytes:
    """The bytes of a piece."""
    return blobs.get(row.hash) if row.content is None else row.content
