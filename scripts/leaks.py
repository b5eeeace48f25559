"""What a test run left behind: processes with the ports they hold, containers, mounts.

Everything that a run starts inherits its mark in the environment and works below its folder, so
that what other people do on this machine in the meantime is never mistaken for a leak.
"""

import os
from pathlib import Path

import docker

MARK = "DIRECTOR_TEST_RUN"
"""Environment variable and container label that name the test run."""

_LISTENING = "0A"


def leaks(run: str, folder: Path, client: docker.DockerClient | None) -> list[str]:
    """One line for each thing of this run that is still there."""
    return [
        *_processes(run),
        *(_containers(run, folder, client) if client else []),
        *(f"mount {place}" for place in _mounts(folder)),
    ]


def _processes(run: str) -> list[str]:
    mark = f"{MARK}={run}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if int(process.name) == os.getpid():
                continue
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(_described(process))
        except OSError:
            continue
    return found


def _described(process: Path) -> str:
    command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    ports = _ports(process)
    holding = f", listening on {', '.join(map(str, ports))}" if ports else ""
    return f"process {process.name}{holding}: {command[:200]}"


def _ports(process: Path) -> list[int]:
    sockets = {link.readlink().name for link in (process / "fd").iterdir() if link.is_symlink()}
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in (process / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and f"socket:[{fields[9]}]" in sockets:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return sorted(ports)


def _containers(run: str, folder: Path, client: docker.DockerClient) -> list[str]:
    found = []
    for container in client.api.containers(all=True):
        sources = [mount.get("Source", "") for mount in container.get("Mounts", [])]
        ours = any(source.startswith(str(folder)) for source in sources)
        if ours or container["Labels"].get(MARK) == run:
            found.append(f"container {container['Names'][0]} {container['Status']}")
    return found


def _mounts(folder: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(str(folder))]
