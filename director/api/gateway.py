"""The only way from the API to Temporal."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import structlog
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    SignalWorkflowExecutionRequest,
)
from temporalio.client import ActivityFailureError, Client
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from director.api.envelope import request_id
from director.api.refusals import refusal
from director.domain import names
from director.domain.base import Shape
from director.domain.errors import DirectorError, HostAwayError, UnavailableError
from director.domain.lifetimes import (
    CaptureFiles,
    FilesCaptured,
    FilesWritten,
    Metrics,
    SandboxInput,
    SteerInput,
    WriteFiles,
)
from director.domain.networks import NetworkInput, NetworkOutcome
from director.domain.runs import ProgressSignal, RunInput, RunState
from director.domain.security import EnforceInput, EnforceOutcome
from director.store.tables import ExecutionRow
from director.temporal.launch import start_run
from director.temporal.sandboxes import ask, start_execution, start_sandbox, start_steering

log = structlog.get_logger()

_PATIENCE = 2.0
_RPC_TIMEOUT = timedelta(seconds=_PATIENCE)
_FILE_SECONDS = 120.0
_NETWORK_SECONDS = 15.0
_ENFORCE_SECONDS = 30.0

T = TypeVar("T")

_AT_ONCE = 16
"""Calls on their way at the same time."""


class Gateway:
    """Starts and steers runs. What was written as an intent may fail here: reconcile sends it
    again; what exists nowhere else raises UnavailableError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def start(self, run: RunInput) -> None:
        """Try for two seconds to start a run that is written as queued."""
        call = start_run(self._client, run, request_id=request_id.get(), timeout=_PATIENCE)
        await self._sent("start", run.run_id, call)

    async def cancel(self, run_id: str) -> None:
        """Ask for the cancellation of a run."""
        handle = self._client.get_workflow_handle(run_id)
        await self._sent("cancel", run_id, handle.cancel(rpc_timeout=_RPC_TIMEOUT))

    async def pause(self, run_id: str) -> None:
        """Ask a run to hold before its next step."""
        await self._sent("pause", run_id, self._signal(run_id, names.PAUSE))

    async def resume(self, run_id: str) -> None:
        """Ask a run to go on."""
        await self._sent("resume", run_id, self._signal(run_id, names.RESUME))

    async def approve(self, run_id: str) -> None:
        """Tell a run that the approval which it waits for is decided."""
        await self._sent("approve", run_id, self._signal(run_id, names.APPROVE))

    async def cancel_all(self, run_ids: list[str]) -> None:
        """Ask for the cancellation of runs, of as many as Temporal takes in two seconds."""
        await self._all("cancel", run_ids, self.cancel)

    async def granted(self, run_ids: list[str]) -> None:
        """Wake runs that have got a slot, as many as Temporal takes in two seconds."""

        async def wake(run_id: str) -> None:
            await self._sent("granted", run_id, self._signal(run_id, names.GRANTED))

        await self._all("granted", run_ids, wake)

    async def signal(
        self,
        run_id: str,
        name: str,
        progress: ProgressSignal | None = None,
        request_id: str | None = None,
    ) -> None:
        """Send a signal: an agent's progress, or a name alone, whose data stays in the event log.

        Sent again with the same request id it is taken once. Raises UnavailableError."""
        args = [] if progress is None else [progress]
        call = self._signal(run_id, name, *args, request_id=request_id)
        if not await self._sent("signal", run_id, call):
            raise UnavailableError("Temporal did not take the signal; send it again")

    async def start_sandbox(self, sandbox: SandboxInput) -> None:
        """Try for two seconds to start the workflow of a sandbox that is written."""
        call = start_sandbox(self._client, sandbox, request_id=request_id.get(), timeout=_PATIENCE)
        await self._sent("start", sandbox.sandbox_id, call)

    async def end_sandbox(self, sandbox_id: str) -> None:
        """Tell a sandbox that it is deleted."""
        await self._sent("end", sandbox_id, self._signal(sandbox_id, names.END))

    async def end_sandboxes(self, sandbox_ids: list[str]) -> None:
        """The same for several, as many as Temporal takes in two seconds."""
        await self._all("end", sandbox_ids, self.end_sandbox)

    async def start_execution(self, row: ExecutionRow, host_id: str) -> None:
        """Try for two seconds to start a command that is written."""
        call = start_execution(
            self._client, row.id, row.timeout_ms, host_id, row.owner_id, timeout=_PATIENCE
        )
        await self._sent("execute", row.id, call)

    async def steer(self, sandbox_id: str, intent: int, host_id: str) -> None:
        """Ask a sandbox's host for what is wanted of it: stop, pause or resume."""
        call = start_steering(self._client, sandbox_id, intent, host_id, timeout=_PATIENCE)
        await self._sent("steer", sandbox_id, call)

    async def measure(self, sandbox_id: str, host_id: str, nonce: str) -> Metrics:
        """Have a sandbox measured by its host. Raises UnavailableError."""
        asked = SteerInput(sandbox_id=sandbox_id)
        queue, id = names.control_queue(host_id), f"{sandbox_id}-measure-{nonce}"
        return await self._asked(names.MEASURE_SANDBOX, asked, id, queue, Metrics)

    async def enforce(self, asked: EnforceInput, host_id: str, nonce: str) -> EnforceOutcome:
        """Have a profile enforced in a sandbox by its host. Raises HostAwayError."""
        queue, id = names.control_queue(host_id), f"{asked.sandbox_id}-enforce-{nonce}"
        name, seconds = names.ENFORCE_POLICY, _ENFORCE_SECONDS
        return await self._asked(name, asked, id, queue, EnforceOutcome, seconds)

    async def write_files(self, asked: WriteFiles, host_id: str, nonce: str) -> FilesWritten:
        """Have files put into a sandbox. Raises UnavailableError, and what its host says."""
        queue, id = names.execution_queue(host_id), f"{asked.sandbox_id}-write-{nonce}"
        return await self._asked(names.WRITE_FILES, asked, id, queue, FilesWritten, _FILE_SECONDS)

    async def capture_files(self, asked: CaptureFiles, host_id: str, nonce: str) -> FilesCaptured:
        """Have a workspace taken into blobs. Raises UnavailableError, and what its host says."""
        queue, id = names.execution_queue(host_id), f"{asked.sandbox_id}-capture-{nonce}"
        name, seconds = names.CAPTURE_FILES, _FILE_SECONDS
        return await self._asked(name, asked, id, queue, FilesCaptured, seconds)

    async def apply_network(self, host_id: str, network_id: str) -> None:
        """Have a network's host enforce what was written of it. Raises HostAwayError where it does
        not answer in time, and what keeps the host from it otherwise."""
        await self._network(names.APPLY_NETWORK, NetworkInput(network_id=network_id), host_id)

    async def remove_network(self, host_id: str, network_id: str, *, force: bool) -> NetworkOutcome:
        """Have a network's host remove it, unless sandboxes are in it. Raises as the above."""
        asked = NetworkInput(network_id=network_id, force=force)
        return await self._network(names.REMOVE_NETWORK, asked, host_id)

    async def drop_networks(self, leaving: Mapping[str, str]) -> None:
        """Ask hosts to take away what is written to be gone, each by one of its networks, as many
        as do it in two seconds: each host looks by itself every few seconds."""

        async def drop(host_id: str) -> None:
            with suppress(DirectorError):
                await self.apply_network(host_id, leaving[host_id])

        await self._all("drop networks", [*leaving], drop)

    async def _network(self, name: str, asked: NetworkInput, host_id: str) -> NetworkOutcome:
        queue, id = names.control_queue(host_id), f"{asked.network_id}-{name}-{uuid4().hex}"
        return await self._asked(name, asked, id, queue, NetworkOutcome, _NETWORK_SECONDS)

    async def _asked(
        self, name: str, asked: Shape, id: str, queue: str, kind: type[T], seconds: float = 10.0
    ) -> T:
        try:
            async with asyncio.timeout(seconds):
                return await ask(
                    self._client, name, asked, id=id, queue=queue, kind=kind, timeout=seconds
                )
        except ActivityFailureError as error:
            cause = error.cause
            if isinstance(cause, ApplicationError) and (told := _refusal(cause)) is not None:
                raise told from error
            log.warning("a host could not do it", call=name, id=id, why=str(cause))
        except (TimeoutError, RPCError, RuntimeError, OSError) as error:
            log.warning("a host did not answer", call=name, id=id, why=str(error))
        raise HostAwayError("the host does not answer: is its worker running? Try it again")

    async def state(self, run_id: str) -> RunState:
        """Ask the workflow itself. Raises UnavailableError where no worker answers."""
        handle = self._client.get_workflow_handle(run_id)
        try:
            state: RunState = await handle.query(
                names.STATE_QUERY, result_type=RunState, rpc_timeout=timedelta(seconds=10)
            )
        except RPCError as error:
            raise UnavailableError(f"Temporal could not ask the run: {error.message}") from error
        return state

    async def answers(self) -> bool:
        """Whether Temporal answers."""
        try:
            return await self._client.service_client.check_health(timeout=_RPC_TIMEOUT)
        except (RPCError, RuntimeError):
            return False

    async def has_worker(self) -> bool:
        """Whether at least one worker polls for runs."""
        request = DescribeTaskQueueRequest(
            namespace=self._client.namespace,
            task_queue=TaskQueue(name=names.SANDBOX_QUEUE),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
        )
        try:
            response = await self._client.workflow_service.describe_task_queue(
                request, timeout=_RPC_TIMEOUT
            )
        except (RPCError, RuntimeError):
            return False
        return bool(response.pollers)

    async def _all(self, what: str, ids: list[str], tell: Callable[[str], Awaitable[None]]) -> None:
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(id: str) -> None:
            async with free:
                await tell(id)

        try:
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*(one(id) for id in ids))
        except TimeoutError:
            log.warning("not all were told in time", call=what, count=len(ids))

    async def _signal(
        self, run_id: str, name: str, *args: Any, request_id: str | None = None
    ) -> None:
        """Signal with a request id of our own, which the SDK's handle cannot do."""
        request = SignalWorkflowExecutionRequest(
            namespace=self._client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run_id),
            signal_name=name,
            identity=self._client.identity,
            request_id=request_id or str(uuid4()),
        )
        request.input.payloads.extend(await self._client.data_converter.encode(args))
        service = self._client.workflow_service
        await service.signal_workflow_execution(request, retry=True, timeout=_RPC_TIMEOUT)

    async def _sent(self, what: str, run_id: str, call: Awaitable[Any]) -> bool:
        """Try for two seconds in all: the SDK tries again where nobody answers, for ten."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await call
        except TimeoutError:
            log.warning("Temporal did not answer in time", call=what, run_id=run_id)
            return False
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                log.warning("Temporal did not answer", call=what, run_id=run_id, error=str(error))
            return False
        except (RuntimeError, OSError) as error:
            log.warning("Temporal is not reachable", call=what, run_id=run_id, error=str(error))
            return False
        return True


def _refusal(cause: ApplicationError) -> DirectorError | None:
    return refusal(cause.type, cause.message, cause.details[0] if cause.details else {})
