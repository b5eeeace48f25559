"""What the parts of a round of reconcile have in common."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from typing import TypeVar

import structlog

from director.sandbox.runtime import SandboxError

log = structlog.get_logger()

T = TypeVar("T")

ORPHAN_PERIOD = timedelta(seconds=60)
"""How often executions are looked for that the database does not know."""

_AT_ONCE = 8


async def each(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do the work for all, some at once: after an outage there is much, and others wait for the
    round. What fails for one is logged and keeps none of the others from it."""
    free = asyncio.Semaphore(_AT_ONCE)

    async def done(item: T) -> None:
        async with free:
            try:
                await work(item)
            except Exception as error:
                log.warning("reconcile failed for one", id=_id(item), why=why(error))

    await asyncio.gather(*(done(item) for item in items))


def all_tried(ids: Iterable[str], work: Callable[[str], object]) -> None:
    """Do the work for all, one after the other. Raises the last SandboxError after all were
    tried."""
    failed: SandboxError | None = None
    for id in ids:
        try:
            work(id)
        except SandboxError as error:
            failed = error
    if failed is not None:
        raise failed


class Seldom:
    """What is due at once, and then once in a period."""

    def __init__(self, period: timedelta) -> None:
        self._period, self._next = period.total_seconds(), float("-inf")

    def due(self) -> bool:
        """Whether it is to be done now; it counts as done then."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + self._period
        return True


def why(error: Exception) -> str:
    """What an error says, or else its name."""
    return str(error) or type(error).__name__


def _id(item: object) -> str | None:
    if isinstance(item, tuple):
        item = item[0]
    return item if isinstance(item, str) else getattr(item, "id", None)
