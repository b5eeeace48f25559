"""What this host can hold of a sandbox's limits: asked once, from the engine and the kernel."""

import os
import shutil
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker

_PEER = struct.Struct("3i")
_DISK_PROGRAMS = ("mkfs.ext4", "e2fsck", "mount", "umount", "losetup")
_IPV6 = Path("/proc/sys/net/ipv6")
_LOOP_CONTROL = Path("/dev/loop-control")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Probe:
    """What a host can hold. A text is empty where it can, and says else what is missing."""

    memory: bool = True
    cpu: bool = True
    processes: bool = True
    swap: bool = True
    """Whether memory can be limited so that none of it goes to swap."""
    seccomp: bool = True
    own_users: bool = True
    """Whether each sandbox has a user of its own, whose processes the kernel counts."""
    ipv6: bool = True
    """Whether the kernel has it, so that it can be turned off."""
    no_disk: str = ""
    no_networks: str = ""
    cpus: float = 1.0
    memory_mib: int = 0


@dataclass(frozen=True)
class Ability:
    """One line about what a host can hold."""

    name: str
    ok: bool
    detail: str
    remedy: str
    needed: bool = False
    """Whether no sandbox is made without it."""


def probe(client: docker.DockerClient, info: Mapping[str, Any], *, no_networks: str = "") -> Probe:
    """Look at what can be held here. `no_networks` says why networks cannot, where they cannot."""
    options = info.get("SecurityOptions") or []
    return Probe(
        memory=bool(info.get("MemoryLimit")),
        cpu=bool(info.get("CpuCfsQuota")),
        processes=bool(info.get("PidsLimit")),
        swap=bool(info.get("SwapLimit")),
        seccomp=any("seccomp" in str(option) for option in options),
        own_users=os.geteuid() == 0,
        ipv6=_IPV6.exists(),
        no_disk=_no_disk(client),
        no_networks=no_networks,
        cpus=float(info.get("NCPU") or 1),
        memory_mib=int(info.get("MemTotal") or 0) // 2**20,
    )


def abilities(found: Probe) -> list[Ability]:
    """Tell what a host can hold, a line each, with what to do where it cannot."""
    cgroup = "enable the kernel's cgroup controllers memory, cpu and pids"
    groups = {"memory": found.memory, "cpu": found.cpu, "processes": found.processes}
    missing = [name for name, there in groups.items() if not there]
    return [
        Ability(
            "sandbox limits",
            not missing,
            f"{' and '.join(missing)} cannot be limited: no sandbox is made"
            if missing
            else f"memory (of {found.memory_mib} MiB), cpu (of {found.cpus:g}), processes",
            cgroup,
            needed=True,
        ),
        Ability(
            "sandbox swap",
            found.swap,
            "sandboxes never swap" if found.swap else "what a sandbox swaps is not limited",
            "boot with swapaccount=1, or turn swap off",
        ),
        Ability(
            "sandbox filter",
            found.seccomp,
            "system calls are filtered" if found.seccomp else "the engine filters no system calls",
            "use a kernel and an engine with seccomp",
        ),
        Ability(
            "sandbox disks",
            not found.no_disk,
            found.no_disk or "sandboxes can have disks of a fixed size",
            "sandboxes that ask for `disk` are refused until then",
        ),
    ]


def _no_disk(client: docker.DockerClient) -> str:
    """Why sandboxes cannot have disks of their own; empty where they can."""
    if os.geteuid() != 0:
        return "only root can mount disks for sandboxes"
    missing = [name for name in _DISK_PROGRAMS if not shutil.which(name, path=PATH)]
    if missing:
        return f"{', '.join(missing)} not installed (packages e2fsprogs, mount)"
    if not _LOOP_CONTROL.exists():
        return "the kernel has no loop devices (modprobe loop)"
    if "ext4" not in Path("/proc/filesystems").read_text().split():
        return "the kernel has no ext4 (modprobe ext4)"
    return "" if _sees_our_mounts(client) else "the engine does not see what is mounted here"


def _sees_our_mounts(client: docker.DockerClient) -> bool:
    """Whether the engine lives in our mount namespace; whoever holds its socket tells."""
    path = next((p for a in client.api.adapters.values() if (p := _socket(a))), None)
    if path is None:
        return False
    with socket.socket(socket.AF_UNIX) as engine:
        try:
            engine.connect(path)
            peer = engine.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            theirs = Path(f"/proc/{_PEER.unpack(peer)[0]}/ns/mnt").readlink()
        except OSError:
            return False
    return theirs == Path("/proc/self/ns/mnt").readlink()


def _socket(adapter: object) -> str | None:
    found = getattr(adapter, "socket_path", None)
    return found if isinstance(found, str) else None
