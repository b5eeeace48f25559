"""Sandboxes: what one is made of, what runs in it, and what came out."""

from datetime import datetime
from enum import StrEnum

from director.domain.base import Shape
from director.domain.policies import (
    DEFAULT_CPUS,
    DEFAULT_MEMORY_MIB,
    DEFAULT_OPEN_FILES,
    DEFAULT_PROCESSES,
    EffectivePolicy,
    Holding,
    NetworkMode,
)

OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of stdout, and of stderr, that are kept of one command; the rest is drained and counted."""

TERM_GRACE_MS = 10_000
"""Milliseconds between TERM and KILL when a command's time is over."""


class SandboxNetwork(Shape):
    """The network that a sandbox starts on, and whom it asks for names."""

    name: str
    """What the engine calls the network; its rules are in force."""
    resolvers: list[str] = []
    """Whom it asks for names, as far as the network's policies allow it; nobody where none are."""
    names: dict[str, list[str]] = {}
    """The addresses of names that it knows without asking anybody."""


class SandboxSpec(Shape):
    """Everything a host needs to make a sandbox. `id` makes the making idempotent."""

    id: str
    image: str
    """The image as asked; the alias table of the host may resolve it to another."""
    owner_id: str
    """The run that the sandbox belongs to; the container carries it as a label."""
    epoch: int = 0
    """How often the run has lost its sandbox with a host: one of another epoch is made anew."""
    memory_mib: int = DEFAULT_MEMORY_MIB
    cpus: float = DEFAULT_CPUS
    max_processes: int = DEFAULT_PROCESSES
    max_open_files: int = DEFAULT_OPEN_FILES
    disk_mib: int | None = None
    """How much all its files may take; None: whatever the host's disk has."""
    read_only_root: bool = False
    allow_filesystem: bool = True
    """Whether anything but a small `/tmp` can be written."""
    allowed_paths: list[str] = []
    """Folders that can be written besides the workspace, the home and `/tmp`."""
    blocked_paths: list[str] = []
    network: SandboxNetwork | None = None
    """None: it has no network at all."""

    def under(self, policy: EffectivePolicy) -> "SandboxSpec":
        """The same sandbox under a policy."""
        limits, security = policy.resource_limits, policy.security_policy
        fields = {
            "memory_mib": limits.memory or self.memory_mib,
            "cpus": limits.cpu or self.cpus,
            "max_processes": security.max_processes or self.max_processes,
            "max_open_files": security.max_open_files or self.max_open_files,
            "disk_mib": limits.disk,
            "read_only_root": bool(security.read_only_root),
            "allow_filesystem": security.allow_filesystem is not False,
            "allowed_paths": security.allowed_paths or [],
            "blocked_paths": security.blocked_paths or [],
            "network": None if policy.network_mode == NetworkMode.NONE else self.network,
        }
        return self.model_copy(update=fields)


class SandboxInfo(Shape):
    """A sandbox that exists on a host."""

    id: str
    image: str
    resolved_image: str
    """The image that runs, with its digest."""
    created: bool
    """False when the sandbox was found and adopted instead of made."""
    held: dict[str, Holding] = {}
    """How the host holds the fields of the sandbox's policy, by their names in the API."""


class SandboxRecord(Shape):
    """A sandbox as it is found on a host, or what is left of it."""

    id: str
    owner: str
    """The run that it belongs to; empty where what is left does not tell."""
    epoch: int
    made_at: datetime


class CpuUsage(Shape):
    """`percent` of one core that is used; `cores` that may be."""

    percent: float
    cores: float | None


class MemoryUsage(Shape):
    """In MiB, without caches of files that the kernel can take back."""

    used_mb: float
    limit_mb: float | None


class DiskUsage(Shape):
    """In MiB; null where the sandbox has no disk of its own."""

    used_mb: float | None
    limit_mb: float | None


class NetworkUsage(Shape):
    """Bytes that came and went; none where the sandbox has no network."""

    rx: int = 0
    tx: int = 0


class SandboxMetrics(Shape):
    """What a running sandbox uses now."""

    cpu: CpuUsage
    memory: MemoryUsage
    disk: DiskUsage
    network: NetworkUsage = NetworkUsage()
    pids: int
    uptime_ms: int
    timestamp: datetime


class Cause(StrEnum):
    """Why a command ended."""

    EXIT = "exit"
    TIMEOUT = "timeout"
    KILLED = "killed"
    OOM = "oom"
    LOST = "lost"
    """Its container went away under it (engine stopped, machine restarted): it may be repeated."""


class Command(Shape):
    """A command for a sandbox. A string in the API becomes `["/bin/sh", "-c", string]` here."""

    id: str
    """`exec_…`, or any name of `[A-Za-z0-9_.-]`: the same id never runs twice in a sandbox."""
    argv: list[str]
    environment: dict[str, str] = {}
    context: str | None = None
    """JSON for `$DIRECTOR_CONTEXT`, or `$DIRECTOR_CONTEXT_FILE` where it is over 64 KiB."""
    stdin: bytes | None = None
    """What it reads, and then the end."""
    workdir: str = "/workspace"
    timeout_ms: int
    """Enforced inside the sandbox, also while everything of ours is down."""


class CommandResult(Shape):
    """How a command ended. Sizes count all bytes written, also those over `OUTPUT_LIMIT`."""

    exit_code: int
    cause: Cause
    duration_ms: int
    stdout_bytes: int
    stderr_bytes: int
    truncated: bool = False
