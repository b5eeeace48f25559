"""The Docker engine and the image with which Director and those beside it are measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.engine_daemons import daemons
from bench.processes import ROOT
from director.machine.apt import SetUpError
from director.machine.engine import ensure_engine, ensure_supervisor, stop_engine
from director.machine.image import ensure_image

HOME = ROOT / ".director"


class NotHereError(Exception):
    """This machine cannot measure that; the message says why."""


@dataclass(frozen=True)
class Engine:
    """What is measured with."""

    image: str

    def pids(self) -> list[int]:
        """Its daemons."""
        return daemons()


@contextmanager
def engine(say: Callable[[str], None]) -> Iterator[Engine]:
    """An engine that answers, started if need be and stopped again then. Raises NotHereError."""
    try:
        found = ensure_engine(HOME, say)
        ensure_supervisor(HOME, say)
        image = ensure_image(found.client, say)
    except SetUpError as error:
        raise NotHereError(str(error)) from error
    try:
        yield Engine(image)
    finally:
        found.client.close()
        if found.started:
            stop_engine(HOME, say)
