"""What is left of an installation: containers, processes, mounts, folders of sandboxes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import docker
from chaos.observations import Remains

from director.host import installation_id

MARK = "DIRECTOR_CHAOS"
"""Environment variable that all parts of the installation inherit."""


def remains(home: Path, mark: str) -> Remains:
    """Look for everything that carries our marks."""
    return Remains(
        containers=_containers(home),
        processes=[*_processes(lambda place: _is_marked(place, mark)), *in_sandboxes(home)],
        mounts=_mounts(home),
        folders=_folders(home),
    )


def in_sandboxes(home: Path) -> list[str]:
    """Processes inside of sandboxes, seen from the host."""
    folder = f"{home}/sandboxes/".encode()
    return _processes(lambda place: folder in (place / "mountinfo").read_bytes())


def _is_marked(place: Path, mark: str) -> bool:
    return f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0")


def _processes(wanted: Callable[[Path], bool]) -> list[str]:
    def found() -> Iterator[str]:
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if wanted(place):
                    command = (place / "cmdline").read_bytes().replace(b"\0", b" ")
                    yield f"{place.name}: {command.decode(errors='replace')[:200]}"
            except OSError:
                continue  # it has ended

    return list(found())


def _containers(home: Path) -> list[str]:
    client = docker.from_env()
    try:
        label = f"director.installation={installation_id(home)}"
        found = client.api.containers(all=True, filters={"label": label})
    finally:
        client.close()
    return [f"{container['Names'][0]}: {container['Status']}" for container in found]


def _mounts(home: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{home}/")]


def _folders(home: Path) -> list[str]:
    root = home / "sandboxes"
    return sorted(str(path) for path in root.iterdir()) if root.exists() else []
