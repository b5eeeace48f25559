"""Rows and executions brought together again: what a crash between the two left apart."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlmodel import col, select
from temporalio import activity
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from director.activities.sandboxes import Sandboxes
from director.domain import names
from director.domain.failures import FailureCode
from director.domain.runs import RunInput, RunState, RunStatus, SettleInput
from director.domain.times import utc_now
from director.store import runs, settling
from director.store.engine import Store
from director.store.sessions import still_open
from director.store.tables import RunRow
from director.temporal.launch import start_run

log = structlog.get_logger()

_YOUNG = timedelta(seconds=5)
"""Runs that changed this recently are left to whoever works on them."""

_BATCH = 50

_ENDS = {
    WorkflowExecutionStatus.CANCELED: (RunStatus.CANCELLED, FailureCode.CANCELLED),
    WorkflowExecutionStatus.TERMINATED: (RunStatus.CANCELLED, FailureCode.TERMINATED),
}


@dataclass(frozen=True)
class ReconcileActivities:
    """Starts what was not started, re-sends what was wanted, settles what ended unseen."""

    store: Store
    client: Client
    sandboxes: Sandboxes

    @activity.defn(name=names.RECONCILE)
    async def reconcile(self) -> None:
        """One round over the open runs."""
        rows = await asyncio.to_thread(self._open_runs)
        for run in rows:
            if run.temporal_run_id is None:
                await self._start(run)
        begun = [run for run in rows if run.temporal_run_id is not None]
        for run in begun:
            await self._resend(run)
        for start in range(0, len(begun), _BATCH):
            await self._settle_closed(begun[start : start + _BATCH])

    def _open_runs(self) -> list[RunRow]:
        with self.store.read() as session:
            old = col(RunRow.updated_at) < utc_now() - _YOUNG
            return list(session.exec(select(RunRow).where(still_open(), old)))

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
            await self._settle_closed([run])

    def _note_started(self, run_id: str, temporal_run_id: str) -> None:
        with self.store.write() as session:
            runs.note_started(session, run_id, temporal_run_id)

    async def _resend(self, run: RunRow) -> None:
        try:
            await self._resent(run)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                log.warning("intent not sent again", run_id=run.id, why=error.message)

    async def _resent(self, run: RunRow) -> None:
        handle = self.client.get_workflow_handle(run.id)
        if run.cancel_wanted:
            await handle.cancel()
        elif run.pause_wanted != (run.status == RunStatus.PAUSED):
            state = await handle.query(names.STATE_QUERY, result_type=RunState)
            if state.paused != run.pause_wanted:
                await handle.signal(names.PAUSE if run.pause_wanted else names.RESUME)

    async def _settle_closed(self, rows: list[RunRow]) -> None:
        ids = ", ".join(f"'{run.id}'" for run in rows)
        query = f"WorkflowId IN ({ids}) AND ExecutionStatus != 'Running'"
        async for execution in self.client.list_workflows(query):
            described = await self.client.get_workflow_handle(execution.id).describe()
            if described.status not in (None, WorkflowExecutionStatus.RUNNING):
                await asyncio.to_thread(self._settle, execution.id, described.status)

    def _settle(self, run_id: str, closed: WorkflowExecutionStatus) -> None:
        with self.store.read() as session:
            run = session.get_one(RunRow, run_id)
        if RunStatus(run.status).ended or run.host_id not in (None, self.sandboxes.host_id):
            return
        status, code = _ENDS.get(closed, (RunStatus.FAILED, FailureCode.INTERNAL_ERROR))
        with self.store.write() as session:
            runs.stop(session, run_id)
        self.sandboxes.remove(run_id)
        with self.store.write() as session:
            settling.settle(session, SettleInput(run_id=run_id, status=status, code=code))
        log.warning("run settled, its execution had ended", run_id=run_id, status=status)
