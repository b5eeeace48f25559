"""What this machine has of what Director needs: a line each, with what to do where it is not."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import docker
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from director.machine.apt import SetUpError
from director.machine.engine import Engine, answering
from director.machine.image import present_image
from director.networks.filter import trouble as filter_trouble
from director.sandbox import tools
from director.sandbox.probe import abilities, probe

PORTS = {"API": 8000, "Temporal": 7233, "Temporal UI": 8233}

_ENOUGH_GIB = 5


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `remedy` says what to do where it is not `ok`."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    needed: bool = True
    """False where Director works without it, only with less."""


def checks(
    home: Path, ports: Mapping[str, int] = PORTS, sandbox_image: str | None = None
) -> list[Check]:
    """Look at everything that Director needs on this machine. Changes nothing."""
    return [
        _python(),
        _temporal(),
        *_engine(sandbox_image),
        _supervisor(home),
        _user(),
        _cgroups(),
        *(port_check(name, port, home) for name, port in ports.items()),
        _disk(home),
        _nft(),
    ]


def print_doctor(found: Sequence[Check], console: Console | None = None) -> int:
    """Write the checks as a table and return the exit code: 1 when something needed is missing."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in found:
        remedy = "" if check.ok or not check.remedy else f" → {check.remedy}"
        table.add_row(_mark(check), check.name, escape(check.detail + remedy))
    (console or Console()).print(table)
    return int(any(check.needed and not check.ok for check in found))


def port_check(name: str, port: int, home: Path) -> Check:
    """Tell whether a port on loopback is free, or held by this installation."""
    title = f"port {port}"
    if not _listening(port):
        return Check(title, True, f"free for {name}")
    holder = _holder(port) or "another program"
    ours = str(home) in holder or sys.prefix in holder
    remedy = "DIRECTOR_PORT chooses another" if name == "API" else "another one is used then"
    return Check(title, ours, f"held by {holder[:80]}", remedy, needed=False)


def _mark(check: Check) -> str:
    if check.ok:
        return "[green]ok[/]"
    return "[red]missing[/]" if check.needed else "[yellow]note[/]"


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), version, "Director needs 3.11 or newer")


def _temporal() -> Check:
    program = Path(sys.executable).with_name("temporal")
    if not program.is_file():
        return Check("temporal", False, f"not at {program}", "run `make setup`")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return Check("temporal", done.returncode == 0, done.stdout.strip(), "run `make setup`")


def _engine(sandbox_image: str | None) -> list[Check]:
    start = "`make up` starts one as root on Debian; elsewhere start Docker yourself"
    try:
        engine = answering()
    except SetUpError as error:
        return [Check("engine", False, str(error))]
    if engine is None:
        unknown = Check("sandbox image", False, "unknown while no engine answers", needed=False)
        return [Check("engine", False, "no Docker engine answers", start), unknown]
    try:
        image = _image(engine.client, sandbox_image)
        return [*_engine_state(engine), image, *_held(engine.client)]
    finally:
        engine.client.close()


def _engine_state(engine: Engine) -> list[Check]:
    live = Check(
        "live-restore",
        engine.live_restore,
        "on" if engine.live_restore else "off: sandboxes end when the engine restarts",
        'put {"live-restore": true} into /etc/docker/daemon.json and reload Docker',
        needed=False,
    )
    return [Check("engine", True, f"Docker {engine.version}"), live]


def _held(client: docker.DockerClient) -> list[Check]:
    """What can be held here of the limits of sandboxes."""
    found = abilities(probe(client, client.info()))
    return [Check(a.name, a.ok, a.detail, a.remedy, needed=a.needed) for a in found]


def _image(client: docker.DockerClient, asked: str | None) -> Check:
    if asked:
        there = bool(client.api.images(asked, quiet=True))
        return Check("sandbox image", there, asked, "pull or build it: DIRECTOR_SANDBOX_IMAGE")
    tag = present_image(client)
    detail = tag or "not there yet"
    return Check("sandbox image", tag is not None, detail, "`make up` makes it", needed=False)


def _supervisor(home: Path) -> Check:
    """What runs commands inside sandboxes: made already, or there is what makes it."""
    found = tools.present(home.absolute() / "tools")
    makes = tools.compiler()
    made = f"made by {makes} at the first start" if makes else "no C compiler makes it"
    remedy = f"apt-get install {' '.join(tools.PACKAGES)}"
    return Check("supervisor", bool(found or makes), str(found or made), remedy)


def _user() -> Check:
    root = os.geteuid() == 0
    detail = "root: each sandbox gets a user of its own" if root else f"user {os.geteuid()}"
    return Check("user", root, detail, "only root can give each sandbox its own user", needed=False)


def _cgroups() -> Check:
    kinds = {line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()}
    if "cgroup" in kinds:
        return Check("cgroups", True, "version 1")
    there = "cgroup2" in kinds
    remedy = "mount them at /sys/fs/cgroup, or use a machine of its own"
    return Check("cgroups", there, "version 2" if there else "not mounted", remedy)


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(place).free / 2**30
    return Check("disk", free >= _ENOUGH_GIB, f"{free:.0f} GiB free at {place}", "make room")


def _nft() -> Check:
    why = filter_trouble()
    remedy = "networks of sandboxes are refused without"
    return Check("nftables", not why, why or "filters networks", remedy, needed=False)


def _listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _holder(port: int) -> str | None:
    inodes = _inodes(port)
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(link.readlink()) in inodes:
                command = (link.parents[1] / "cmdline").read_bytes()
                return command.replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
    return None


def _inodes(port: int) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{fields[9]}]")
    return found
