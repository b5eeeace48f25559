"""The worker's root: from settings to Temporal Workers that serve runs on this host."""

import asyncio
import os
import resource
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from datetime import timedelta
from functools import partial
from typing import TypeVar

import docker
import structlog
from docker.errors import DockerException
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError
from temporalio.worker import Interceptor, Worker

from director.activities.alerts import Alerts
from director.activities.checkpoints import Checkpoints
from director.activities.closed import ClosedRuns
from director.activities.collection import Collection
from director.activities.commands import Commands
from director.activities.context import Ageing
from director.activities.enforcement import Enforcements
from director.activities.executes import Executes
from director.activities.executions import Executions
from director.activities.files import Files
from director.activities.hosts import HostKeeper, Periods
from director.activities.lifetimes import Lifetimes
from director.activities.networks import HostNetworks, NetworkActivities, NetworkKeeper
from director.activities.reconcile import ReconcileActivities
from director.activities.retention import Kept, Retention
from director.activities.runs import RunActivities
from director.activities.sandboxes import Sandboxes
from director.activities.steps import StepActivities
from director.activities.strays import Strays
from director.activities.telling import Signals
from director.activities.tending import Tending
from director.activities.verifies import Verifies
from director.blobs.places import open_blobs
from director.blobs.store import Blobs
from director.blobs.touched import TouchedBlobs
from director.domain import names
from director.domain.alerts import AlertRules
from director.domain.git import GitTerms
from director.domain.hosts import Capacity
from director.endpoint.app import Routes
from director.endpoint.passes import Passes
from director.endpoint.places import Places
from director.endpoint.server import Endpoint
from director.host import host_id, installation_id
from director.logs import set_up_logs
from director.machine.image import aliases, ensure_image
from director.networks.bridges import Bridges
from director.networks.filter import Names, PacketFilter
from director.networks.leased import LeasedNetworks
from director.sandbox.docker import DockerRuntime
from director.sandbox.runtime import SandboxRuntime
from director.settings import Settings, SettingsError, private_home, read_settings
from director.store.blobs import touch_now
from director.store.database import AwayError
from director.store.engine import Store
from director.store.schema import SchemaError
from director.temporal.client import connect, prepare_namespace
from director.temporal.launch import TASK_TIMEOUT
from director.temporal.runner import DirectorWorkflowRunner
from director.workflows.policies import FAULTS
from director.workflows.registry import WORKFLOWS

T = TypeVar("T")

log = structlog.get_logger()

_GRACE = timedelta(seconds=30)
_CONTROL_SLOTS = 8
_EXECUTION_SLOTS = 128
"""Commands that one worker follows at a time in sandboxes that people made."""

_DESCRIPTORS = 65_536
"""Open files that a worker may have at most: it walks folders of strangers, each level of which
takes some, and must not run out of them for everybody else."""

_RECONCILE_LOOK_SECONDS = 10
_ENGINE_SECONDS = 120


class WorkerHost:
    """The Temporal Workers of one host, built from their parts."""

    def __init__(
        self,
        client: Client,
        store: Store,
        blobs: Blobs,
        runtime: SandboxRuntime,
        *,
        host_id: str,
        image: str,
        places: int,
        capacity: Capacity | None = None,
        periods: Periods | None = None,
        kept: Kept | None = None,
        alerts: AlertRules | None = None,
        networks: HostNetworks | None = None,
        git: GitTerms | None = None,
        network_group: int | None = None,
        disk_mib: int | None = None,
        endpoint: Endpoint | None = None,
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        self._client, self._host_id, self._places = client, host_id, places
        self._interceptors, self._endpoint = interceptors, endpoint
        blobs = TouchedBlobs(blobs, partial(touch_now, store))
        sandboxes = Sandboxes(
            store, blobs, runtime, host_id, image, networks, disk_mib, git or GitTerms()
        )
        commands, signals = Commands(sandboxes), Signals(client, asyncio.get_running_loop())
        self._steps = StepActivities(
            sandboxes, Executes(commands), Verifies(commands), Checkpoints(sandboxes), signals
        )
        self._runs = RunActivities(sandboxes, signals)
        self._lifetimes = Lifetimes(sandboxes, signals)
        self._enforcements = Enforcements(self._lifetimes)
        self._executions, self._files = Executions(self._lifetimes), Files(sandboxes)
        closed, tending = ClosedRuns(sandboxes, signals), Tending(store, signals)
        strays = Strays(client, self._lifetimes)
        parts = [*tending.parts(), *strays.parts(), Retention(store, kept or Kept()).drop_old]
        parts += [Ageing(store).drop_aged, Collection(store, blobs).collect]
        parts.append(Alerts(store, alerts or AlertRules()).raise_alerts)
        self._reconcile = ReconcileActivities(store, client, closed, parts)
        self._networks = networks
        self._network_keeper = NetworkKeeper(networks, network_group) if networks else None
        self._keeper = HostKeeper(
            client,
            sandboxes,
            (closed.settle_here, strays.settle_here, self._enforcements.catch_up),
            capacity or Capacity(),
            periods or Periods(),
        )

    async def run(self, stopped: asyncio.Event) -> None:
        """Serve until stopped, then let every activity go on elsewhere or later."""
        threads = ThreadPoolExecutor(2 * self._places + 2 * _CONTROL_SLOTS)
        commanded = ThreadPoolExecutor(_EXECUTION_SLOTS, "command")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._keeper.keeping(stopped))
            if (networks := self._network_keeper) is not None:
                # before anything can start a sandbox on them
                await asyncio.to_thread(networks.start)
                stack.push_async_callback(asyncio.to_thread, networks.stop)
            if self._endpoint is not None:
                await stack.enter_async_context(self._endpoint.serving())
            workers = self._workers(threads, commanded) if not stopped.is_set() else []
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
        commanded.shutdown()

    def _workers(self, threads: ThreadPoolExecutor, commanded: ThreadPoolExecutor) -> list[Worker]:
        steps, settle = [self._steps.run_step], [self._runs.settle, self._lifetimes.settle]
        first = [*steps, self._lifetimes.create]
        control = [*settle, self._lifetimes.steer, self._lifetimes.measure]
        control += [self._enforcements.enforce, self._executions.end]
        commands = [self._executions.execute, self._lifetimes.create]
        commands += [self._files.write, self._files.capture]
        notes = [
            self._runs.record_status,
            self._runs.record_progress,
            self._runs.place,
            self._lifetimes.let_go,
            self._reconcile.reconcile,
        ]
        if self._networks is not None:
            of_networks = NetworkActivities(self._networks)
            control += [of_networks.apply_network, of_networks.remove_network]
        return [
            self._worker(names.WORKFLOW_QUEUE, threads, [*settle, *notes], _CONTROL_SLOTS, True),
            self._worker(names.SANDBOX_QUEUE, threads, first, self._places),
            self._worker(names.host_queue(self._host_id), threads, steps, self._places),
            self._worker(names.control_queue(self._host_id), threads, control, _CONTROL_SLOTS),
            self._worker(
                names.execution_queue(self._host_id), commanded, commands, _EXECUTION_SLOTS
            ),
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
            workflow_runner=DirectorWorkflowRunner(),
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


async def serve(settings: Settings, interceptors: Sequence[Interceptor] = ()) -> None:
    """Connect to everything, serve until SIGTERM or SIGINT. Interceptors see each activity."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    address = settings.temporal_address
    client = await _until(stopped, lambda: _connected(settings), "Temporal is not ready", address)
    engine = await _until(stopped, _engine, "the Docker engine is not ready")
    store = await _until(stopped, lambda: _opened(settings), "the database is not ready")
    if client is None or engine is None or store is None:
        return
    image = settings.sandbox_image or ensure_image(engine, log.info)
    runtime = DockerRuntime(
        engine,
        settings.home,
        installation_id(settings.home),
        aliases(image, settings.image_aliases),
    )
    here, called = host_id(settings.home, engine), Names(installation_id(settings.home))
    host = WorkerHost(
        client,
        store,
        open_blobs(settings.blob_url),
        runtime,
        host_id=here,
        image=image,
        places=settings.places,
        capacity=Capacity(places=settings.sandboxes, memory_mib=settings.memory_mib),
        kept=Kept(settings.event_retention, settings.output_retention),
        alerts=settings.alerts,
        networks=HostNetworks(
            store,
            here,
            Bridges(engine, installation_id(settings.home), called),
            PacketFilter(called, settings.home),
            called.bridge,
            LeasedNetworks(settings.home),
            tell_names=runtime.tell_names,
            pool=settings.network_pool,
        ),
        git=settings.git,
        network_group=called.group,
        disk_mib=settings.sandbox_disk_mib,
        endpoint=Endpoint(
            Routes(here, runtime, Passes(settings.secret_keys)).app(),
            Places(settings.home, here),
            settings.worker_address,
        ),
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
        except (RPCError, RuntimeError, OSError, DockerException, AwayError) as error:
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


async def _opened(settings: Settings) -> Store:
    store = Store(settings.database_url)
    try:
        await asyncio.to_thread(store.create_tables)
    except BaseException:
        store.close()
        raise
    return store


async def _engine() -> docker.DockerClient:
    return await asyncio.to_thread(docker.from_env, timeout=_ENGINE_SECONDS)


def allow_descriptors() -> None:
    """Let this process have as many open files as it may, and needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main() -> None:
    """Run the worker; the process ends at once after its work, since the interpreter may crash
    when it takes down the SDK's threads."""
    try:
        settings = read_settings()
        private_home(settings.home)
        set_up_logs(settings.log_format)
        allow_descriptors()
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
