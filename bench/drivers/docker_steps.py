"""Three commands in a container, from nothing to removed, with docker-py's low-level client."""

import asyncio
from typing import Any

import docker

from bench.processes import answer, many

LABEL = "director.bench"


class Containers:
    """A container for each three commands, with the network that Director's sandboxes have."""

    def __init__(self) -> None:
        self._api = docker.APIClient(version="auto", timeout=60)

    async def run(
        self,
        image: str,
        concurrency: int,
        count: int,
        commands: list[str],
        network_disabled: bool = False,
    ) -> Any:
        """So many times, so many at once; each in a thread, since the client blocks.

        With `network_disabled` runc alone makes the same empty network, as in Director's."""

        async def one(_: int) -> None:
            await asyncio.to_thread(self._one, image, commands, network_disabled)

        return await many(concurrency, count, one)

    def _one(self, image: str, commands: list[str], network_disabled: bool) -> None:
        config = self._api.create_host_config(network_mode="none", init=True)
        made = self._api.create_container(
            image,
            ["sleep", "3600"],
            host_config=config,
            labels={LABEL: "1"},
            network_disabled=network_disabled,
        )
        try:
            self._api.start(made["Id"])
            for command in commands:
                self._execute(made["Id"], command)
        finally:
            self._api.remove_container(made["Id"], force=True, v=True)

    def _execute(self, container: str, command: str) -> None:
        asked = self._api.exec_create(container, ["/bin/sh", "-c", command])
        self._api.exec_start(asked["Id"], demux=True)
        if (code := self._api.exec_inspect(asked["Id"])["ExitCode"]) != 0:
            raise RuntimeError(f"{command!r} ended with {code}")


async def main() -> None:
    """Do what is asked."""
    await answer({"run": Containers().run})


if __name__ == "__main__":
    asyncio.run(main())
