"""Three commands in a container, from nothing to removed, with docker-py's low-level client."""

import asyncio
from collections.abc import Iterator
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
        made = self.begin(image, network_disabled=network_disabled)
        try:
            for command in commands:
                for _ in self.execute(made, command):
                    pass
        finally:
            self.remove(made)

    def begin(self, image: str, *, network_disabled: bool) -> str:
        """Make a container that waits for commands, and give its id."""
        made = self._create(image, ["sleep", "3600"], network_disabled)
        try:
            self._api.start(made)
        except BaseException:
            self.remove(made)
            raise
        return made

    def first_output(self, image: str, command: str) -> str:
        """Make a container of a command, as `docker run` does, wait for what it says first, and
        give its id."""
        made = self._create(image, ["/bin/sh", "-c", command], network_disabled=True)
        try:
            said = self._api.attach(made, stdout=True, stream=True)
            self._api.start(made)
            next(iter(said))
        except BaseException:
            self.remove(made)
            raise
        return made

    def execute(self, container: str, command: str) -> Iterator[Any]:
        """Run a command to its end, and give its output as it comes. Raises RuntimeError where it
        fails."""
        asked = self._api.exec_create(container, ["/bin/sh", "-c", command])
        yield from self._api.exec_start(asked["Id"], demux=True, stream=True)
        if (code := self._api.exec_inspect(asked["Id"])["ExitCode"]) != 0:
            raise RuntimeError(f"{command!r} ended with {code}")

    def remove(self, container: str) -> None:
        """Remove a container."""
        self._api.remove_container(container, force=True, v=True)

    def _create(self, image: str, argv: list[str], network_disabled: bool) -> str:
        config = self._api.create_host_config(network_mode="none", init=True)
        made = self._api.create_container(
            image,
            argv,
            host_config=config,
            labels={LABEL: "1"},
            network_disabled=network_disabled,
        )
        return str(made["Id"])


async def main() -> None:
    """Do what is asked."""
    await answer({"run": Containers().run})


if __name__ == "__main__":
    asyncio.run(main())
