"""What a sandbox may have and do, in the engine's words."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Any

import docker
from docker.types import LogConfig, Ulimit

from director.domain.policies import Hold, Holding, below
from director.domain.sandboxes import OUTPUT_LIMIT, SandboxSpec
from director.sandbox.folders import HOSTNAME, Room, SandboxFolder
from director.sandbox.images import Image
from director.sandbox.probe import Probe
from director.sandbox.runtime import SandboxError
from director.sandbox.spool import SUPERVISOR_PROCESSES
from director.sandbox.tools import PREFIX, supervisor_name

TOOLS = "/director/tools"
SUPERVISOR = f"{TOOLS}/{PREFIX}"
"""How the program begins by which a sandbox that can be used runs."""

SPARE_PROCESSES = 2 * SUPERVISOR_PROCESSES
"""What the engine allows on top of the processes that commands may have: a command meets the
limit of its user first, so that the supervisor can still fork when a command cannot."""

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""What engines hide by themselves; a list of our own takes the place of theirs."""

_MIB = 1024 * 1024
_SHM = 16 * _MIB
_SMALL_TMP_MIB = 16
_RECORDS_MIB = 4 * OUTPUT_LIMIT // _MIB
_TMP = "/tmp"  # noqa: S108 (the sandbox's own, not the host's)
_FOLDERS = {"/workspace": "workspace", "/home/sandbox": "home", _TMP: "tmp"}
"""What a sandbox can write, and where it lies below its folder on the host."""
_SHUT = "ro,nosuid,nodev,noexec,size=64k"
_ENFORCED = Holding(how=Hold.ENFORCED)


@dataclass(frozen=True)
class Plan:
    """What makes a sandbox what its spec says: on the host, at the engine, and how it holds."""

    room: Room
    binds: tuple[str, ...]
    host_config: Mapping[str, Any]
    """Arguments of the engine's host config, as the client's library names them."""
    masked: tuple[str, ...]
    held: Mapping[str, Holding]

    def with_volumes(self, volumes: Iterable[str]) -> dict[str, Any]:
        """The host config for an image that declares such volumes. Of each the engine would make a
        folder on the host's disk that can be written without bound, also below a read-only root:
        there they are empty and read-only instead."""
        config = dict(self.host_config)
        if config["read_only"]:
            ours = {bind.split(":")[1] for bind in self.binds}
            shut = {path: _SHUT for path in volumes if str(PurePosixPath(path)) not in ours}
            config["tmpfs"] = {**shut, **config["tmpfs"]}
        return config


def plan(spec: SandboxSpec, probe: Probe, root: Path) -> Plan:
    """Turn a spec into what one host does for it; `root` is the sandbox's folder there.

    Raises SandboxError for a limit that this host cannot hold, or that makes no sense."""
    _check(spec, probe)
    allowed = _allowed(spec)
    return Plan(
        room=_room(spec, probe, allowed),
        binds=_binds(spec, root, allowed),
        host_config=_ceilings(spec, probe) | _locks(spec, probe) | _connection(spec, probe),
        masked=tuple(sorted({*MASKED, *(p for p in spec.blocked_paths if p != "/etc")})),
        held=_held(spec, probe),
    )


def container_config(
    client: docker.DockerClient,
    planned: Plan,
    folder: SandboxFolder,
    labels: Mapping[str, str],
    image: Image,
) -> dict[str, Any]:
    """Give the arguments of the engine's create call for a sandbox."""
    host_config = client.api.create_host_config(
        binds=list(planned.binds),
        init=True,
        shm_size=_SHM,
        log_config=LogConfig(type=LogConfig.types.NONE),
        **planned.with_volumes(image.volumes),
    )
    host_config["MaskedPaths"] = list(planned.masked)  # the library has no argument for it
    return {
        "entrypoint": [f"{TOOLS}/{supervisor_name()}"],
        "command": [str(PurePosixPath(TOOLS).parent)],
        "user": f"{folder.uid}:{folder.uid}",
        "working_dir": "/workspace",
        "hostname": HOSTNAME,
        # Beside mode `none`, whose network the engine would set up all the same: it starts itself
        # again for that, in the middle of each start. runc alone makes the namespace and its `lo`.
        "network_disabled": planned.host_config["network_mode"] == "none",
        "environment": _environment(image.environment),
        "labels": dict(labels),
        "stop_signal": "SIGTERM",
        "healthcheck": {"test": ["NONE"]},
        "host_config": host_config,
    }


def _check(spec: SandboxSpec, probe: Probe) -> None:
    can = {"memory": probe.memory, "cpu": probe.cpu, "processes": probe.processes}
    for what, possible in can.items():
        if not possible:
            raise _refused(f"this engine cannot limit {what}: enable the kernel's cgroup for it")
    if spec.disk_mib is not None and probe.no_disk:
        raise _refused(f"this host cannot limit disk: {probe.no_disk}; ask for none, or mend that")
    values = (spec.memory_mib - 5, spec.cpus, spec.max_processes, spec.max_open_files - 15)
    if min(values) <= 0:
        raise _refused(
            "a sandbox needs at least 6 MiB, a part of a cpu, 1 process and 16 open files"
        )


def _refused(message: str) -> SandboxError:
    return SandboxError(message, retryable=False)


def _ceilings(spec: SandboxSpec, probe: Probe) -> dict[str, Any]:
    memory, files = spec.memory_mib * _MIB, spec.max_open_files
    swapless = {"memswap_limit": memory} if probe.swap else {}
    return swapless | {
        "mem_limit": memory,
        "nano_cpus": int(min(spec.cpus, probe.cpus) * 1e9),
        "pids_limit": spec.max_processes + SPARE_PROCESSES,
        "ulimits": [
            Ulimit(name="nofile", soft=files, hard=files),
            Ulimit(name="core", soft=0, hard=0),
        ],
    }


def _locks(spec: SandboxSpec, probe: Probe) -> dict[str, Any]:
    filtered = [f"seccomp={_seccomp()}"] if probe.seccomp else []
    small = {}
    if "/etc" in spec.blocked_paths:
        # Instead of a mask, which would hide the names of users and hosts that are put on top.
        small["/etc"] = _SHUT
    if not spec.allow_filesystem:
        small[_TMP] = f"rw,nosuid,nodev,exec,mode=1777,size={_SMALL_TMP_MIB}m"
    return {
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true", *filtered],
        "read_only": _read_only(spec),
        "tmpfs": small,
    }


def _read_only(spec: SandboxSpec) -> bool:
    """What an image lets everybody write, as `/var/tmp`, would be on the host's disk: where disk is
    bounded, nothing can be written there."""
    return spec.read_only_root or not spec.allow_filesystem or spec.disk_mib is not None


def _connection(spec: SandboxSpec, probe: Probe) -> dict[str, Any]:
    """The engine's own resolver is led to where nobody answers: it would ask for whoever is in the
    sandbox, and perhaps from outside of it. The sandbox asks for itself, as far as it may."""
    if spec.network is None:
        return {"network_mode": "none"}
    ipv6 = ("all", "default") if probe.ipv6 else ()
    off = {f"net.ipv6.conf.{where}.disable_ipv6": "1" for where in ipv6}
    return {"network_mode": spec.network.name, "dns": ["127.0.0.1"], "sysctls": off}


@cache
def _seccomp() -> str:
    text = resources.files("director.sandbox").joinpath("seccomp.json").read_text()
    return json.dumps(json.loads(text), separators=(",", ":"))


def _allowed(spec: SandboxSpec) -> dict[str, str]:
    """The folders that can be written beyond ours, each with the name of its place on the host."""
    if not spec.allow_filesystem:
        return {}
    mine = [
        path
        for path in sorted(set(spec.allowed_paths))
        if not any(below(path, folder) for folder in (*_FOLDERS, *spec.blocked_paths))
    ]
    outermost = [
        path for path in mine if not any(below(path, other) for other in mine if other != path)
    ]
    return {path: str(number) for number, path in enumerate(outermost)}


def _room(spec: SandboxSpec, probe: Probe, allowed: Mapping[str, str]) -> Room:
    bounded = spec.disk_mib is not None or not spec.allow_filesystem
    return Room(
        disk_mib=spec.disk_mib,
        records_mib=_RECORDS_MIB if bounded and not probe.no_disk else None,
        allowed=tuple(allowed.values()),
        hidden=tuple(_hidden(spec, allowed)),
    )


def _hidden(spec: SandboxSpec, allowed: Mapping[str, str]) -> list[str]:
    """Blocked paths in what can be written, below the sandbox's folder: they must be there to be
    hidden, or the sandbox makes them itself."""
    places = {path: f"allowed/{name}" for path, name in allowed.items()}
    if spec.allow_filesystem:
        places |= _FOLDERS
    return [
        str(PurePosixPath(place, PurePosixPath(path).relative_to(folder)))
        for folder, place in places.items()
        for path in spec.blocked_paths
        if below(path, folder) and path != folder
    ]


def _binds(spec: SandboxSpec, root: Path, allowed: Mapping[str, str]) -> tuple[str, ...]:
    return (
        *_folder_binds(spec, root),
        *(f"{root}/allowed/{name}:{path}" for path, name in allowed.items()),
        f"{root}/claims:/director/claims",
        f"{root}/spool:/director/spool:ro",
        f"{root.parent.parent}/tools:{TOOLS}:ro",
        f"{root}/passwd:/etc/passwd:ro",
        f"{root}/group:/etc/group:ro",
        f"{root}/hosts:/etc/hosts:ro",
        *((f"{root}/resolv.conf:/etc/resolv.conf:ro",) if spec.network else ()),
    )


def _folder_binds(spec: SandboxSpec, root: Path) -> list[str]:
    if spec.allow_filesystem:
        return [f"{root}/{name}:{path}" for path, name in _FOLDERS.items()]
    return [f"{root}/{name}:{path}:ro" for path, name in _FOLDERS.items() if path != _TMP]


def _held(spec: SandboxSpec, probe: Probe) -> dict[str, Holding]:
    held = {
        "memory": _enforced(
            "" if probe.swap else "what is swapped is not counted", emulated=not probe.swap
        ),
        "cpu": _cpu(spec, probe),
        "maxProcesses": _enforced(
            f"and {SPARE_PROCESSES} more for what runs the commands",
            emulated=not probe.own_users,
        ),
        "maxOpenFiles": _enforced("of each process"),
        "noPrivileges": _privileges(probe),
        "readOnlyRoot": _enforced(
            "it is read-only, since disk is bounded" if spec.disk_mib is not None else ""
        ),
        "blockedPaths": _enforced("what the image has there is hidden"),
        "allowFilesystem": _filesystem(spec, probe),
        "allowedPaths": _enforced(
            ""
            if spec.allow_filesystem or not spec.allowed_paths
            else "none can be written while allowFilesystem is false"
        ),
    }
    if spec.disk_mib is not None:
        note = f"its folders together; outputs of commands have {_RECORDS_MIB} MiB of their own"
        held["disk"] = _enforced(note)
    return held


def _enforced(note: str = "", *, emulated: bool = False) -> Holding:
    return Holding(how=Hold.EMULATED if emulated else Hold.ENFORCED, note=note)


def _cpu(spec: SandboxSpec, probe: Probe) -> Holding:
    return _enforced(f"this host has {probe.cpus:g}" if spec.cpus > probe.cpus else "")


def _privileges(probe: Probe) -> Holding:
    open_left = []
    if not probe.seccomp:
        open_left.append("this engine filters no system calls")
    if not probe.own_users:
        open_left.append("the sandbox's user is the worker's")
    return _enforced(" and ".join(open_left), emulated=bool(open_left))


def _filesystem(spec: SandboxSpec, probe: Probe) -> Holding:
    if spec.allow_filesystem:
        return _ENFORCED
    if probe.no_disk:
        return _enforced("the place where outputs of commands go can be written", emulated=True)
    memory = f"{_TMP} ({_SMALL_TMP_MIB} MiB), /dev/shm ({_SHM // _MIB} MiB), /dev/mqueue"
    records = f"outputs of commands ({_RECORDS_MIB} MiB)"
    return _enforced(f"nothing can be written but {memory} and {records}")


def _environment(image_environment: list[str]) -> dict[str, str]:
    ours = {
        "HOME": "/home/sandbox",
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "TMPDIR": _TMP,
    }
    if not any(variable.startswith("LANG=") for variable in image_environment):
        ours["LANG"] = "C.UTF-8"
    return ours
