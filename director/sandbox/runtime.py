"""What a place that runs sandboxes offers. `docker` implements it, `scripted` serves tests."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from director.domain.sandboxes import (
    Command,
    CommandResult,
    SandboxInfo,
    SandboxMetrics,
    SandboxRecord,
    SandboxSpec,
)

CPU_WINDOW_SECONDS = 0.1
"""Over how long the cpu that a sandbox uses is measured."""

Stream = Literal["stdout", "stderr"]
EntryKind = Literal["file", "directory", "symlink", "other"]


class SandboxError(Exception):
    """The sandbox could not do it. `retryable` tells whether the same call may work later."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.message = message
        self.retryable = retryable


class SandboxNotFoundError(SandboxError, LookupError):
    """There is no such sandbox on this host."""

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"sandbox {sandbox_id} is not on this host", retryable=False)


class Execution(Protocol):
    """A command that was started in a sandbox, by this process or by one before it."""

    def wait(self, seconds: float) -> CommandResult | None:
        """Wait for the end at most so long; None while it goes on."""

    def read(self, stream: Stream, offset: int, limit: int) -> bytes:
        """Bytes that the command has written so far, from `offset`; empty when there are none.

        Once `wait` has told the end, none are added, whatever a child in the background writes.
        Raises SandboxError when the sandbox has tampered with its own records."""

    def kill(self) -> None:
        """Ask for the KILL of the command and everything it started, also of what it left
        behind. Does not wait: `wait` tells the end, with the cause `killed`. Idempotent."""


class Workspace(Protocol):
    """The files of a sandbox's `/workspace`, read from the host without following links."""

    def kind(self, path: str) -> EntryKind | None:
        """What lies at a path relative to `/workspace` (or absolute below it); None: nothing."""

    def read(self, path: str, limit: int) -> bytes:
        """At most `limit` bytes of a regular file. Raises FileNotFoundError, or PermissionError
        for anything that is no regular file or lies outside `/workspace`."""

    def glob(self, pattern: str) -> list[str]:
        """Relative paths of the regular files that match, sorted; `**` stands for any folders.

        Raises SandboxError when there are too many entries to look through."""

    def path(self) -> str:
        """The folder on the host."""


class SandboxRuntime(Protocol):
    """Makes, runs and removes sandboxes on one host. Every method may be repeated safely."""

    def create(
        self, spec: SandboxSpec, *, pulling: Callable[[], None] | None = None
    ) -> SandboxInfo:
        """Make the sandbox, or adopt the one with this id: a stopped one is started again, one of
        another epoch is removed with its files and made anew. `pulling` is called where its image
        is not here and is fetched first.

        Raises SandboxError: `retryable` when the engine does not answer, not so when the image
        cannot be had or a limit cannot be enforced."""

    def runs(self, sandbox_id: str, *, epoch: int) -> bool:
        """Whether the sandbox runs as it was made for that epoch: `create` would start nothing."""

    def run(self, sandbox_id: str, command: Command) -> Execution:
        """Start a command, or attach to the one that has this id already.

        Raises SandboxNotFoundError, or SandboxError for a command that no process could be
        (no program, a NUL in a value, a name that is none). A program that is not there is no
        error: its exit code is 127, or 126 where it cannot be executed, as a shell has it."""

    def workspace(self, sandbox_id: str) -> Workspace:
        """The files of a sandbox. Raises SandboxNotFoundError."""

    def own(self, sandbox_id: str) -> None:
        """Give every file in the workspace to the sandbox's user, after the host wrote there."""

    def quiet(self, sandbox_id: str, which: Callable[[str], bool] | None = None) -> None:
        """Kill every command that goes on in it, or those of some ids, and wait for their ends,
        for whoever begins anew in the same files. Nothing to do where there is no such sandbox.

        Raises SandboxError, retryable, where one has not ended in time."""

    def pause(self, sandbox_id: str) -> None:
        """Hold every process in it where it is. Idempotent; nothing to do where none runs."""

    def resume(self, sandbox_id: str) -> None:
        """Let what was held go on. Idempotent; nothing to do where none is held."""

    def stop(self, sandbox_id: str, grace_seconds: float) -> None:
        """Ask every command to end, KILL what has not ended after so long, and stop the container;
        the files stay. Idempotent; nothing to do where there is no such sandbox."""

    def limit(self, spec: SandboxSpec) -> None:
        """Give a sandbox that runs less memory, cpu or processes, at once; nothing else of the spec
        counts. Idempotent.

        Raises SandboxNotFoundError, or SandboxError where it uses more memory than that."""

    def remake(self, spec: SandboxSpec) -> SandboxInfo:
        """Give a sandbox a new container after a spec of the same epoch: all that runs in it is
        killed, its files stay. Idempotent.

        Raises SandboxNotFoundError, and SandboxError as `create`."""

    def metrics(self, sandbox_id: str, *, window: float = CPU_WINDOW_SECONDS) -> SandboxMetrics:
        """What it uses now, its cpu over so many seconds, or with 0 on average since it was
        started. Raises SandboxNotFoundError where it does not run."""

    def retire(self, sandbox_id: str, *, epoch: int, wanted: Callable[[], bool]) -> None:
        """Kill everything in it and let its container go, if the sandbox is of that epoch and
        `wanted` says so while nobody can make or remove it. Its files stay, and `create` brings
        it back among them; `remove` has little left to do."""

    def remove(self, sandbox_id: str, *, epoch: int | None = None) -> None:
        """Kill everything in it, remove container and files; with an epoch, only while the
        sandbox is of that one. Idempotent."""

    def sandboxes(self) -> Sequence[SandboxRecord]:
        """Every sandbox of this installation on this host, by id."""
