"""Recording what a command writes, while it writes it."""

import time

from director.blobs.store import Blobs
from director.sandbox.runtime import Execution, Stream
from director.store import outputs, steps
from director.store.engine import Store
from director.store.steps import StepKey
from director.store.tables import OutputRow

PIECE = 256 * 1024
INLINE = 32 * 1024
"""Bytes of each stream that a result holds: the head and the tail; all is in the output store."""

_PAUSE = 0.5

JUDGED = 1024 * 1024
"""Bytes at the end of the output that a criterion sees."""

_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")


class OutputRecorder:
    """Takes over from the sandbox what an attempt has written, once each byte.

    A later worker goes on where the recorded pieces end."""

    def __init__(self, store: Store, blobs: Blobs, key: StepKey) -> None:
        self._store, self._blobs, self._key = store, blobs, key
        self._next = time.monotonic()
        self._of = (key.run_id, key.index, key.attempt)
        with store.read() as session:
            self._ends = {
                stream: outputs.recorded(session, *self._of, stream) for stream in _STREAMS
            }

    @property
    def size(self) -> int:
        """Bytes recorded so far, of both streams."""
        return sum(self._ends.values())

    def record(self, execution: Execution, *, everything: bool) -> None:
        """Take over what is there now; small pieces only twice a second, since each costs a
        commit, unless `everything` is wanted. Raises StaleAttemptError."""
        due = everything or time.monotonic() >= self._next
        for stream in _STREAMS:
            while content := execution.read(stream, self._ends[stream], PIECE):
                if not due and len(content) < PIECE:
                    break
                self._append(stream, content)
                self._next = time.monotonic() + _PAUSE

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
        row = OutputRow(
            run_id=run_id,
            step=step,
            attempt=attempt,
            stream=stream,
            offset=self._ends[stream],
            size=len(content),
            hash=self._blobs.put(content),
        )
        with self._store.write() as session:
            steps.require(session, self._key)
            outputs.append(session, row)
        self._ends[stream] += len(content)

    def _text(self, stream: Stream, start: int, end: int) -> str:
        with self._store.read() as session:
            rows = outputs.span(session, *self._of, stream, start, end)
        content = b"".join(self._blobs.get(row.hash) for row in rows)
        skipped = start - rows[0].offset if rows else 0
        return content[skipped : skipped + end - start].decode(errors="replace")
