"""Hosts come and go, and each run stays with the one that has its sandbox as long as it may."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from support.server import TemporalServer
from support.stack import Data, Stack, running_stack
from support.waiting import until_so
from temporalio.client import WorkflowExecutionStatus

from director.activities.closed import ClosedRuns
from director.activities.hosts import Periods
from director.activities.sandboxes import Sandboxes, sandbox_id
from director.activities.telling import Signals
from director.blobs.store import LocalBlobs
from director.domain.hosts import Capacity
from director.sandbox.scripted import ScriptedRuntime
from director.store import hosts, placement
from director.store.placement import Decision
from director.store.tables import HostRow, RunRow
from director.temporal import client as temporal
from director.worker import WorkerHost

QUICK = Periods(
    lease=timedelta(seconds=1),
    renew=timedelta(milliseconds=100),
    reap=timedelta(milliseconds=200),
    age=timedelta(0),
)


class Machine:
    """A host with scripted sandboxes, which are still there when it comes back."""

    def __init__(self, stack: Stack, id: str, places: int = 8) -> None:
        self.stack, self.id = stack, id
        self.runtime = ScriptedRuntime(stack.settings.home / "sandboxes" / id, stack.gates.script)
        self._capacity = Capacity(places=places, memory_mib=1 << 20)
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def blobs(self) -> LocalBlobs:
        return LocalBlobs(self.stack.settings.home / "blobs")

    @property
    def closed(self) -> ClosedRuns:
        """What settles runs on this host, without its worker."""
        sandboxes = Sandboxes(self.stack.store, self.blobs, self.runtime, self.id, "i")
        return ClosedRuns(sandboxes, Signals(self.stack.temporal, asyncio.get_running_loop()))

    async def start(self) -> None:
        """Serve, and wait until the host is registered."""
        settings = self.stack.settings
        client = await temporal.connect(
            settings.temporal_address, settings.temporal_namespace, lazy=False
        )
        worker = WorkerHost(
            client,  # of its own, as in a process of its own: a client takes one worker of a kind
            self.stack.store,
            self.blobs,
            self.runtime,
            host_id=self.id,
            image="i",
            places=8,
            capacity=self._capacity,
            periods=QUICK,
        )
        self._stopped = asyncio.Event()
        self._task = asyncio.create_task(worker.run(self._stopped))
        await until_so(lambda: self.living, f"host {self.id} lives")

    async def stop(self) -> None:
        """Stop serving, and wait until the lease has run out."""
        self._stopped.set()
        if self._task is not None:
            await self._task
            self._task = None
            await until_so(lambda: not self.living, f"the lease of {self.id} has run out")

    @property
    def row(self) -> HostRow | None:
        with self.stack.store.read() as session:
            return session.get(HostRow, self.id)

    @property
    def living(self) -> bool:
        return self.row is not None and self.row.living

    def holds(self, run: Data) -> list[int]:
        """The epochs of the sandboxes of a run on this host: one or none."""
        name = sandbox_id(run["runId"])
        return [each.epoch for each in self.runtime.sandboxes() if each.id == name]


@pytest.fixture(scope="module")
async def bare(
    temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """A Director whose workers the tests bring."""
    folder = tmp_path_factory.mktemp("hosts")
    async with running_stack(folder, temporal_server.address, "hosts") as stack:
        await stack.stop_worker()
        with stack.store.write() as session:
            session.delete(session.get_one(HostRow, "scripted"))
        yield stack


@pytest.fixture
async def machine(bare: Stack, tmp_path: Path) -> AsyncIterator[Callable[..., Machine]]:
    """Make a host of a name of its own; all are stopped in the end."""
    made: list[Machine] = []

    def machine(name: str, places: int = 8) -> Machine:
        made.append(Machine(bare, f"{tmp_path.name}-{name}", places))
        return made[-1]

    yield machine
    for each in made:
        await each.stop()


def row_of(stack: Stack, run: Data) -> RunRow:
    with stack.store.read() as session:
        return session.get_one(RunRow, run["runId"])


async def going(stack: Stack, gate: str, *more: str) -> Data:
    """A run whose first step waits for a gate, and runs in its sandbox."""
    workflow = await stack.workflow(f"wait {gate}", *more)
    run = await stack.start(workflow["id"])
    await until_so(lambda: row_of(stack, run).workspace_ready, "the sandbox is there")
    return run


async def test_a_host_lives_while_it_serves_and_comes_back_with_a_new_epoch(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one = machine("one")
    await one.start()
    first = one.row
    await until_so(lambda: one.row.lease_until > first.lease_until + QUICK.lease, "it is renewed")
    assert one.row.epoch == 1

    await one.stop()
    await one.start()

    assert one.row.epoch == 2


async def test_nothing_is_ready_when_the_last_lease_has_run_out(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one = machine("one")
    await one.start()
    before = await bare.http.get(f"{bare.url}/readyz")

    await one.stop()
    after = await bare.http.get(f"{bare.url}/readyz")

    assert (before.status_code, after.status_code) == (200, 503)
    assert after.json()["error"]["details"]["worker"] is False


async def test_a_lease_that_ran_out_under_a_worker_is_taken_again(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one = machine("one")
    await one.start()
    with bare.store.write() as session:
        row = session.get_one(HostRow, one.id)
        row.lease_until -= timedelta(seconds=60)
        session.add(row)

    await until_so(lambda: one.living and one.row.epoch == 2, "it has registered again")


async def test_no_host_holds_more_sandboxes_than_it_has_places(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one", places=1), machine("two", places=1)
    await one.start()
    await two.start()
    workflows = [await bare.workflow("last 0.2") for _ in range(5)]
    for workflow in workflows:
        await bare.start(workflow["id"])

    most, over = 0, asyncio.Event()

    async def count() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, *(len(each.runtime.sandboxes()) for each in (one, two)))
            await asyncio.sleep(0.005)

    counting = asyncio.create_task(count())
    runs = [await bare.ended(workflow["id"]) for workflow in workflows]
    over.set()
    await counting

    assert {run["status"] for run in runs} == {"completed"}
    assert most == 1
    assert all(each.runtime.ran for each in (one, two)), "both took their share"


async def test_the_only_host_comes_back_and_goes_on_with_its_command(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one = machine("one")
    await one.start()
    run = await going(bare, "adopted")
    await one.stop()

    await one.start()
    bare.gates.open("adopted")
    ended = await bare.ended(run["workflowId"])

    assert ended["status"] == "completed"
    assert len(one.runtime.ran) == 1


async def test_a_host_that_comes_back_first_removes_what_it_has_lost_and_then_makes_it_anew(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one = machine("one")
    await one.start()
    run = await going(bare, "anew", "say after")
    await one.stop()
    with bare.store.write() as session:
        hosts.register(session, "other", Capacity())
        decision = placement.decide(session, session.get_one(RunRow, run["runId"]))
        session.delete(session.get_one(HostRow, "other"))
    assert decision is Decision.LOST
    assert one.holds(run) == [0]

    await one.start()
    await until_so(lambda: one.holds(run) == [1], "the sandbox is made anew")
    bare.gates.open("anew")
    ended = await bare.ended(run["workflowId"])

    assert ended["status"] == "completed"
    assert one.runtime.removed[0] == sandbox_id(run["runId"])
    assert [command.argv[-1] for _, command in one.runtime.ran] == [
        "wait anew",
        "wait anew",
        "say after",
    ]


async def test_a_host_that_cannot_remove_what_it_has_lost_takes_no_work_until_it_can(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    run = await going(bare, "stuck")
    await one.stop()
    with bare.store.write() as session:
        hosts.register(session, two.id, Capacity())
        placement.decide(session, session.get_one(RunRow, run["runId"]))
        session.delete(session.get_one(HostRow, two.id))
    one.runtime.stuck.add(sandbox_id(run["runId"]))

    await one.start()
    other = await bare.workflow("say other")
    await bare.start(other["id"])
    held = await bare.call("GET", f"/workflows/{other['id']}/status?wait=2")
    assert (held["status"], one.holds(run), one.living) == ("queued", [0], True)

    one.runtime.stuck.clear()
    bare.gates.open("stuck")
    ended = [await bare.ended(id) for id in (other["id"], run["workflowId"])]
    assert [each["status"] for each in ended] == ["completed", "completed"]


async def test_a_run_that_was_ended_in_temporal_is_settled_by_the_host_that_has_its_sandbox(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    run = await going(bare, "closed-there")
    await one.stop()
    with bare.store.write() as session:
        hosts.register(session, one.id, Capacity())  # it lives, and is slow to act

    await asyncio.to_thread(two.closed.close, run["runId"], WorkflowExecutionStatus.TERMINATED)
    noted = row_of(bare, run)
    assert (noted.status, noted.closed_as) == ("cancelling", "TERMINATED")
    assert one.holds(run) == [0]

    await asyncio.to_thread(one.closed.settle_here)
    ended = await bare.ended(run["workflowId"])
    assert (ended["status"], ended["error"]["code"]) == ("cancelled", "TERMINATED")
    assert one.holds(run) == []
    await bare.temporal.get_workflow_handle(run["runId"]).terminate()
    with bare.store.write() as session:
        session.delete(session.get_one(HostRow, one.id))


async def test_a_run_that_is_terminated_on_either_of_two_hosts_ends_and_leaves_nothing(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    machines = [machine("one"), machine("two")]
    runs = []
    for each in machines:
        await each.start()
        runs.append(await going(bare, "terminated"))
        if each is machines[0]:
            with bare.store.write() as session:
                hosts.set_draining(session, each.id, True)
    assert [row_of(bare, run).host_id for run in runs] == [each.id for each in machines]

    for run in runs:
        await bare.temporal.get_workflow_handle(run["runId"]).terminate("pressed in the UI")
    ended = [await bare.ended(run["workflowId"]) for run in runs]

    assert {run["status"] for run in ended} == {"cancelled"}
    assert [each.holds(run) for each, run in zip(machines, runs, strict=True)] == [[], []]


async def test_a_run_is_settled_although_its_host_is_away_and_the_host_clears_up_later(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    run = await going(bare, "away")
    await one.stop()
    await bare.temporal.get_workflow_handle(run["runId"]).terminate("pressed in the UI")

    await two.start()
    ended = await bare.ended(run["workflowId"])
    assert (ended["status"], ended["error"]["code"]) == ("cancelled", "TERMINATED")
    assert one.holds(run) == [0]

    await one.start()
    await until_so(lambda: one.holds(run) == [], "the host has cleared up")
    assert len(one.runtime.ran) == 1
