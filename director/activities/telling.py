"""Signals from an activity's thread to workflows."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from director.domain import names
from director.domain.runs import ProgressSignal

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

    def _send(self, run_id: str, name: str, *args: Any) -> None:
        asyncio.run_coroutine_threadsafe(self._sent(run_id, name, args), self.loop)

    async def _sent(self, run_id: str, name: str, args: tuple[Any, ...]) -> None:
        try:
            await self.client.get_workflow_handle(run_id).signal(name, args=args)
        except RPCError as error:
            log.info("signal was not taken", run_id=run_id, signal=name, why=error.message)
