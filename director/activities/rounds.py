"""What the parts of a round of reconcile have in common."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")

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


def why(error: Exception) -> str:
    """What an error says, or else its name."""
    return str(error) or type(error).__name__


def _id(item: object) -> str | None:
    if isinstance(item, tuple):
        item = item[0]
    return item if isinstance(item, str) else getattr(item, "id", None)
