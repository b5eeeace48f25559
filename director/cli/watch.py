"""Parts that end while Director is up are started again, however often that is."""

import signal
import time
from collections.abc import Callable
from typing import Protocol

from director.cli.stack import Say

LIVED_SECONDS = 10.0
"""A part that has lived so long works; what it did before is forgotten."""

LONGEST_PAUSE = 10.0
_FIRST_PAUSE = 0.5
_KILLED_PAUSE = 1.0


class Restarts:
    """When each part that has ended is to be started again.

    One that was killed starts at once, though not more than once a second; one that fails by
    itself ever later. Nobody gives up: the other parts serve meanwhile, and what keeps a part
    from starting may be over at the next attempt."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[str, float] = {}
        self._failures: dict[str, int] = {}

    def began(self, name: str) -> None:
        """Note that a part was started."""
        self._began[name] = self._clock()

    def pause(self, name: str, code: int) -> float:
        """Seconds to wait before a part that has ended now is started again."""
        lived = self._clock() - self._began.get(name, float("-inf"))
        if lived >= LIVED_SECONDS:
            self._failures[name] = 0
        if code < 0:
            return max(0.0, _KILLED_PAUSE - lived)
        self._failures[name] = self._failures.get(name, 0) + 1
        return min(_FIRST_PAUSE * 2.0 ** (self._failures[name] - 1), LONGEST_PAUSE)


class Parts(Protocol):
    """What is watched; a `Stack` is."""

    def ended(self) -> list[str]:
        """The parts that have ended although nobody stopped them."""

    def code(self, name: str) -> int:
        """The exit code of a part that has ended; below 0 the signal that killed it."""

    def begin(self, name: str) -> None:
        """Start a part."""

    def log(self, name: str) -> object:
        """Where a part writes what it has to say."""


class Watch:
    """Starts parts again, each when it is due, and says so."""

    def __init__(self, parts: Parts, say: Say, clock: Callable[[], float] = time.monotonic) -> None:
        self._parts, self._say, self._clock = parts, say, clock
        self._restarts = Restarts(clock)
        self._due: dict[str, float] = {}

    def look(self) -> None:
        """See what has ended, and start what is due; to be called a few times a second."""
        for name in self._parts.ended():
            if name not in self._due:
                self._due[name] = self._clock() + self._announced(name)
            if self._clock() >= self._due[name]:
                del self._due[name]
                self._parts.begin(name)
                self._restarts.began(name)

    def _announced(self, name: str) -> float:
        code = self._parts.code(name)
        pause = self._restarts.pause(name, code)
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        when = f"in {pause:.1f} s" if pause else "now"
        self._say(f"{name} {how} and is started again {when}; its log: {self._parts.log(name)}")
        return pause


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
