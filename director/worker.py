"""The worker's root: from settings to Temporal Workers that serve runs on this host."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from typing import TypeVar

import docker
import structlog
from docker.errors import DockerException
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError
from temporalio.worker import Interceptor, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from director.activities.checkpoints import Checkpoints
from director.activities.closed import ClosedRuns
from director.activities.commands import Commands
from director.activities.executes import Executes
from director.activities.hosts import HostKeeper, Periods
from director.activities.reconcile import ReconcileActivities
from director.activities.runs import RunActivities
from director.activities.sandboxes import Sandboxes
from director.activities.steps import StepActivities
from director.activities.telling import Signals
from director.activities.tending import Tending
from director.activities.verifies import Verifies
from director.blobs.store import LocalBlobs
from director.domain import names
from director.domain.hosts import Capacity
from director.host import host_id, installation_id
from director.logs import set_up_logs
from director.machine.image import aliases, ensure_image
from director.sandbox.docker import DockerRuntime
from director.sandbox.runtime import SandboxRuntime
from director.settings import Settings, SettingsError, private_home, read_settings
from director.store.engine import SchemaError, Store
from director.temporal.client import connect, prepare_namespace
from director.temporal.launch import TASK_TIMEOUT
from director.workflows.policies import FAULTS
from director.workflows.registry import WORKFLOWS

T = TypeVar("T")

log = structlog.get_logger()

_GRACE = timedelta(seconds=30)
_CONTROL_SLOTS = 8
_RECONCILE_LOOK_SECONDS = 10
_ENGINE_SECONDS = 120


class WorkerHost:
    """The Temporal Workers of one host, built from their parts."""

    def __init__(
        self,
        client: Client,
        store: Store,
        blobs: LocalBlobs,
        runtime: SandboxRuntime,
        *,
        host_id: str,
        image: str,
        places: int,
        capacity: Capacity | None = None,
        periods: Periods | None = None,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._client, self._host_id, self._places = client, host_id, places
        self._interceptors = interceptors
        sandboxes = Sandboxes(store, blobs, runtime, host_id, image)
        commands, signals = Commands(sandboxes), Signals(client, asyncio.get_running_loop())
        self._steps = StepActivities(
            sandboxes, Executes(commands), Verifies(commands), Checkpoints(sandboxes), signals
        )
        self._runs = RunActivities(sandboxes, signals)
        closed, tending = ClosedRuns(sandboxes, signals), Tending(store, signals)
        self._reconcile = ReconcileActivities(store, client, closed, tending.parts())
        self._keeper = HostKeeper(
            client, sandboxes, closed, capacity or Capacity(), periods or Periods()
        )

    async def run(self, stopped: asyncio.Event) -> None:
        """Serve until stopped, then let every activity go on elsewhere or later."""
        threads = ThreadPoolExecutor(2 * self._places + 2 * _CONTROL_SLOTS)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._keeper.keeping(stopped))
            workers = self._workers(threads) if not stopped.is_set() else []
            for worker in workers:
                await stack.enter_async_context(worker)
            log.info("worker serves", host=self._host_id, places=self._places)
            while not stopped.is_set():
                await self._ensure_reconcile()
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopped.wait(), _RECONCILE_LOOK_SECONDS)
            log.info("worker stops; commands in sandboxes go on")
            # all at once: what one of them still serves must not keep the others
            await asyncio.gather(*(worker.shutdown() for worker in workers))
        threads.shutdown()

    def _workers(self, threads: ThreadPoolExecutor) -> list[Worker]:
        steps, settle = [self._steps.run_step], [self._runs.settle]
        notes = [
            self._runs.record_status,
            self._runs.record_progress,
            self._runs.place,
            self._reconcile.reconcile,
        ]
        return [
            self._worker(names.WORKFLOW_QUEUE, threads, [*settle, *notes], _CONTROL_SLOTS, True),
            self._worker(names.SANDBOX_QUEUE, threads, steps, self._places),
            self._worker(names.host_queue(self._host_id), threads, steps, self._places),
            self._worker(names.control_queue(self._host_id), threads, settle, _CONTROL_SLOTS),
        ]

    def _worker(
        self,
        queue: str,
        threads: ThreadPoolExecutor,
        activities: list,  # type: ignore[type-arg]
        slots: int,
        workflows: bool = False,
    ) -> Worker:
        return Worker(
            self._client,
            task_queue=queue,
            activities=activities,
            workflows=WORKFLOWS if workflows else [],
            activity_executor=threads,
            max_concurrent_activities=slots,
            workflow_runner=workflow_runner(),
            workflow_failure_exception_types=FAULTS,
            sticky_queue_schedule_to_start_timeout=timedelta(seconds=1),
            max_heartbeat_throttle_interval=timedelta(seconds=1),
            graceful_shutdown_timeout=_GRACE,
            interceptors=self._interceptors,
        )

    async def _ensure_reconcile(self) -> None:
        """Somebody may have ended it in the Temporal UI."""
        try:
            await self._client.start_workflow(
                names.RECONCILE_WORKFLOW,
                id=names.RECONCILE_ID,
                task_queue=names.WORKFLOW_QUEUE,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                task_timeout=TASK_TIMEOUT,
                static_summary="keeps rows and executions together",
            )
        except RPCError as error:
            log.warning("reconcile could not be ensured", why=error.message)


def workflow_runner() -> SandboxedWorkflowRunner:
    """Workflow code in Temporal's sandbox, which guards that it is deterministic; our own modules
    are loaded once, not for every run."""
    passed = SandboxRestrictions.default.with_passthrough_modules("director")
    return SandboxedWorkflowRunner(restrictions=passed)


async def serve(settings: Settings, interceptors: Sequence[Interceptor] = ()) -> None:
    """Connect to everything, serve until SIGTERM or SIGINT. Interceptors see each activity."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    address = settings.temporal_address
    client = await _until(stopped, lambda: _connected(settings), "Temporal is not ready", address)
    engine = await _until(stopped, _engine, "the Docker engine is not ready")
    if client is None or engine is None:
        return
    store = Store(settings.database_url)
    store.create_tables()
    image = settings.sandbox_image or ensure_image(engine, log.info)
    runtime = DockerRuntime(
        engine,
        settings.home,
        installation_id(settings.home),
        aliases(image, settings.image_aliases),
    )
    host = WorkerHost(
        client,
        store,
        LocalBlobs(settings.home / "blobs"),
        runtime,
        host_id=host_id(settings.home, engine),
        image=image,
        places=settings.places,
        capacity=Capacity(places=settings.sandboxes, memory_mib=settings.memory_mib),
        interceptors=interceptors,
    )
    await host.run(stopped)
    store.close()


async def _until(
    stopped: asyncio.Event, attempt: Callable[[], Awaitable[T]], trouble: str, address: str = ""
) -> T | None:
    """Try as often as it takes; None where we are to stop before."""
    while not stopped.is_set():
        try:
            return await attempt()
        except (RPCError, RuntimeError, OSError, DockerException) as error:
            log.warning(trouble, why=str(error), **({"address": address} if address else {}))
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), 1)
    return None


async def _connected(settings: Settings) -> Client:
    client = await connect(
        settings.temporal_address,
        settings.temporal_namespace,
        tls=settings.temporal_tls,
        api_key=settings.temporal_api_key,
        lazy=False,
    )
    await prepare_namespace(client)
    return client


async def _engine() -> docker.DockerClient:
    return await asyncio.to_thread(docker.from_env, timeout=_ENGINE_SECONDS)


def main() -> None:
    """Run the worker; the process ends at once after its work, since the interpreter may crash
    when it takes down the SDK's threads."""
    try:
        settings = read_settings()
        private_home(settings.home)
        set_up_logs(settings.log_format)
        asyncio.run(serve(settings))
        code = 0
    except (SettingsError, SchemaError) as error:
        sys.stderr.write(f"director: {error}\n")
        code = 2
    except Exception:
        log.exception("worker failed")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
