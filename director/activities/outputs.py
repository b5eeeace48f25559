"""Recording what a command writes, while it writes it."""

from director.blobs.store import Blobs
from director.sandbox.runtime import Execution, Stream
from director.store import outputs
from director.store.engine import Store
from director.store.steps import StepKey
from director.store.tables import OutputRow

PIECE = 256 * 1024
INLINE = 32 * 1024
"""Bytes of each stream that a result holds: the head and the tail; all is in the output store."""

JUDGED = 1024 * 1024
"""Bytes at the end of the output that a criterion sees."""

_STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")


class OutputRecorder:
    """Takes over from the sandbox what an attempt has written, once each byte.

    A later worker goes on where the recorded pieces end."""

    def __init__(self, store: Store, blobs: Blobs, key: StepKey) -> None:
        self._store, self._blobs = store, blobs
        self._of = (key.run_id, key.index, key.attempt)
        with store.read() as session:
            self._ends = {
                stream: outputs.recorded(session, *self._of, stream) for stream in _STREAMS
            }

    @property
    def size(self) -> int:
        """Bytes recorded so far, of both streams."""
        return sum(self._ends.values())

    def record(self, execution: Execution) -> None:
        """Take over everything that is there now."""
        for stream in _STREAMS:
            while content := execution.read(stream, self._ends[stream], PIECE):
                self._append(stream, content)

    def forget(self) -> None:
        """Drop what was recorded: the command was lost and runs again."""
        with self._store.write() as session:
            outputs.forget(session, *self._of)
        self._ends = dict.fromkeys(self._ends, 0)

    def inline(self, stream: Stream) -> str:
        """The head and the tail of a stream, as text, with a line between that says what is not
        shown."""
        size = self._ends[stream]
        if size <= INLINE:
            return self.tail(stream, INLINE)
        half = INLINE // 2
        with self._store.read() as session:
            head = outputs.pieces(session, *self._of, stream, limit=half)
        first = self._joined(head, half)[:half].decode(errors="replace")
        between = f"\n… {size - INLINE} bytes are only in the step's output …\n"
        return first + between + self.tail(stream, half)

    def tail(self, stream: Stream, size: int) -> str:
        """The last bytes of a stream as text."""
        with self._store.read() as session:
            rows = outputs.last_pieces(session, *self._of, stream, size)
        content = b"".join(self._blobs.get(row.hash) for row in rows)
        return content[-size:].decode(errors="replace") if content else ""

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
            outputs.append(session, row)
        self._ends[stream] += len(content)

    def _joined(self, rows: list[OutputRow], size: int) -> bytes:
        content = b""
        for row in rows:
            content += self._blobs.get(row.hash)
            if len(content) >= size:
                break
        return content
