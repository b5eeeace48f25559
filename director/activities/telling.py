"""Signals from an activity's thread to its workflow."""

import asyncio

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from director.activities.pulse import Tell
from director.domain import names
from director.domain.runs import ProgressSignal

log = structlog.get_logger()


def teller(client: Client, loop: asyncio.AbstractEventLoop) -> Tell:
    """A `Tell` that sends through the worker's client; a signal that is lost is only logged,
    since the outcome of a step never depends on one."""

    async def send(run_id: str, signal: ProgressSignal) -> None:
        try:
            await client.get_workflow_handle(run_id).signal(names.PROGRESS, signal)
        except RPCError as error:
            log.info("progress was not taken", run_id=run_id, why=error.message)

    def tell(run_id: str, signal: ProgressSignal) -> None:
        asyncio.run_coroutine_threadsafe(send(run_id, signal), loop)

    return tell
