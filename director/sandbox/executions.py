"""A command in a sandbox, followed from the host through its files."""

import time
from collections.abc import Callable
from typing import NamedTuple

from director.domain.sandboxes import Cause, CommandResult
from director.sandbox.containers import Container
from director.sandbox.folders import SandboxFolder
from director.sandbox.runtime import SandboxError, Stream
from director.sandbox.spool import Ending, Spool
from director.sandbox.watches import Watch

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02
_WOKEN_PAUSE = 0.2
"""Where the end wakes us, and no pause but that of a command that hides its end."""

_LOOK_SECONDS = 1.0
_UNCLAIMED_LOOK_SECONDS = 0.2
_KILLED_CODE = 137

SUPERVISOR_SECONDS = 30.0
"""Seconds that the supervisor may be late before the host ends the whole container: only a
sandbox that tampered with its supervisor, or a host that thrashes, gets there."""

KILL_SECONDS = 2.0
"""The same where a command is to be killed, which takes milliseconds."""

UNWATCHED_SECONDS = 5.0
"""The same where it is certain that nobody watches a command that was begun."""


class Terms(NamedTuple):
    """What a runtime keeps of a command's output, and how long it waits for its end."""

    keep: int
    grace_ms: int
    supervisor_seconds: float


class SpoolExecution:
    """An `Execution` whose truth lies in files, so that any later process can attach to it."""

    def __init__(
        self,
        folder: SandboxFolder,
        container: Container,
        command_id: str,
        timeout_ms: int,
        terms: Terms,
    ) -> None:
        self._folder, self._container = folder, container
        self._spool = Spool(folder, command_id)
        self._terms = terms
        self._patience = terms.grace_ms / 1000 + terms.supervisor_seconds
        self._allowed = timeout_ms / 1000 + self._patience
        self._result = self._spool.result()
        self._begun = time.monotonic()
        self._look_at = time.monotonic() + _UNCLAIMED_LOOK_SECONDS
        self._overdue_at: float | None = None
        self._held = False
        self._unclaimed_until: float | None = None
        self._unwatched_until: float | None = None
        self._kill_overdue_at: float | None = None
        if self._spool.kill_asked():
            self._expect_kill()

    def wait(self, seconds: float) -> CommandResult | None:
        """Wait for the end at most so long; None while it goes on."""
        if self._result is not None:
            return self._result
        deadline = time.monotonic() + seconds
        with self._spool.watch() as watch:  # before the first look: no end comes between them
            while (result := self._outcome()) is None:
                now = time.monotonic()
                if now >= deadline:
                    return None
                watch.pause(min(self._pause(now, watch), deadline - now))
        return result

    def _pause(self, now: float, watch: Watch) -> float:
        if watch.wakes:
            return _WOKEN_PAUSE
        return min(max((now - self._begun) / 10, _SHORTEST_PAUSE), _LONGEST_PAUSE)

    def read(self, stream: Stream, offset: int, limit: int) -> bytes:
        """Bytes that were written so far; after the end, none that came later."""
        size = self._terms.keep
        if self._result is not None:
            written = {"stdout": self._result.stdout_bytes, "stderr": self._result.stderr_bytes}
            size = min(size, written[stream])
        return self._spool.output(stream, offset, min(limit, size - offset))

    def kill(self) -> None:
        """KILL the command and everything it started, also what it left behind."""
        try:
            self._spool.ask_to_kill()
        except FileNotFoundError:
            return  # the sandbox is removed, and with it all that ran there
        if self._kill_overdue_at is None:
            self._expect_kill()

    def _expect_kill(self) -> None:
        patience = min(KILL_SECONDS, self._terms.supervisor_seconds)
        self._kill_overdue_at = self._look_at = time.monotonic() + patience

    def _outcome(self) -> CommandResult | None:
        if self._result is None:
            try:
                self._result = self._observe()
            except FileNotFoundError:
                if self._folder.complete():
                    raise
                self._result = _gone()
        return self._result

    def _observe(self) -> CommandResult | None:
        if not self._folder.complete():
            return _gone()
        ending = self._spool.ending()
        if ending is not None:
            return self._spool.record(self._told(ending))
        now = time.monotonic()
        return self._look_after(now) if now >= self._look_at else None

    def _told(self, ending: Ending) -> CommandResult:
        return CommandResult(
            exit_code=ending.exit_code,
            cause=Cause.LOST if self._is_damaged(ending) else ending.cause,
            duration_ms=ending.duration_ms,
            stdout_bytes=ending.stdout_bytes,
            stderr_bytes=ending.stderr_bytes,
            truncated=max(ending.stdout_bytes, ending.stderr_bytes) > self._terms.keep,
        )

    def _is_damaged(self, ending: Ending) -> bool:
        """Whether output was counted and not kept although there was room: what kept it died."""
        told: list[tuple[Stream, int]] = [
            ("stdout", ending.stdout_bytes),
            ("stderr", ending.stderr_bytes),
        ]
        return any(self._spool.size(name) < min(size, self._terms.keep) for name, size in told)

    def _cut_off(self, cause: Cause) -> CommandResult:
        sizes = self._spool.size("stdout"), self._spool.size("stderr")
        return self._told(Ending(cause, _KILLED_CODE, 0, *sizes))

    def _look_after(self, now: float) -> CommandResult | None:
        """See now and then that somebody still works on it."""
        self._look_at = now + _LOOK_SECONDS
        if not self._spool.submitted():
            return _gone()  # the sandbox was made anew
        claimed = self._spool.claimed()
        if not claimed:
            self._spool.wake("run")
        if self._container.ended():
            return self._decide(self._lost)
        cause = self._claimed_to_end(now) if claimed else self._unclaimed_to_end(now)
        return self._decide(lambda: self._end(cause)) if cause else None

    def _claimed_to_end(self, now: float) -> Cause | None:
        """Why the host ends the container of a command that was begun, if it must."""
        if self._kill_overdue_at is not None and now > self._kill_overdue_at:
            return Cause.KILLED
        if self._stays_unwatched(now):
            return Cause.LOST
        return Cause.TIMEOUT if self._is_overdue(now) else None

    def _is_overdue(self, now: float) -> bool:
        """Whether the command is not ended although its time is long over. While the container is
        held nobody in there can end it, and is given the time for that afterwards."""
        if self._overdue_at is None:
            self._overdue_at = now + self._allowed
        if now <= self._overdue_at:
            return False
        if not self._container.running():
            self._held = True
        elif self._held:
            self._held, self._overdue_at = False, now + self._patience
        return not self._held and now > self._overdue_at

    def _stays_unwatched(self, now: float) -> bool:
        """Whether nobody has watched the command for a while: a container that was started again
        needs a moment to tell what was lost."""
        if not self._spool.unwatched():
            self._unwatched_until = None
        elif self._unwatched_until is None:
            patience = min(UNWATCHED_SECONDS, self._terms.supervisor_seconds)
            self._unwatched_until = now + patience
        return self._unwatched_until is not None and now > self._unwatched_until

    def _unclaimed_to_end(self, now: float) -> Cause | None:
        """Why the host ends the container of a command that nobody takes, if it must: what should
        take it was stopped from inside. One that is held is given time."""
        if self._kill_overdue_at is not None and now > self._kill_overdue_at:
            return Cause.KILLED
        if self._unclaimed_until is not None and now <= self._unclaimed_until:
            return None
        late = self._unclaimed_until is not None
        self._unclaimed_until = now + self._terms.supervisor_seconds
        return Cause.LOST if late and self._container.running() else None

    def _decide(self, verdict: Callable[[], CommandResult | None]) -> CommandResult | None:
        """Pass a verdict while nobody can start the container, and no end has come meanwhile."""
        with self._folder.locked():
            if not self._folder.complete():
                return _gone()
            ending = self._spool.ending()
            result = self._told(ending) if ending else verdict()
            return self._spool.record(result) if result else None

    def _lost(self) -> CommandResult | None:
        if not self._container.ended():
            return None  # somebody started it again
        self._spool.claim()
        return self._cut_off(Cause.LOST)

    def _end(self, cause: Cause) -> CommandResult | None:
        try:
            self._container.kill()
        except SandboxError:
            return None  # the engine does not answer; the next look tries again
        return self._cut_off(cause)


def _gone() -> CommandResult:
    return CommandResult(
        exit_code=_KILLED_CODE, cause=Cause.LOST, duration_ms=0, stdout_bytes=0, stderr_bytes=0
    )
