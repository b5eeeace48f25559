"""What a step wrote, as those who follow it are told: pieces, cursors, and ends."""

import re
from typing import Literal, NamedTuple, Self

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")

_CURSOR = re.compile(r"([0-9]{1,9})-([0-9]{1,9})-([0-9]{1,15})-([0-9]{1,15})")


class OutputCursor(NamedTuple):
    """Up to where a follower has read: bytes of each stream of one attempt. `epoch` tells how
    often the step's output had been forgotten by then; of another epoch no byte counts."""

    epoch: int
    attempt: int
    stdout: int = 0
    stderr: int = 0

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a cursor as it was told; None where it is none of ours."""
        match = _CURSOR.fullmatch(text)
        return cls(*map(int, match.groups())) if match else None

    def __str__(self) -> str:
        return "-".join(map(str, self))

    def at(self, stream: Stream) -> int:
        """Bytes of a stream that were read."""
        return self.stdout if stream == "stdout" else self.stderr

    def moved(self, stream: Stream, offset: int) -> Self:
        """The cursor with another position in one stream."""
        return self._replace(**{stream: offset})
