"""Three commands in a sandbox, from nothing to removed: docker-py, llm-sandbox and SWE-ReX.

`python -m bench.rivals.sandboxes FOLDER ROUNDS IMAGE`, in its own environment."""

import asyncio
import logging
import os
import sys
import sysconfig
from collections.abc import Awaitable, Callable
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

_PACKAGES = sysconfig.get_path("purelib")
_COMMAND = "/usr/local/bin/swerex-remote"
_SERVER = Path(_PACKAGES).parents[2] / "swerex-remote"
"""Its server inside of the container: this environment's packages, on the image's own Python."""

_COMMANDS = ["true", "true", "true"]
_REMARKS = {
    "docker-py": "nothing is recorded, limited or kept; measured in this run too",
    "llm-sandbox": "nothing is recorded; a command is a docker exec",
    "SWE-ReX": "nothing is recorded; a server is started in the container",
}


def _llm_sandbox(image: str) -> None:
    config = {"network_mode": "none", "init": True, "command": ["sleep", "3600"], "tty": False}
    with SandboxSession(
        image=image,
        lang="python",
        keep_template=True,
        skip_environment_setup=True,
        runtime_configs=config,
        verbose=False,
    ) as session:
        for command in _COMMANDS:
            if session.execute_command(command).exit_code != 0:
                raise RuntimeError(command)


async def _swe_rex(image: str) -> None:
    """Its client reaches its server over the container's network, so that it has one."""
    deployment = DockerDeployment(
        image=image,
        pull="never",
        remove_container=True,
        docker_args=["--init", *_bound(_SERVER, _COMMAND), *_bound(_PACKAGES, "/swerex")],
    )
    await deployment.start()
    try:
        for command in _COMMANDS:
            await deployment.runtime.execute(Command(command=command, shell=True))
    finally:
        await deployment.stop()


def _bound(path: object, where: str) -> list[str]:
    return ["-v", f"{path}:{where}:ro"]


async def main(rounds: int, image: str) -> None:
    """In turns."""
    logging.disable(logging.WARNING)
    _SERVER.write_text('#!/bin/sh\nPYTHONPATH=/swerex exec python3 -m swerex.server "$@"\n')
    _SERVER.chmod(0o755)
    containers = Containers()

    async def docker_py(_: int) -> None:
        await containers.run(image, 1, 1, _COMMANDS)

    async def llm_sandbox(_: int) -> None:
        await asyncio.to_thread(_llm_sandbox, image)

    async def swe_rex(_: int) -> None:
        await _swe_rex(image)

    runs: dict[str, Callable[[int], Awaitable[None]]] = {
        "docker-py": docker_py,
        "llm-sandbox": llm_sandbox,
        "SWE-ReX": swe_rex,
    }
    taken = {name: Latencies() for name in runs}
    left_out: dict[str, str] = {}
    pids = [os.getpid(), *daemons()]
    for name, one in runs.items():
        try:
            await many(1, 1, one)
        except Exception as error:
            left_out[name] = f"{type(error).__name__}: {error}"
    for _ in range(rounds):
        for name, one in runs.items():
            if name not in left_out:
                before = cpu_seconds(pids)
                done = await many(1, _COUNT, one)
                taken[name].add(done["millis"], done["seconds"], cpu_seconds(pids) - before)
    tell(*(_told(name, taken[name], left_out.get(name)) for name in runs))


def _told(name: str, latencies: Latencies, why_not: str | None) -> dict[str, Any]:
    if why_not is not None:
        return {"name": name, "remark": f"could not be measured: {why_not[:300]}", "rows": []}
    what = "3 commands in a sandbox, from nothing to removed"
    sides = {"p50": latencies.p50(""), "p99": latencies.p99("")}
    rows = [row(f"{what}: {which}", "ms", side) for which, side in sides.items()]
    return {"name": name, "remark": _REMARKS[name], "rows": rows}


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[2]), sys.argv[3]))
