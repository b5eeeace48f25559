"""Fifty sandboxes at once, and what the host has of them afterwards: nothing."""

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from e2e.installation import Installation
from support.waiting import until

from director.networks.filter import run_nft
from director.sandbox import disks

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.storm]

COUNT = 50


class Traces:
    """What sandboxes can leave on a host, as the host shows it."""

    def __init__(self, director: Installation) -> None:
        self._director, self._before = director, self._shared()
        self._ids: set[str] = set()
        self._layers: set[str] = set()

    def note(self) -> None:
        """Remember by which names the engine and the kernel have what is there now."""
        client = docker.from_env()
        try:
            for name in self._director.containers():
                found = client.api.inspect_container(name)
                self._ids.add(found["Id"])
                self._layers.add(found["GraphDriver"]["Data"]["MergedDir"])
        finally:
            client.close()

    def there(self) -> dict[str, list[str]]:
        """What is there of those, and what the host had not before."""
        folder = Path(self._director.home, "sandboxes")
        mounts = Path("/proc/self/mountinfo").read_text()
        groups = [place for place in _groups() if place.name in self._ids]
        found = {
            "containers": self._director.containers(),
            "loops": disks.loops_below(self._director.home),
            "mounts": disks.mounts_below(self._director.home),
            "layers": [layer for layer in self._layers if layer in mounts],
            "groups": [str(group) for group in groups],
            "shims": [line for line in _processes() if any(id in line for id in self._ids)],
            "folders": [path.name for path in folder.iterdir()] if folder.exists() else [],
            "shared": sorted(self._shared() - self._before),
        }
        return {what: those for what, those in found.items() if those}

    def _shared(self) -> set[str]:
        links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True)
        names = {line.split(": ")[1] for line in links.stdout.splitlines()}
        return names | set(run_nft("list tables").splitlines())


def _groups() -> Iterator[Path]:
    """The control groups of containers; others may go while one looks."""
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        if Path(folder).name.startswith("docker"):
            yield from (Path(folder, name) for name in names)


def _processes() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, UnicodeDecodeError):
            continue
    return found


def test_fifty_made_and_deleted_at_once_leave_nothing(director: Installation) -> None:
    director.user.token()
    traces = Traces(director)
    until(lambda: not traces.there(), "nothing is there to begin with")

    def make(number: int) -> str:
        """One in five has a disk of its own, and each a command that goes on."""
        limits = {"memory": 32} | ({"disk": 16} if number % 5 == 0 else {})
        body = {"resourceLimits": limits, "command": "sleep 600"}
        sandbox = director.user.call("POST", "/sandboxes?wait=60", body)
        assert sandbox["status"] == "running", sandbox["error"]
        return str(sandbox["id"])

    with ThreadPoolExecutor(COUNT) as threads:
        ids = list(threads.map(make, range(COUNT)))
        traces.note()
        there = traces.there()
        assert {what: len(there[what]) for what in ("containers", "loops", "layers")} == {
            "containers": COUNT,
            "loops": COUNT // 5 * 2,
            "layers": COUNT,
        }
        assert len(there["shims"]) >= COUNT
        assert len(there["groups"]) >= COUNT
        for answer in threads.map(lambda id: director.user.call("DELETE", f"/sandboxes/{id}"), ids):
            assert answer["deleted"]

    until(lambda: not traces.there(), "nothing is left")


def test_fifty_that_are_deleted_while_they_are_made_leave_nothing(director: Installation) -> None:
    director.user.token()
    traces = Traces(director)

    def once(number: int) -> None:
        """Deleted at whatever moment of its making."""
        body = {"resourceLimits": {"memory": 32, "disk": 16}, "command": "sleep 600"}
        sandbox = director.user.call("POST", "/sandboxes?wait=0", body)
        time.sleep(number / 25)
        director.user.call("DELETE", f"/sandboxes/{sandbox['id']}")

    with ThreadPoolExecutor(COUNT) as threads:
        list(threads.map(once, range(COUNT)))

    until(lambda: not traces.there(), "nothing is left")
