"""Sandboxes that run nothing: what each command does is looked up in a script. For tests."""

import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from director.domain.sandboxes import (
    Cause,
    Command,
    CommandResult,
    CpuUsage,
    DiskUsage,
    MemoryUsage,
    SandboxInfo,
    SandboxMetrics,
    SandboxRecord,
    SandboxSpec,
)
from director.domain.times import utc_now
from director.sandbox.folders import checked_id
from director.sandbox.runtime import (
    CPU_WINDOW_SECONDS,
    SandboxError,
    SandboxNotFoundError,
    Stream,
)
from director.sandbox.workspace import HostWorkspace

_SLICE_SECONDS = 0.005


@dataclass(frozen=True)
class Outcome:
    """What a scripted command does: it writes at its start and ends with a code."""

    stdout: bytes = b""
    stderr: bytes = b""
    exit_code: int = 0
    duration_s: float = 0.0
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Files below `/workspace` that are there once the command has ended."""
    until: threading.Event | None = None
    """The command goes on until this is set, however short `duration_s` is."""


Script = Callable[[Sequence[str]], Outcome]


def succeed(argv: Sequence[str]) -> Outcome:
    """Do nothing, well. The script of a runtime that was given none."""
    del argv
    return Outcome()


class ScriptedExecution:
    """A command of a `ScriptedRuntime`."""

    def __init__(self, command: Command, outcome: Outcome, workspace: Path) -> None:
        self._outcome, self._workspace = outcome, workspace
        self._begin = time.monotonic()
        self._allowed = command.timeout_ms / 1000
        self._over = threading.Event()
        self._cause = Cause.EXIT
        self._result: CommandResult | None = None
        self._lock = threading.Lock()

    def wait(self, seconds: float) -> CommandResult | None:
        """Wait for the end at most so long; None while it goes on."""
        deadline = time.monotonic() + seconds
        while (result := self._settle()) is None and time.monotonic() < deadline:
            self._over.wait(min(_SLICE_SECONDS, max(0.0, deadline - time.monotonic())))
        return result

    def read(self, stream: Stream, offset: int, limit: int) -> bytes:
        """Bytes that the script says were written."""
        written = self._outcome.stdout if stream == "stdout" else self._outcome.stderr
        return written[offset : offset + max(limit, 0)]

    def kill(self) -> None:
        """End it at once. Idempotent."""
        self.end(Cause.KILLED)

    def end(self, cause: Cause) -> None:
        """End it at once for a reason, unless it has ended."""
        if self._settle() is None:
            self._cause = cause
            self._over.set()
            self._settle()

    def _settle(self) -> CommandResult | None:
        with self._lock:
            if self._result is None and self._has_ended():
                self._result = self._conclude()
            return self._result

    def _has_ended(self) -> bool:
        if self._over.is_set():
            return True
        passed = time.monotonic() - self._begin
        waiting = self._outcome.until is not None and not self._outcome.until.is_set()
        if not waiting and passed >= self._outcome.duration_s:
            return True
        if passed >= self._allowed:
            self._cause = Cause.TIMEOUT
        return self._cause is Cause.TIMEOUT

    def _conclude(self) -> CommandResult:
        if self._cause is Cause.EXIT:
            for name, content in self._outcome.files.items():
                path = self._workspace / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return CommandResult(
            exit_code=self._outcome.exit_code if self._cause is Cause.EXIT else 137,
            cause=self._cause,
            duration_ms=int((time.monotonic() - self._begin) * 1000),
            stdout_bytes=len(self._outcome.stdout),
            stderr_bytes=len(self._outcome.stderr),
        )


@dataclass
class _Sandbox:
    spec: SandboxSpec
    workspace: Path
    executions: dict[str, ScriptedExecution] = field(default_factory=dict)
    made_at: datetime = field(default_factory=utc_now)


class ScriptedRuntime:
    """A `SandboxRuntime` whose workspaces are real folders below `root`.

    Its state lives in the instance: give the same one to the next worker, and it finds the
    commands where the last one left them. `ran` counts every command that was started."""

    def __init__(
        self, root: Path, script: Script = succeed, *, missing_images: Collection[str] = ()
    ) -> None:
        self._root = root
        self._script = script
        self._missing = missing_images
        self._sandboxes: dict[str, _Sandbox] = {}
        self._lock = threading.RLock()
        self.ran: list[tuple[str, Command]] = []
        self.removed: list[str] = []
        self.retired: list[str] = []
        self.remade: list[str] = []
        self.held: set[str] = set()
        self.pulls: dict[str, threading.Event] = {}
        """Images that are not here until the event is set."""
        self.stuck: set[str] = set()
        """Sandboxes that cannot be removed now."""

    def create(
        self, spec: SandboxSpec, *, pulling: Callable[[], None] | None = None
    ) -> SandboxInfo:
        """Make the sandbox, or adopt the one with this id and epoch."""
        checked_id(spec.id, "sandbox")
        if (pulled := self.pulls.get(spec.image)) is not None:
            if pulling is not None:
                pulling()
            pulled.wait()
        if spec.image in self._missing:
            raise SandboxError(f"image {spec.image} is not on this host", retryable=False)
        with self._lock:
            found = self._sandboxes.get(spec.id)
            if found is not None and found.spec.epoch != spec.epoch:
                self.remove(spec.id)
            created = spec.id not in self._sandboxes
            if created:
                workspace = self._root / spec.id
                workspace.mkdir(parents=True)
                self._sandboxes[spec.id] = _Sandbox(spec, workspace)
        return SandboxInfo(
            id=spec.id,
            image=spec.image,
            resolved_image=f"{spec.image}@scripted",
            created=created,
        )

    def runs(self, sandbox_id: str, *, epoch: int) -> bool:
        """Whether it was made, for that epoch."""
        found = self._sandboxes.get(sandbox_id)
        return found is not None and found.spec.epoch == epoch

    def spec(self, sandbox_id: str) -> SandboxSpec:
        """What a sandbox was made of."""
        return self._find(sandbox_id).spec

    def run(self, sandbox_id: str, command: Command) -> ScriptedExecution:
        """Start a command, or attach to the one that has this id already."""
        with self._lock:
            sandbox = self._find(sandbox_id)
            if command.id not in sandbox.executions:
                outcome = self._script(command.argv)
                self.ran.append((sandbox_id, command))
                execution = ScriptedExecution(command, outcome, sandbox.workspace)
                sandbox.executions[command.id] = execution
            return sandbox.executions[command.id]

    def workspace(self, sandbox_id: str) -> HostWorkspace:
        """The files of a sandbox. Raises SandboxNotFoundError."""
        return HostWorkspace(self._find(sandbox_id).workspace)

    def own(self, sandbox_id: str) -> None:
        """Nothing to do: there is only one user."""
        self._find(sandbox_id)

    def quiet(self, sandbox_id: str, which: Callable[[str], bool] | None = None) -> None:
        """Kill every command that goes on in it, or those of some ids."""
        with self._lock:
            sandbox = self._sandboxes.get(sandbox_id)
            begun = list(sandbox.executions.items()) if sandbox else []
        for command_id, execution in begun:
            if which is None or which(command_id):
                execution.kill()

    def pause(self, sandbox_id: str) -> None:
        """Note that it is held; what a script does goes on."""
        if sandbox_id in self._sandboxes:
            self.held.add(sandbox_id)

    def resume(self, sandbox_id: str) -> None:
        """Note that it goes on."""
        self.held.discard(sandbox_id)

    def stop(self, sandbox_id: str, grace_seconds: float) -> None:
        """End every command in it; the files stay."""
        self.held.discard(sandbox_id)
        for execution in self.executions(sandbox_id):
            execution.kill()

    def limit(self, spec: SandboxSpec) -> None:
        """Note what it may have from now on."""
        if self.spec_of(spec.id).memory_mib < spec.memory_mib:
            raise SandboxError(f"sandbox {spec.id} would have more than before", retryable=False)
        self._find(spec.id).spec = spec

    def remake(self, spec: SandboxSpec) -> SandboxInfo:
        """End every command in it; the files stay."""
        self.quiet(spec.id)
        self._find(spec.id).spec = spec
        self.remade.append(spec.id)
        return self.create(spec).model_copy(update={"created": True})

    def spec_of(self, sandbox_id: str) -> SandboxSpec:
        """What a sandbox is made of now."""
        return self._find(sandbox_id).spec

    def metrics(self, sandbox_id: str, *, window: float = CPU_WINDOW_SECONDS) -> SandboxMetrics:
        """What every sandbox uses."""
        sandbox = self._find(sandbox_id)
        now = utc_now()
        return SandboxMetrics(
            cpu=CpuUsage(percent=1.5, cores=sandbox.spec.cpus),
            memory=MemoryUsage(used_mb=12, limit_mb=sandbox.spec.memory_mib),
            disk=DiskUsage(used_mb=None, limit_mb=sandbox.spec.disk_mib),
            pids=0,
            uptime_ms=int((now - sandbox.made_at).total_seconds() * 1000),
            timestamp=now,
        )

    def executions(self, sandbox_id: str) -> list[ScriptedExecution]:
        """The commands that were started in a sandbox; none where there is no such sandbox."""
        with self._lock:
            sandbox = self._sandboxes.get(sandbox_id)
            return list(sandbox.executions.values()) if sandbox else []

    def lose(self, sandbox_id: str) -> None:
        """End what runs there as the loss of its container would."""
        for execution in list(self._find(sandbox_id).executions.values()):
            execution.end(Cause.LOST)

    def retire(self, sandbox_id: str, *, epoch: int, wanted: Callable[[], bool]) -> None:
        """Kill every command that goes on in it, if it is of that epoch and it is wanted."""
        self.retired.append(sandbox_id)
        with self._lock:
            sandbox = self._sandboxes.get(sandbox_id)
            if sandbox is not None and sandbox.spec.epoch == epoch and wanted():
                self.lose(sandbox_id)

    def remove(self, sandbox_id: str, *, epoch: int | None = None) -> None:
        """Kill everything in it and remove its files, if it is of that epoch. Idempotent."""
        if sandbox_id in self.stuck:
            raise SandboxError(f"sandbox {sandbox_id} is stuck", retryable=True)
        with self._lock:
            sandbox = self._sandboxes.get(sandbox_id)
            if sandbox is None or epoch not in (None, sandbox.spec.epoch):
                return
            del self._sandboxes[sandbox_id]
        for execution in sandbox.executions.values():
            execution.end(Cause.LOST)
        shutil.rmtree(sandbox.workspace)
        self.removed.append(sandbox_id)

    def sandboxes(self) -> Sequence[SandboxRecord]:
        """Every sandbox, by id."""
        with self._lock:
            return [
                SandboxRecord(
                    id=id,
                    owner=sandbox.spec.owner_id,
                    epoch=sandbox.spec.epoch,
                    made_at=sandbox.made_at,
                )
                for id, sandbox in sorted(self._sandboxes.items())
            ]

    def _find(self, sandbox_id: str) -> _Sandbox:
        try:
            return self._sandboxes[sandbox_id]
        except KeyError:
            raise SandboxNotFoundError(sandbox_id) from None
