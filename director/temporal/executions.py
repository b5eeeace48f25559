"""How the executions of runs and sandboxes stand, as Temporal itself says: visibility may lag
behind."""

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from director.domain.times import rfc3339, utc_now

_RPC_TIMEOUT = timedelta(seconds=10)
_BATCH, _PAGE = 50, 500


async def closed_as(client: Client, run_id: str) -> WorkflowExecutionStatus | None:
    """How the newest execution of a run was closed; None while it is open, and after a reset,
    which closes an execution and opens another. Raises RPCError."""
    handle = client.get_workflow_handle(run_id)
    described = await handle.describe(rpc_timeout=_RPC_TIMEOUT)
    return described.status if described.close_time is not None else None


async def is_over(client: Client, run_id: str) -> bool:
    """Whether a run has no open execution: closed, or unknown to Temporal. Raises RPCError."""
    try:
        return await closed_as(client, run_id) is not None
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return True
        raise


async def closed_among(client: Client, ids: Sequence[str]) -> AsyncIterator[list[str]]:
    """Those of some ids whose execution seems to be closed, by and by; `closed_as` knows."""
    for start in range(0, len(ids), _BATCH):
        some = ", ".join(f"'{id}'" for id in ids[start : start + _BATCH])
        query = f"WorkflowId IN ({some}) AND ExecutionStatus != 'Running'"
        yield sorted({execution.id async for execution in client.list_workflows(query)})


async def open_ones(
    client: Client, workflow_type: str, age: timedelta
) -> AsyncIterator[list[WorkflowExecution]]:
    """The open executions of a type that began so long ago, page by page."""
    begun = rfc3339(utc_now() - age)
    query = f"WorkflowType = '{workflow_type}' AND ExecutionStatus = 'Running'"
    pages = client.list_workflows(f"{query} AND StartTime < '{begun}'", page_size=_PAGE)
    while True:
        await pages.fetch_next_page()
        yield list(pages.current_page or ())
        if not pages.next_page_token:
            return


async def terminate(client: Client, execution: WorkflowExecution, reason: str) -> bool:
    """Terminate an execution; False where it has ended meanwhile. Raises RPCError."""
    handle = client.get_workflow_handle(execution.id, run_id=execution.run_id)
    try:
        await handle.terminate(reason=reason)
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return False
        raise
    return True
