"""Sandboxes: what one is made of, what runs in it, and what came out."""

from datetime import datetime
from enum import StrEnum

from director.domain.base import Shape

OUTPUT_LIMIT = 64 * 1024 * 1024
"""Bytes of stdout, and of stderr, that are kept of one command; the rest is drained and counted."""

TERM_GRACE_MS = 10_000
"""Milliseconds between TERM and KILL when a command's time is over."""


class SandboxSpec(Shape):
    """Everything a host needs to make a sandbox. `id` makes the making idempotent."""

    id: str
    image: str
    """The image as asked; the alias table of the host may resolve it to another."""
    owner_id: str
    """The run that the sandbox belongs to; the container carries it as a label."""
    epoch: int = 0
    """How often the run has lost its sandbox with a host: one of another epoch is made anew."""
    memory_mib: int = 2048
    cpus: float = 2.0
    max_processes: int = 512
    max_open_files: int = 4096


class SandboxInfo(Shape):
    """A sandbox that exists on a host."""

    id: str
    image: str
    resolved_image: str
    """The image that runs, with its digest."""
    created: bool
    """False when the sandbox was found and adopted instead of made."""


class SandboxRecord(Shape):
    """A sandbox as it is found on a host, or what is left of it."""

    id: str
    owner: str
    """The run that it belongs to; empty where what is left does not tell."""
    epoch: int
    made_at: datetime


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
