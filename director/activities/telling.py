"""Signals from an activity's thread to workflows."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from director.domain import names
from director.domain.lifetimes import SandboxInput
from director.domain.runs import ProgressSignal
from director.store.tables import ExecutionRow
from director.temporal.sandboxes import start_execution, start_sandbox

log = structlog.get_logger()


@dataclass(frozen=True)
class Signals:
    """Sends through the worker's client, and neither waits nor fails. One that is lost is only
    logged: no outcome depends on `progress`, and reconcile sends `granted` again."""

    client: Client
    loop: asyncio.AbstractEventLoop

    def progress(self, run_id: str, signal: ProgressSignal) -> None:
        """Tell a run how far a step is."""
        self._send(run_id, names.PROGRESS, signal)

    def granted(self, run_ids: Iterable[str]) -> None:
        """Tell runs that they have what they waited for in a line."""
        for run_id in run_ids:
            self._send(run_id, names.GRANTED)

    def decided(self, run_ids: Iterable[str]) -> None:
        """Tell runs that the approval which they wait for is decided."""
        for run_id in run_ids:
            self._send(run_id, names.APPROVE)

    def execute(self, rows: Iterable[ExecutionRow], host_id: str) -> None:
        """Start commands that wait in a sandbox; reconcile starts those that are lost here."""
        for row in rows:
            begun = self._begun(row, host_id)
            asyncio.run_coroutine_threadsafe(begun, self.loop)

    def begin(self, sandbox: SandboxInput) -> None:
        """Start the workflow of a sandbox; reconcile starts those that are lost here."""
        asyncio.run_coroutine_threadsafe(self._carried(sandbox), self.loop)

    async def _carried(self, sandbox: SandboxInput) -> None:
        try:
            await start_sandbox(self.client, sandbox)
        except RPCError as error:
            log.warning("a sandbox was not begun", sandbox_id=sandbox.sandbox_id, why=error.message)

    async def _begun(self, row: ExecutionRow, host_id: str) -> None:
        try:
            await start_execution(self.client, row.id, row.timeout_ms, host_id, row.owner_id)
        except RPCError as error:
            log.warning("a command was not started", execution_id=row.id, why=error.message)

    def _send(self, run_id: str, name: str, *args: Any) -> None:
        asyncio.run_coroutine_threadsafe(self._sent(run_id, name, args), self.loop)

    async def _sent(self, run_id: str, name: str, args: tuple[Any, ...]) -> None:
        try:
            await self.client.get_workflow_handle(run_id).signal(name, args=args)
        except RPCError as error:
            log.info("signal was not taken", run_id=run_id, signal=name, why=error.message)
