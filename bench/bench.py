"""One bench: its rounds, its folder, and the Director that its rows share or have anew."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.installation import Installation, installed

T = TypeVar("T")


@dataclass
class Bench:
    """What every row needs to know."""

    folder: Path
    rounds: int
    quick: bool
    """A look whether everything works: a few operations, one Director for all rows."""
    say: Callable[[str], None]
    environ: Mapping[str, str] = field(default_factory=dict)
    """Settings of Director beyond the defaults: its database, say."""
    _shared: ExitStack = field(default_factory=ExitStack)
    _director: Installation | None = None

    def some(self, usual: T, quick: T) -> T:
        """An amount, as the bench is long or quick."""
        return quick if self.quick else usual

    def alternating(self, what: str) -> Iterator[int]:
        """The rounds: in each of them everybody is measured, one after the other."""
        for number in range(self.rounds):
            self.say(f"{what}: round {number + 1} of {self.rounds}")
            yield number

    def scripted(self) -> AbstractContextManager[Installation]:
        """A Director whose sandboxes run nothing; in a quick bench the same for all rows."""
        if not self.quick:
            return installed(self.folder, scripted=True, environ=self.environ)
        if self._director is None:
            fresh = installed(self.folder, scripted=True, environ=self.environ)
            self._director = self._shared.enter_context(fresh)
        return nullcontext(self._director)

    @contextmanager
    def real(self, environ: Mapping[str, str]) -> Iterator[Installation]:
        """A Director as it is, with sandboxes on the Docker engine."""
        settings = {**self.environ, **environ}
        with installed(self.folder, scripted=False, environ=settings) as director:
            yield director

    def close(self) -> None:
        """Stop what rows have shared."""
        self._shared.close()
