"""A whole chaos: start Director, load it and hit it, let it come to rest, look at what is left."""

import asyncio
import contextlib
import secrets
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from chaos import load, outages
from chaos.client import Api, seconds_of
from chaos.customers import Customers
from chaos.ledger import FILES, Witness, mark
from chaos.listeners import Listener
from chaos.load import SKILL, Plan
from chaos.observations import Command, Observations, Order, Remains, Run, Width
from chaos.outages import Events, Killer, Outage
from chaos.remains import MARK, remains

from director.cli.stack import Ports, Stack

Json = dict[str, Any]

WORKERS, LISTENERS = 3, 3
_WORKERS = ["worker", "worker-2", "worker-3"]
LIMITS = {"narrow": 1, "pair": 2, "crew": 3}
"""The departments, and how many of their steps may run at once."""

RUNS_PER_MINUTE = 70.0
DRAIN_SECONDS = 60.0
"""Within this time after the last blow everything must have ended: else it is lost."""

_LINE_SECONDS = 10.0
_WIDTH_SECONDS = 20.0
_LEFT_SECONDS = 6.0
_HEARD_SECONDS = 10.0


@dataclass
class Record:
    """What happened, beside the observations that the checker judges."""

    seed: int
    seconds: float
    home: Path
    seen: Observations = field(default_factory=Observations)
    blows: dict[str, int] = field(default_factory=dict)
    deaths: dict[str, int] = field(default_factory=dict)
    tries: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    last_blow: float = 0.0
    took: float = 0.0
    """Seconds from the first order to the end of the last run."""
    total: float = 0.0
    """Seconds for everything, from the start of Director to the last look at what is left."""


@dataclass
class Scene:
    """A running Director with everybody around it."""

    stack: Stack
    api: Api
    witness: Witness
    customers: Customers
    listeners: list[Listener]
    limits: dict[str, int]
    events: Events


@dataclass(frozen=True)
class Campaign:
    """What is done to a Director that begins in a home of its own."""

    home: Path
    ports: Ports
    image: str
    seed: int
    seconds: float
    plans: Sequence[Plan]
    outages: Sequence[Outage]
    limits: dict[str, int]
    """`maxConcurrentTasks` of each department."""
    database: str = ""
    """Its URL; without one it is a file in the home."""

    def run(self) -> Record:
        """Do it, and give what was seen."""
        return asyncio.run(self._run())

    async def _run(self) -> Record:
        record, this = Record(self.seed, self.seconds, self.home), secrets.token_hex(8)
        begun = time.monotonic()
        environ = {"DIRECTOR_SANDBOX_IMAGE": self.image, MARK: this}
        environ["DIRECTOR_DATABASE_URL"] = self.database
        with Stack(self.home, self.ports, environ, workers=WORKERS) as stack:
            async with _scene(stack, self.seed, self.limits) as scene:
                await _storm(scene, record, self)
                record.seen.widths = [await _width(scene, name) for name in self.limits]
                await _look_up(scene, record.seen)
                await _heard(scene, record)
                _note(scene, record)
            record.seen.ledgers = scene.witness.ledgers()
        record.seen.remains = await _settled_remains(self.home, this)
        record.total = time.monotonic() - begun
        return record


def chaos(
    home: Path,
    ports: Ports,
    image: str,
    seed: int,
    seconds: float,
    per_minute: float = RUNS_PER_MINUTE,
) -> Campaign:
    """Every kind of run, while every part is hit; all but the timing follows from the seed."""
    plans = load.drawn(seed, seconds, per_minute, list(LIMITS))
    parts = ["temporal", "api", *_WORKERS, outages.ALL]
    blows = outages.drawn(seed, seconds, parts)
    return Campaign(home, ports, image, seed, seconds, plans, blows, LIMITS)


def line(
    home: Path, ports: Ports, image: str, seed: int, seconds: float, *, runs: int, limit: int
) -> Campaign:
    """Many runs of one department at once, while workers are hit."""
    plans = load.in_line(seed, runs, _LINE_SECONDS / runs, "crew")
    blows = outages.drawn(seed, seconds, _WORKERS)
    return Campaign(home, ports, image, seed, seconds, plans, blows, {"crew": limit})


@asynccontextmanager
async def _scene(stack: Stack, seed: int, limits: dict[str, int]) -> AsyncIterator[Scene]:
    api = Api(stack.api, stack.home / "admin-password")
    await api.login()
    listeners = [Listener(api, stack.api, f"{seed}: listener {n}") for n in range(LISTENERS)]
    events = Events()
    witness = Witness(stack.home, events.happened)
    async with _in_background(witness.watch(), *(each.listen() for each in listeners)):
        session = await api.call("POST", "/sessions", {"type": "director", "name": "Chaos"})
        departments = {
            name: await _department(api, session["id"], name, limit)
            for name, limit in limits.items()
        }
        temporal = f"127.0.0.1:{stack.ports.temporal}"
        customers = Customers(
            api,
            witness,
            temporal,
            stack.namespace,
            session["id"],
            departments,
            seed,
            events.happened,
        )
        yield Scene(stack, api, witness, customers, listeners, limits, events)
    await api.close()


async def _department(api: Api, session_id: str, name: str, limit: int) -> str:
    body: Json = {"sessionId": session_id, "name": name, "domain": name}
    body["config"] = {"maxConcurrentTasks": limit}
    body["capabilities"] = [SKILL] if limit > 1 else []
    return str((await api.call("POST", "/departments", body))["id"])


@asynccontextmanager
async def _in_background(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """What goes on while the block lasts; a fault of it ends the block."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _storm(scene: Scene, record: Record, campaign: Campaign) -> None:
    """Serve all customers while the killer is at work, then until they are content."""
    killer = Killer(scene.stack, campaign.outages, scene.events, campaign.seconds)
    begun = time.monotonic()
    record.seen.orders = [plan.order for plan in campaign.plans]
    served = [asyncio.create_task(scene.customers.serve(plan, begun)) for plan in campaign.plans]
    async with _in_background(killer.nurse()):
        over = asyncio.Event()
        recesses = asyncio.create_task(scene.customers.pause_departments(over))
        await killer.run()
        await asyncio.sleep(max(0.0, begun + record.seconds - time.monotonic()))
        over.set()
        record.seen.recesses = await recesses
        record.last_blow = killer.last_at
        await asyncio.wait(served, timeout=DRAIN_SECONDS)
    record.took = time.monotonic() - begun
    for task in served:
        task.cancel()
    results = await asyncio.gather(*served, return_exceptions=True)
    cut = [each for each in results if isinstance(each, Exception)]
    record.seen.faults += [f"a client met {type(each).__name__}: {each}" for each in cut]
    record.seen.faults += killer.deaf
    record.blows, record.deaths = dict(killer.blows), dict(killer.deaths)


async def _width(scene: Scene, department: str) -> Width:
    """Give a department one step more than it may run, and count how many run at once."""
    limit = scene.limits[department]
    orders = []
    for number in range(limit + 1):
        name = f"{department}-{number}"
        command = Command(f"{name}.1", 1, least=0, ends=False)
        order = Order(name, "width", frozenset({"cancelled"}), [command], department)
        step = {"type": "execute", "command": mark(f"{name}.1", 600, 0.1)}
        body = {"name": name, "steps": [step], "workspace": {"files": FILES}}
        orders.append((await scene.customers.order(order, body), order))
    reached = await _reached(scene, [order for _, order in orders], limit)
    for workflow_id, _ in orders:
        await scene.api.call("POST", f"/workflows/{workflow_id}/cancel")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_WIDTH_SECONDS):
            for workflow_id, order in orders:
                await scene.customers.ended(workflow_id, order)
    path = f"/departments/{scene.customers.departments[department]}/metrics"
    metrics = await scene.api.call("GET", path)
    return Width(department, limit, reached, metrics["activeTasks"], metrics["queuedTasks"])


async def _reached(scene: Scene, orders: list[Order], limit: int) -> int:
    """How many are at work at once: as many as there may be, and a moment later none more."""
    deadline = time.monotonic() + _WIDTH_SECONDS

    def at_work() -> int:
        return sum(scene.witness.begun(order.commands[0].label) for order in orders)

    while at_work() < limit and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    return at_work()


async def _look_up(scene: Scene, seen: Observations) -> None:
    """Every workflow and run that the API lists, also those of which no client was told."""
    query = {"sessionId": scene.customers.session_id}
    taken: dict[str, list[str]] = defaultdict(list)
    for checkpoint in await scene.api.listed("/checkpoints", **query):
        taken[checkpoint["runId"]].append(checkpoint["id"])
    for workflow in await scene.api.listed("/workflows", **query):
        seen.workflows.append(workflow["name"])
        for listed in await scene.api.listed(f"/workflows/{workflow['id']}/runs"):
            path = f"/workflows/{workflow['id']}/runs/{listed['runId']}"
            run = await _run(scene, workflow["name"], path)
            seen.runs.append(replace(run, checkpoints=taken[run.id]))


async def _run(scene: Scene, name: str, path: str) -> Run:
    run, outputs = await scene.api.call("GET", path), {}
    for number, step in enumerate(run["steps"], 1):
        if step["type"] == "execute" and step["startTime"]:
            for attempt in range(1, step["attempt"] + 1):
                text = f"{path}/steps/{number}/output?attempt={attempt}"
                outputs[number, attempt] = await scene.api.text(text)
    names = {id: name for name, id in scene.customers.departments.items()}
    return Run(
        id=run["runId"],
        name=name,
        status=run["status"],
        created_at=seconds_of(run["createdAt"]) or 0.0,
        completed_at=seconds_of(run["completedAt"]),
        attempts={number: step["attempt"] for number, step in enumerate(run["steps"], 1)},
        outputs=outputs,
        departments={
            number: names[step["departmentId"]]
            for number, step in enumerate(run["steps"], 1)
            if step.get("departmentId")
        },
    )


async def _heard(scene: Scene, record: Record) -> None:
    """Wait until the listeners have heard what was written, at most for some seconds."""
    ended = {run.id for run in record.seen.runs if run.completed_at is not None}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_HEARD_SECONDS):
            while not all(ended <= listener.ended for listener in scene.listeners):
                await asyncio.sleep(0.1)


def _note(scene: Scene, record: Record) -> None:
    record.seen.heard = [listener.frames for listener in scene.listeners]
    record.seen.limits = scene.limits
    record.seen.faults += scene.api.faults
    record.seen.faults += [fault for listener in scene.listeners for fault in listener.faults]
    record.tries = dict(scene.api.tries)
    record.connections = sum(listener.connections for listener in scene.listeners)


async def _settled_remains(home: Path, this: str) -> Remains:
    """What is left; what is on its way out has some seconds."""
    deadline = time.monotonic() + _LEFT_SECONDS
    while (found := remains(home, this)) != Remains() and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    return found
