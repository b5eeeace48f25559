"""How the executions of runs stand, as Temporal itself says: visibility may lag behind."""

from datetime import timedelta

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

_RPC_TIMEOUT = timedelta(seconds=10)


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
