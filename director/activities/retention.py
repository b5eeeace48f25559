"""What is kept for a time only goes when it is over: events, outputs, answers to known requests,
and what was in that which is deleted."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlmodel import Session

from director.domain.times import utc_now
from director.store import (
    context,
    enforcement,
    events,
    idempotency,
    messages,
    outputs,
    security_events,
)
from director.store.engine import Store

log = structlog.get_logger()

Drop = Callable[[Session], int]
"""Drops a batch; gives 0 where there was nothing to drop."""

_BATCH = 1000
_ROUND_SECONDS = 1.0


@dataclass(frozen=True)
class Kept:
    """How long what is told and what is written stays; None: for ever."""

    events: timedelta | None = None
    outputs: timedelta | None = None
    """From the end of their run."""


@dataclass
class Retention:
    """A part of each round of reconcile, so that one worker does it at a time, whoever dies.

    It drops small batches and rests as long as each took, so that writers have their turn; what
    is left after a second is left to the next round."""

    store: Store
    kept: Kept
    period: timedelta = timedelta(minutes=5)
    """Between two rounds that look for something old."""
    _next_at: float = field(default=float("-inf"), init=False)

    async def drop_old(self) -> None:
        """Drop what is too old, a second's worth of it."""
        if time.monotonic() < self._next_at:
            return
        if await asyncio.to_thread(self._drop_for, _ROUND_SECONDS):
            self._next_at = time.monotonic() + self.period.total_seconds()

    def _drop_for(self, seconds: float) -> bool:
        """Whether nothing is left that is too old."""
        until = time.monotonic() + seconds
        for name, drop in self._drops().items():
            dropped = 0
            while time.monotonic() < until and (count := self._batch(drop)):
                dropped += count
            if dropped:
                log.info("what was kept long enough was dropped", kind=name, count=dropped)
        return time.monotonic() < until

    def _batch(self, drop: Drop) -> int:
        begun = time.monotonic()
        with self.store.write() as session:
            count = drop(session)
        if count:
            time.sleep(time.monotonic() - begun)
        return count

    def _drops(self) -> dict[str, Drop]:
        drops: dict[str, Drop] = {
            "idempotency": lambda s: idempotency.purge(s, _BATCH),
            "enforcements": lambda s: enforcement.purge(s, _BATCH),
            "items of deleted windows": lambda s: context.purge(s, _BATCH),
            "messages of deleted sessions": lambda s: messages.purge(s, _BATCH),
        }
        now, kept = utc_now(), self.kept
        if (age := kept.events) is not None:
            until = now - age
            drops["events"] = lambda s: events.purge(s, until, _BATCH)
            drops["security events"] = lambda s: security_events.purge(s, until, _BATCH)
        if (age := kept.outputs) is not None:
            before = now - age
            drops["outputs"] = lambda s: outputs.drop(s, before, _BATCH)
        return drops
