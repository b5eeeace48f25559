"""What a sandbox may have and do, in the engine's words."""

from collections.abc import Mapping
from typing import Any

import docker
from docker.types import LogConfig, Ulimit

from director.domain.sandboxes import SandboxSpec
from director.sandbox.folders import SandboxFolder
from director.sandbox.runtime import SandboxError
from director.sandbox.spool import SUPERVISOR_PROCESSES

TOOLS = "/director/tools"
HOSTNAME = "sandbox"
SPARE_PROCESSES = 2 * SUPERVISOR_PROCESSES
"""What the engine allows on top of the processes that commands may have: a command meets the
limit of its user first, so that the supervisor can still fork when a command cannot."""

_MIB = 1024 * 1024
_SHM = 16 * _MIB


class Limits:
    """Maps the limits of a spec to one engine, and refuses what that one cannot enforce."""

    def __init__(self, info: Mapping[str, Any]) -> None:
        self._info = info

    def check(self, spec: SandboxSpec) -> None:
        """Raise SandboxError for a limit that would not bite on this host, or makes no sense."""
        needed = {"MemoryLimit": "memory", "CpuCfsQuota": "cpu", "PidsLimit": "processes"}
        for field, what in needed.items():
            if not self._info.get(field):
                raise SandboxError(
                    f"this engine cannot limit {what}: enable the kernel's cgroup for it",
                    retryable=False,
                )
        values = (spec.memory_mib - 5, spec.cpus, spec.max_processes, spec.max_open_files - 15)
        if min(values) <= 0:
            raise SandboxError(
                "a sandbox needs at least 6 MiB, a part of a cpu, 1 process and 16 open files",
                retryable=False,
            )

    def of(self, spec: SandboxSpec) -> dict[str, Any]:
        """Give the limits as arguments of the engine's host config. Memory has no swap."""
        memory = spec.memory_mib * _MIB
        files = spec.max_open_files
        swapless = {"memswap_limit": memory} if self._info.get("SwapLimit") else {}
        return swapless | {
            "mem_limit": memory,
            "nano_cpus": int(min(spec.cpus, self._info["NCPU"]) * 1e9),
            "pids_limit": spec.max_processes + SPARE_PROCESSES,
            "ulimits": [
                Ulimit(name="nofile", soft=files, hard=files),
                Ulimit(name="core", soft=0, hard=0),
            ],
        }


def container_config(
    client: docker.DockerClient,
    folder: SandboxFolder,
    limits: Mapping[str, Any],
    labels: Mapping[str, str],
    image_environment: list[str],
) -> dict[str, Any]:
    """Give the arguments of the engine's create call for a sandbox."""
    host_config = client.api.create_host_config(
        binds=_binds(folder),
        init=True,
        network_mode="none",
        extra_hosts={HOSTNAME: "127.0.0.1"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        shm_size=_SHM,
        log_config=LogConfig(type=LogConfig.types.NONE),
        **limits,
    )
    return {
        "entrypoint": [f"{TOOLS}/busybox", "sh", f"{TOOLS}/supervisor.sh"],
        "command": ["serve"],
        "user": f"{folder.uid}:{folder.uid}",
        "working_dir": "/workspace",
        "hostname": HOSTNAME,
        "environment": _environment(image_environment),
        "labels": dict(labels),
        "stop_signal": "SIGTERM",
        "healthcheck": {"test": ["NONE"]},
        "host_config": host_config,
    }


def _binds(folder: SandboxFolder) -> list[str]:
    tools = folder.root.parent.parent / "tools"
    return [
        f"{folder.workspace}:/workspace",
        f"{folder.home}:/home/sandbox",
        f"{folder.tmp}:/tmp",
        f"{folder.claims}:/director/claims",
        f"{folder.spool}:/director/spool:ro",
        f"{tools}:{TOOLS}:ro",
        f"{folder.passwd}:/etc/passwd:ro",
        f"{folder.group}:/etc/group:ro",
    ]


def _environment(image_environment: list[str]) -> dict[str, str]:
    ours = {
        "HOME": "/home/sandbox",
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "TMPDIR": "/tmp",  # noqa: S108 (the sandbox's own, not the host's)
    }
    if not any(variable.startswith("LANG=") for variable in image_environment):
        ours["LANG"] = "C.UTF-8"
    return ours
