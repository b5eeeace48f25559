"""Single commands: in a sandbox as a worker runs them, through REST, and in a container."""

import asyncio
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker

from bench.drivers.docker_steps import Containers
from bench.http import Connection, logged_in
from bench.processes import answer, many
from director.domain.sandboxes import Command, SandboxSpec
from director.sandbox.docker import DockerRuntime

_SAY = "echo said"
_LIMITS = {"memory": 256}


class Commands:
    """One at a time, in a sandbox or container that lives or is made for it.

    Threads are as in a worker, which runs activities in them."""

    async def prepare(self, home: str, image: str, port: int, password: str) -> Any:
        """Make what lives."""
        self._image, self._containers = image, Containers()
        client = docker.from_env()
        self._runtime = DockerRuntime(client, Path(home), f"bench-{uuid.uuid4().hex[:8]}", {})
        self._sandbox = await asyncio.to_thread(self._made)
        self._container = await asyncio.to_thread(
            self._containers.begin, image, network_disabled=True
        )
        self._rest: Connection = await logged_in(port, password)
        self._mine = await self._made_through_rest()

    async def living(self, whose: str, count: int) -> Any:
        """So many commands in what lives, each to its end."""

        async def one(_: int) -> None:
            if whose == "REST":
                await self._execute(self._mine)
            else:
                await asyncio.to_thread(self._run if whose == "worker" else self._exec)

        return await many(1, count, one)

    async def cold(self, whose: str, count: int) -> Any:
        """So many times from nothing to the first output; what was made is removed afterwards."""
        ways: dict[str, Callable[[], Callable[[], None]]] = {
            "worker": self._first,
            "exec": self._first_exec,
            "run": self._first_run,
        }
        millis = []
        for _ in range(count):
            begun = time.perf_counter()
            if whose == "REST":
                made = await self._made_through_rest()
                await self._execute(made)
            else:
                remove = await asyncio.to_thread(ways[whose])
            millis.append((time.perf_counter() - begun) * 1000)
            if whose == "REST":
                await self._rest.call("DELETE", f"/sandboxes/{made}")
            else:
                await asyncio.to_thread(remove)
        return {"millis": millis, "seconds": sum(millis) / 1000}

    async def end(self) -> Any:
        """Remove what lived."""
        await self._rest.call("DELETE", f"/sandboxes/{self._mine}")
        self._runtime.remove(self._sandbox)
        self._containers.remove(self._container)

    def _made(self) -> str:
        spec = {"id": f"sbx_{uuid.uuid4().hex[:16]}", "image": self._image, "owner_id": "bench"}
        return self._runtime.create(SandboxSpec.model_validate(spec)).id

    def _run(self) -> None:
        done = self._runtime.run(self._sandbox, _command("true")).wait(30)
        if done is None or done.exit_code != 0:
            raise RuntimeError(f"the command has not ended well: {done}")

    def _exec(self) -> None:
        for _ in self._containers.execute(self._container, "true"):
            pass

    def _first(self) -> Callable[[], None]:
        made = self._made()
        execution = self._runtime.run(made, _command(_SAY))
        while not execution.read("stdout", 0, 1):
            execution.wait(0.001)
        return lambda: self._runtime.remove(made)

    def _first_exec(self) -> Callable[[], None]:
        made = self._containers.begin(self._image, network_disabled=True)
        next(iter(self._containers.execute(made, _SAY)))
        return lambda: self._containers.remove(made)

    def _first_run(self) -> Callable[[], None]:
        made = self._containers.first_output(self._image, _SAY)
        return lambda: self._containers.remove(made)

    async def _made_through_rest(self) -> str:
        made = await self._rest.call("POST", "/sandboxes?wait=30", {"resourceLimits": _LIMITS})
        if made["status"] != "running":
            raise RuntimeError(f"the sandbox is {made['status']}: {made['error']}")
        return str(made["id"])

    async def _execute(self, sandbox: str) -> None:
        done = await self._rest.call("POST", f"/sandboxes/{sandbox}/execute", {"command": _SAY})
        if done["exitCode"] != 0:
            raise RuntimeError(f"the command has not ended well: {done}")


def _command(script: str) -> Command:
    return Command(
        id=f"exec_{uuid.uuid4().hex[:16]}", argv=["/bin/sh", "-c", script], timeout_ms=30_000
    )


async def main() -> None:
    """Do what is asked."""
    commands = Commands()
    await answer(
        {
            "prepare": commands.prepare,
            "living": commands.living,
            "cold": commands.cold,
            "end": commands.end,
        }
    )


if __name__ == "__main__":
    asyncio.run(main())
