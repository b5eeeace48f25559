"""Starting what belongs to sandboxes that people make: their workflows, and the activities that
stand alone. The one way for the API, for workers and for reconcile."""

from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import ActivityExecutionStatus, Client
from temporalio.common import (
    ActivityIDConflictPolicy,
    ActivityIDReusePolicy,
    Priority,
    RetryPolicy,
)
from temporalio.exceptions import ActivityAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from director.domain import names
from director.domain.base import Shape
from director.domain.lifetimes import ExecutionInput, SandboxInput, SandboxStatus, SteerInput
from director.domain.times import from_millis
from director.temporal.launch import start_once

T = TypeVar("T")

_HEARTBEAT_TIMEOUT = timedelta(seconds=3)
_EXECUTE_SLACK = timedelta(minutes=5)
"""Beyond a command's own time-out: its TERM and KILL, and what its worker's death costs."""

_STEER_TIMEOUT = timedelta(minutes=2)
_ASK_TIMEOUT = timedelta(minutes=5)

_WITHOUT_END = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
)


async def start_sandbox(
    client: Client, sandbox: SandboxInput, *, request_id: str | None = None, timeout: float = 10
) -> str | None:
    """Start the workflow of a sandbox, or find the one that is on; gives Temporal's run id.

    None means that it has ended already; nothing is started again."""
    return await start_once(
        client,
        names.SANDBOX_WORKFLOW,
        sandbox,
        id=sandbox.sandbox_id,
        search_attributes={
            names.SEARCH_SESSION: sandbox.session_id,
            names.SEARCH_KIND: "sandbox",
            names.SEARCH_STATE: SandboxStatus.CREATING,
        },
        summary="the life of a sandbox",
        details=f"sandbox `{sandbox.sandbox_id}`",
        priority=Priority(priority_key=sandbox.priority, fairness_key=sandbox.owner_id),
        request_id=request_id,
        timeout=timeout,
    )


async def start_execution(
    client: Client,
    execution_id: str,
    timeout_ms: int,
    host_id: str,
    owner_id: str,
    timeout: float = 10,
) -> bool:
    """Start the activity of a command in a sandbox, or find the one that is on; False where it has
    ended already."""
    return await _started(
        client,
        names.EXECUTE,
        ExecutionInput(execution_id=execution_id),
        id=execution_id,
        task_queue=names.execution_queue(host_id),
        start_to_close_timeout=from_millis(timeout_ms) + _EXECUTE_SLACK,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT,
        summary="a command in a sandbox",
        priority=Priority(fairness_key=owner_id),
        rpc_timeout=timedelta(seconds=timeout),
    )


async def start_ending(client: Client, execution_id: str, host_id: str) -> bool:
    """Start killing a command whose own activity was ended in Temporal, again where that has ended
    before."""
    return await _again(
        client,
        names.END_EXECUTION,
        ExecutionInput(execution_id=execution_id),
        host_id,
        id=f"{execution_id}-end",
        summary="kill a command that was ended in Temporal",
    )


async def start_steering(
    client: Client, sandbox_id: str, intent: int, host_id: str, timeout: float = 10
) -> bool:
    """Start bringing about what is wanted of a sandbox, again where that has ended before."""
    return await _again(
        client,
        names.STEER_SANDBOX,
        SteerInput(sandbox_id=sandbox_id),
        host_id,
        id=f"{sandbox_id}-steer-{intent}",
        summary="stop, pause or resume a sandbox",
        rpc_timeout=timedelta(seconds=timeout),
    )


async def ask(
    client: Client, name: str, asked: Shape, *, id: str, queue: str, kind: type[T], timeout: float
) -> T:
    """Have something done on a sandbox's host and give what came of it, at the latest after so
    many seconds. Raises ActivityFailureError, RPCError and TimeoutError."""
    handle: Any = await client.start_activity(
        name,
        asked,
        id=id,
        task_queue=queue,
        result_type=kind,
        schedule_to_close_timeout=min(_ASK_TIMEOUT, timedelta(seconds=timeout)),
        heartbeat_timeout=_HEARTBEAT_TIMEOUT,
        retry_policy=_WITHOUT_END,
        id_conflict_policy=ActivityIDConflictPolicy.USE_EXISTING,
    )
    result: T = await handle.result()
    return result


async def activity_is_over(client: Client, id: str) -> bool:
    """Whether an activity that stands alone has ended, or is unknown. Raises RPCError."""
    try:
        described = await client.get_activity_handle(id).describe()
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return True
        raise
    return described.status is not ActivityExecutionStatus.RUNNING


async def _again(client: Client, name: str, asked: Shape, host_id: str, **options: Any) -> bool:
    """Start what a host brings about at once, or again, whatever it has to do else."""
    return await _started(
        client,
        name,
        asked,
        task_queue=names.control_queue(host_id),
        start_to_close_timeout=_STEER_TIMEOUT,
        heartbeat_timeout=_HEARTBEAT_TIMEOUT,
        id_reuse_policy=ActivityIDReusePolicy.ALLOW_DUPLICATE,
        **options,
    )


async def _started(client: Client, name: str, asked: Shape, **options: Any) -> bool:
    try:
        await client.start_activity(
            name,
            asked,
            retry_policy=_WITHOUT_END,
            id_conflict_policy=ActivityIDConflictPolicy.USE_EXISTING,
            **{"id_reuse_policy": ActivityIDReusePolicy.REJECT_DUPLICATE, **options},
        )
    except ActivityAlreadyStartedError:
        return False
    return True
