"""Three commands in a sandbox, from nothing to removed, and one in a sandbox that lives: docker-py,
llm-sandbox and SWE-ReX.

`python -m bench.rivals.sandboxes FOLDER ROUNDS IMAGE`, in its own environment."""

import asyncio
import logging
import os
import sys
import sysconfig
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llm_sandbox import SandboxSession
from swerex.deployment.docker import DockerDeployment
from swerex.runtime.abstract import Command

from bench.drivers.docker_steps import Containers
from bench.engine_daemons import daemons
from bench.figures import Latencies
from bench.processes import cpu_seconds, many
from bench.rivals.measuring import row, tell

_COUNT = 5
_LIVING = 50

_PACKAGES = sysconfig.get_path("purelib")
_COMMAND = "/usr/local/bin/swerex-remote"
_SERVER = Path(_PACKAGES).parents[2] / "swerex-remote"
"""Its server inside of the container: this environment's packages, on the image's own Python."""

_COMMANDS = ["true", "true", "true"]

Run = Callable[[str], Awaitable[Any]]
"""Runs a command in what is open."""

_REMARKS = {
    "docker-py": "nothing is recorded, limited or kept; measured in this run too",
    "llm-sandbox": "nothing is recorded; a command is a docker exec",
    "SWE-ReX": "nothing is recorded; a server is started in the container",
}


@asynccontextmanager
async def _docker_py(image: str) -> AsyncIterator[Run]:
    containers = Containers()
    made = await asyncio.to_thread(containers.begin, image, network_disabled=False)

    def run(command: str) -> None:
        for _ in containers.execute(made, command):
            pass

    try:
        yield lambda command: asyncio.to_thread(run, command)
    finally:
        await asyncio.to_thread(containers.remove, made)


@asynccontextmanager
async def _llm_sandbox(image: str) -> AsyncIterator[Run]:
    config = {"network_mode": "none", "init": True, "command": ["sleep", "3600"], "tty": False}
    session = SandboxSession(
        image=image,
        lang="python",
        keep_template=True,
        skip_environment_setup=True,
        runtime_configs=config,
        verbose=False,
    )

    def run(command: str) -> None:
        if session.execute_command(command).exit_code != 0:
            raise RuntimeError(command)

    await asyncio.to_thread(session.open)
    try:
        yield lambda command: asyncio.to_thread(run, command)
    finally:
        await asyncio.to_thread(session.close)


@asynccontextmanager
async def _swe_rex(image: str) -> AsyncIterator[Run]:
    """Its client reaches its server over the container's network, so that it has one."""
    deployment = DockerDeployment(
        image=image,
        pull="never",
        remove_container=True,
        docker_args=["--init", *_bound(_SERVER, _COMMAND), *_bound(_PACKAGES, "/swerex")],
    )
    await deployment.start()
    try:
        yield lambda command: deployment.runtime.execute(Command(command=command, shell=True))
    finally:
        await deployment.stop()


def _bound(path: object, where: str) -> list[str]:
    return ["-v", f"{path}:{where}:ro"]


_SANDBOXES: dict[str, Callable[[str], AbstractAsyncContextManager[Run]]] = {
    "docker-py": _docker_py,
    "llm-sandbox": _llm_sandbox,
    "SWE-ReX": _swe_rex,
}


@dataclass
class Taken:
    """What one of them took."""

    whole: Latencies = field(default_factory=Latencies)
    living: Latencies = field(default_factory=Latencies)
    why_not: str | None = None


async def main(rounds: int, image: str) -> None:
    """In turns."""
    logging.disable(logging.WARNING)
    _SERVER.write_text('#!/bin/sh\nPYTHONPATH=/swerex exec python3 -m swerex.server "$@"\n')
    _SERVER.chmod(0o755)
    taken = {name: Taken() for name in _SANDBOXES}
    for name, opened in _SANDBOXES.items():
        try:
            await _measured(opened, image, Taken(), 1, 1)
        except Exception as error:
            taken[name].why_not = f"{type(error).__name__}: {error}"
    for _ in range(rounds):
        for name, opened in _SANDBOXES.items():
            if taken[name].why_not is None:
                await _measured(opened, image, taken[name], _COUNT, _LIVING)
    tell(*(_told(name, one) for name, one in taken.items()))


async def _measured(
    opened: Callable[[str], AbstractAsyncContextManager[Run]],
    image: str,
    taken: Taken,
    count: int,
    living: int,
) -> None:
    pids = [os.getpid(), *daemons()]

    async def whole(_: int) -> None:
        async with opened(image) as run:
            for command in _COMMANDS:
                await run(command)

    async def add(latencies: Latencies, count: int, one: Callable[[int], Awaitable[None]]) -> None:
        before = cpu_seconds(pids)
        done = await many(1, count, one)
        latencies.add(done["millis"], done["seconds"], cpu_seconds(pids) - before)

    await add(taken.whole, count, whole)
    async with opened(image) as run:

        async def command(_: int) -> None:
            await run("true")

        await add(taken.living, living, command)


def _told(name: str, taken: Taken) -> dict[str, Any]:
    if taken.why_not is not None:
        return {"name": name, "remark": f"could not be measured: {taken.why_not[:300]}", "rows": []}
    what = "3 commands in a sandbox, from nothing to removed"
    sides = {
        f"{what}: p50": taken.whole.p50(""),
        f"{what}: p99": taken.whole.p99(""),
        "a command in a living sandbox: p50": taken.living.p50(""),
    }
    rows = [row(what, "ms", side) for what, side in sides.items()]
    return {"name": name, "remark": _REMARKS[name], "rows": rows}


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[2]), sys.argv[3]))
