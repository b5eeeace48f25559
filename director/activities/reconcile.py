"""Rows and executions brought together again: what a crash between the two left apart."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog
from sqlalchemy.orm import defer
from sqlmodel import col, select
from temporalio import activity
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from director.activities.closed import ClosedRuns
from director.activities.rounds import ORPHAN_PERIOD, Seldom, each, why
from director.domain import names
from director.domain.runs import RunInput, RunState, RunStatus
from director.domain.times import utc_now
from director.store import runs
from director.store.engine import Store
from director.store.sessions import still_open
from director.store.tables import RunRow
from director.temporal.executions import (
    closed_among,
    closed_as,
    is_over,
    open_ones,
    terminate,
)
from director.temporal.launch import start_run

log = structlog.get_logger()

Part = Callable[[], Awaitable[None]]
"""A part of a round; its name stands in the log where it fails."""

_YOUNG = timedelta(seconds=5)
"""Runs that changed this recently are left to whoever works on them."""

_PART_SECONDS = 15
"""What one part of a round may take, so that the others have their turn."""

_SLIM = [
    defer(column)  # type: ignore[arg-type]
    for column in (RunRow.environment, RunRow.context, RunRow.result, RunRow.error)
]
"""What a round does not look at and may be large."""

_NO_ROW = "Director's database has no such run"


@dataclass
class ReconcileActivities:
    """Starts what was not started, re-sends what was wanted, settles what ended unseen, and ends
    what nobody asked for."""

    store: Store
    client: Client
    closed: ClosedRuns
    more: Sequence[Part] = ()
    """Further parts of each round, after the others."""
    orphan_age: timedelta = timedelta(seconds=60)
    _orphans: Seldom = field(default_factory=lambda: Seldom(ORPHAN_PERIOD), init=False)

    @activity.defn(name=names.RECONCILE)
    async def reconcile(self) -> None:
        """One round; a part that fails is logged and keeps none of the others from its work."""
        for part in (self._start_queued, self._send_intents, self._settle_closed, *self.more):
            await self._attempted(part)
        if self._orphans.due():
            await self._attempted(self._end_orphans)

    async def _attempted(self, part: Part) -> None:
        try:
            async with asyncio.timeout(_PART_SECONDS):
                await part()
        except Exception as error:
            name = getattr(part, "__name__", repr(part)).strip("_")
            log.warning("a part of reconcile failed", part=name, why=why(error))

    async def _open_runs(self, *, begun: bool, age: timedelta = _YOUNG) -> list[RunRow]:
        def load() -> list[RunRow]:
            known = col(RunRow.temporal_run_id).is_not(None)
            old = col(RunRow.updated_at) <= utc_now() - age
            with self.store.read() as session:
                wanted = select(RunRow).where(still_open(), old, known if begun else ~known)
                return list(session.exec(wanted.options(*_SLIM)))

        return await asyncio.to_thread(load)

    async def _start_queued(self) -> None:
        await each(await self._open_runs(begun=False), self._start)

    async def _start(self, run: RunRow) -> None:
        def load() -> RunInput:
            with self.store.read() as session:
                return runs.input_of(session, run)

        run_input = await asyncio.to_thread(load)
        temporal_run_id = await start_run(self.client, run_input)
        if temporal_run_id is not None:
            log.info("run started by reconcile", run_id=run.id)
            await asyncio.to_thread(self._note_started, run.id, temporal_run_id)
        else:
            await self._close(run.id)

    def _note_started(self, run_id: str, temporal_run_id: str) -> None:
        with self.store.write() as session:
            runs.note_started(session, run_id, temporal_run_id)

    async def _send_intents(self) -> None:
        await each(await self._open_runs(begun=True), self._send_intent)

    async def _send_intent(self, run: RunRow) -> None:
        try:
            await self._send(run)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            if run.cancel_wanted and await is_over(self.client, run.id):
                await self._close_lost(run.id)

    async def _send(self, run: RunRow) -> None:
        handle = self.client.get_workflow_handle(run.id)
        if run.cancel_wanted:
            await handle.cancel()
        elif run.pause_wanted != (run.status == RunStatus.PAUSED):
            state = await handle.query(names.STATE_QUERY, result_type=RunState)
            if state.paused != run.pause_wanted:
                await handle.signal(names.PAUSE if run.pause_wanted else names.RESUME)

    async def _close_lost(self, run_id: str) -> None:
        """Nothing is there that could take the cancel: the run ends by itself."""
        await asyncio.to_thread(self.closed.close, run_id, WorkflowExecutionStatus.CANCELED)

    async def _settle_closed(self) -> None:
        # young ones too: a run writes its end before its execution closes
        begun = await self._open_runs(begun=True, age=timedelta(0))
        async for found in closed_among(self.client, [run.id for run in begun]):
            await each(found, self._close)

    async def _close(self, run_id: str) -> None:
        """Settle a run whose execution is closed: visibility may be wrong, describe is not."""
        status = await closed_as(self.client, run_id)
        if status is not None:
            await asyncio.to_thread(self.closed.close, run_id, status)

    async def _end_orphans(self) -> None:
        """Terminate executions of runs that the database does not have."""
        async for page in open_ones(self.client, names.RUN_WORKFLOW, self.orphan_age):
            known = await asyncio.to_thread(self._known, [one.id for one in page])
            await each([one for one in page if one.id not in known], self._terminate)

    def _known(self, run_ids: list[str]) -> set[str]:
        with self.store.read() as session:
            return set(session.exec(select(RunRow.id).where(col(RunRow.id).in_(run_ids))))

    async def _terminate(self, execution: WorkflowExecution) -> None:
        if await terminate(self.client, execution, _NO_ROW):
            log.warning("execution terminated", run_id=execution.id, why=_NO_ROW)
