"""How the host knows whether somebody sees a command through to its end, and when that is over."""

import math
import os
import select
import time
from pathlib import Path

_FIFO = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_PIPE = 65536


class Watch:
    """A look at the FIFO that a command's watcher holds open, and nobody else who is honest.

    Who is not keeps it open, or has it end early: that costs whoever waits some time, and is no
    word on the command."""

    def __init__(self, path: Path) -> None:
        self._fifo: int | None = None
        self._poll = select.poll()
        try:
            self._fifo = os.open(path, _FIFO)
        except OSError:
            return  # the sandbox is removed
        self._poll.register(self._fifo, 0)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    @property
    def wakes(self) -> bool:
        """Whether `pause` ends early where a watcher lets go; told once."""
        return self._fifo is not None

    def pause(self, seconds: float) -> None:
        """Wait at most so long, and no longer once a watcher has let go since this was made."""
        if self._fifo is None:
            time.sleep(seconds)
        elif self._poll.poll(math.ceil(seconds * 1000)):
            self._close()

    def over(self) -> bool:
        """Tell whether it is certain that nobody holds it open."""
        try:
            return self._fifo is not None and not os.read(self._fifo, _PIPE)
        except BlockingIOError:
            return False

    def _close(self) -> None:
        if self._fifo is not None:
            os.close(self._fifo)
            self._fifo = None
