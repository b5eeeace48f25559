"""Who performs three steps again and again, each driven by a client of its own."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.bench import Bench
from bench.engine import Engine
from bench.figures import Latencies
from bench.installation import Installation
from bench.processes import Driver, Process, cpu_seconds

NOTHING = ["true", "true", "true"]

RUNNERS = ("sandboxed", "plain")
"""The two configurations of a bare worker that are compared: workflow code in the SDK's sandbox,
as Director's is, and without it."""

NOT_EAGER = "not eager"
"""A third one, which is shown: its activities go through a queue, as Director's steps must, since
they belong to a host; the SDK gives the others to their own worker without asking the server."""


@dataclass(frozen=True)
class Contender:
    """Performs three steps so many times, so many at once; and what it has used so far."""

    name: str
    run: Callable[[int, int], Any]
    cpu_seconds: Callable[[], float]
    compared: bool = True

    def take(self, latencies: Latencies, concurrency: int, count: int) -> None:
        """Measure a round."""
        before = self.cpu_seconds()
        done = self.run(concurrency, count)
        latencies.add(done["millis"], done["seconds"], self.cpu_seconds() - before)


def director(
    bench: Bench,
    installation: Installation,
    lanes: int,
    stack: ExitStack,
    beside: Sequence[int] = (),
) -> Contender:
    """Director through REST; `beside` are processes that work for it."""
    driver = stack.enter_context(Driver("bench.drivers.runs", bench.folder))
    access = {"port": installation.port, "password": installation.password}
    driver.ask(do="prepare", lanes=lanes, commands=NOTHING, **access)

    pids = [*installation.pids, driver.pid, *beside]
    return Contender("REST", partial(_ask, driver, {"do": "run"}), partial(cpu_seconds, pids))


def bare(
    bench: Bench, installation: Installation, stack: ExitStack, runners: Sequence[str]
) -> list[Contender]:
    """A bare worker for each configuration, on Director's own Temporal server."""
    driver = stack.enter_context(Driver("bench.drivers.bare_temporal", bench.folder))
    driver.ask(do="connect", address=installation.temporal)
    found = []
    for runner in runners:
        worker = stack.enter_context(_worker(bench, installation, runner))
        worker.line()
        pids = [installation.stack.pid("temporal"), worker.pid, driver.pid]
        found.append(
            Contender(
                f"bare Temporal, {runner}",
                partial(_ask, driver, {"do": "run", "queue": runner}),
                partial(cpu_seconds, pids),
                compared=runner != NOT_EAGER,
            )
        )
    return found


def containers(
    bench: Bench, engine: Engine, stack: ExitStack, *, network_disabled: bool
) -> Contender:
    """docker-py with a new container each time, which has no network: by the engine's mode `none`,
    or by `network_disabled`, as Director's."""
    driver = stack.enter_context(Driver("bench.drivers.docker_steps", bench.folder))
    asked = {"do": "run", "image": engine.image, "commands": NOTHING}
    asked["network_disabled"] = network_disabled
    return Contender(
        "docker-py, network disabled" if network_disabled else "docker-py",
        partial(_ask, driver, asked),
        partial(cpu_seconds, [driver.pid, *engine.pids()]),
    )


def _ask(driver: Driver, asked: dict[str, Any], concurrency: int, count: int) -> Any:
    return driver.ask(**asked, concurrency=concurrency, count=count)


def _worker(bench: Bench, installation: Installation, runner: str) -> Process:
    module = "bench.bare.temporal_worker"
    command = [sys.executable, "-m", module, installation.temporal, runner, runner]
    return Process(command, bench.folder / f"{module}.log")
