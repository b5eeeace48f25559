"""Regular expressions that run in linear time and let other threads run meanwhile: RE2."""

from collections.abc import Callable
from typing import Any, NamedTuple

import re2  # type: ignore[import-untyped]

_MEMORY = 1024 * 1024
_LARGEST_PROGRAM = 5_000
_WORK = 100_000_000
"""Instructions times characters. RE2 needs 15 ns for each at worst, so this is 1.5 s."""


_LINE = 4_000
"""Characters of a line that a reader looks at; int() takes no number of more than 4300 digits."""


class PatternError(ValueError):
    """A regular expression that RE2 does not take, or that would cost too much."""


class Found(NamedTuple):
    """A match: the text and where it starts."""

    text: str
    start: int


class Pattern:
    """A compiled regular expression in which `^` and `$` stand for a line's ends.

    Raises PatternError with RE2's reason; look-around and back references are unknown to it."""

    def __init__(self, pattern: str) -> None:
        options = re2.Options()
        options.max_mem = _MEMORY
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(f"(?m){pattern}", options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace").replace("(?m)", "")
            raise PatternError(f"/{pattern[:200]}/ is no RE2 pattern: {reason}") from error
        if self._compiled.programsize > _LARGEST_PROGRAM:
            raise PatternError(f"/{pattern[:200]}/ is too large: use smaller repetitions")

    @property
    def reach(self) -> int:
        """Characters that this pattern may be searched in; a costly pattern sees less."""
        return int(_WORK // max(self._compiled.programsize, 1))

    def search(self, text: str) -> Found | None:
        """Find the first match."""
        match = self._compiled.search(text)
        return None if match is None else Found(match.group(), match.start())


def whole_line(pattern: str) -> Callable[[str], tuple[str, ...] | None]:
    """Make a reader of one line that gives the pattern's groups when it fits from end to end."""
    compiled = re2.compile(pattern)

    def groups(line: str) -> tuple[str, ...] | None:
        match = compiled.fullmatch(line) if len(line) <= _LINE else None
        return None if match is None else tuple(group or "" for group in match.groups())

    return groups
