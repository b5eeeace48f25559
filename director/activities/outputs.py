"""Recording what a command writes, while it writes it."""

import time
from collections.abc import Callable

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
        """Take over what is there now; small pieces at their pace, unless `everything` is wanted.
        Raises StaleAttemptError."""
        begun, due = self._pace.now(), everything or self._pace.due()
        found = [self._taken(execution, stream, small=due) for stream in STREAMS]
        if due:
            self._pace.passed(begun, found=any(found))

    def _taken(self, execution: Execution, stream: Stream, *, small: bool) -> bool:
        begun = self._ends[stream]
        while content := execution.read(stream, self._ends[stream], PIECE):
            if len(content) < PIECE and not small:
                break
            self._append(stream, content)
        return self._ends[stream] > begun

    def restart(self) -> None:
        """Begin anew: the command was lost, what it wrote is forgotten, and it runs again."""
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

    def _append(self, stream: Stream, content: bytes) -> None:
        run_id, step, attempt = self._of
        small = len(content) <= outputs.INLINE
        row = OutputRow(
            run_id=run_id,
            step=step,
            attempt=attempt,
            stream=stream,
            offset=self._ends[stream],
            size=len(content),
            hash="" if small else self._blobs.put(content),
            content=content if small else None,
        )
        with self._store.write() as session:
            self._require(session)
            outputs.append(session, row)
        self._ends[stream] += len(content)

    def _text(self, stream: Stream, start: int, end: int) -> str:
        if start == end:
            return ""
        with self._store.read() as session:
            rows = outputs.span(session, *self._of, stream, start, end)
        content = b"".join(content_of(row, self._blobs) for row in rows)
        skipped = start - rows[0].offset if rows else 0
        return content[skipped : skipped + end - start].decode(errors="replace")


def content_of(row: OutputRow, blobs: Blobs) -> bytes:
    """The bytes of a piece."""
    return blobs.get(row.hash) if row.content is None else row.content
