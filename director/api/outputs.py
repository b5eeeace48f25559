"""Giving out what a step wrote: all of it, or as it comes."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from sqlmodel import Session

from director.api.hub import Hub
from director.blobs.store import Blobs
from director.domain.runs import RunStatus
from director.store import outputs
from director.store.engine import Store
from director.store.tables import OutputRow, RunRow, StepRow

_LOOK_SECONDS = 1.0


class OutputReader:
    """Reads the recorded pieces of one attempt in the order in which they were recorded."""

    def __init__(
        self,
        store: Store,
        blobs: Blobs,
        hub: Hub,
        step: StepRow,
        stream: str,
        attempt: int | None,
    ) -> None:
        self._store, self._blobs, self._hub, self._step = store, blobs, hub, step
        self._stream = None if stream == "both" else cast("outputs.Stream", stream)
        self._last = 0
        self.attempt = attempt or max(step.attempt, 1)

    async def whole(self) -> AsyncIterator[bytes]:
        """Everything that is recorded by now."""
        while rows := await self._next():
            for row in rows:
                yield await asyncio.to_thread(self._blobs.get, row.hash)

    async def follow(self) -> AsyncIterator[bytes]:
        """Everything, and what comes until the attempt has ended."""
        while True:
            mark = self._hub.mark()
            ended = await self._store.fetch(self._ended)
            async for content in self.whole():
                yield content
            if ended:
                return
            await self._hub.changed(mark, _LOOK_SECONDS)

    async def _next(self) -> list[OutputRow]:
        of = (self._step.run_id, self._step.index, self.attempt)
        rows = await self._store.fetch(
            lambda s: outputs.pieces(s, *of, self._stream, after=self._last)
        )
        if rows:
            self._last = rows[-1].id or self._last
        return rows

    def _ended(self, session: Session) -> bool:
        row = session.get_one(StepRow, (self._step.run_id, self._step.index))
        run = session.get_one(RunRow, self._step.run_id)
        if row.attempt == self.attempt and row.ended_at is not None:
            return True
        return row.attempt > self.attempt or RunStatus(run.status).ended
