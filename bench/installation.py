"""A whole Director as `director up` starts it, in a fresh home, for one bench."""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from bench.processes import ROOT, cpu_seconds, memory_mib
from director.cli.stack import Ports, Stack
from director.host import installation_id
from director.machine.ports import Claims

SCRIPTED = {"worker": [sys.executable, "-m", "bench.scripted_worker"]}


@dataclass(frozen=True)
class Installation:
    """What a row needs to know of the Director that it measures."""

    home: Path
    stack: Stack

    @property
    def port(self) -> int:
        """Where the API listens."""
        return self.stack.ports.api

    @property
    def temporal(self) -> str:
        """Where Temporal listens."""
        return f"127.0.0.1:{self.stack.ports.temporal}"

    @property
    def password(self) -> str:
        """The admin's."""
        return (self.home / "admin-password").read_text().strip()

    @property
    def pids(self) -> list[int]:
        """The processes of Director: API, worker and Temporal."""
        return [self.stack.pid(name) for name in ("api", "worker", "temporal")]

    def cpu_seconds(self) -> float:
        """What all of them have used so far."""
        return cpu_seconds(self.pids)

    def memory_mib(self, part: str) -> dict[str, float]:
        """RSS and PSS of a part."""
        return memory_mib(self.stack.pid(part))


@contextmanager
def installed(
    folder: Path, *, scripted: bool, environ: Mapping[str, str] | None = None
) -> Iterator[Installation]:
    """Serve from a fresh home while the block lasts, with default settings but for `environ`.

    What it made on the engine, and its home, go with it; the logs stay where it failed."""
    home = Path(tempfile.mkdtemp(prefix="home-", dir=folder))
    environment = {"PYTHONPATH": str(ROOT), **(environ or {})}
    stack = Stack(home, free_ports(), environment, commands=SCRIPTED if scripted else None)
    with stack:
        try:
            yield Installation(home, stack)
        finally:
            stack.stop()
            if not scripted:
                remove_containers(home)
    shutil.rmtree(home, ignore_errors=True)


def free_ports() -> Ports:
    """Three ports that are free, below those that the kernel gives to connections."""
    with Claims() as claims:
        return Ports(claims.any(), claims.any(), claims.any())


def remove_containers(home: Path) -> None:
    """Remove what an installation has left on the engine."""
    client = docker.from_env()
    try:
        label = f"director.installation={installation_id(home)}"
        for container in client.api.containers(all=True, filters={"label": label}):
            client.api.remove_container(container["Id"], force=True)
    finally:
        client.close()
