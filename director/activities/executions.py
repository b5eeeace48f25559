"""A command in a sandbox that somebody made: run once, followed to its end by whichever worker."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import structlog
from sqlalchemy.exc import OperationalError
from sqlmodel import Session
from temporalio import activity
from temporalio.exceptions import ApplicationError

from director.activities.heartbeat import Beat, detached, heartbeating
from director.activities.lifetimes import Lifetimes
from director.activities.outputs import OutputRecorder
from director.domain import names
from director.domain.base import Json
from director.domain.events import EventType
from director.domain.failures import FailureCode
from director.domain.lifetimes import (
    ExecutionInput,
    ExecutionOutcome,
    ExecutionStatus,
    SandboxStatus,
)
from director.domain.sandboxes import Cause, Command, CommandResult
from director.sandbox.runtime import Execution, SandboxError
from director.store import executions, sandboxes
from director.store.executions import Opened, StaleExecutionError
from director.store.tables import ExecutionRow, SandboxRow

log = structlog.get_logger()

_LOOK = 0.04
_KILL_WAIT = 5.0

_LOST: Json = {
    "code": FailureCode.SANDBOX_LOST,
    "message": "the sandbox's container ended under the command; it is not run again",
}
_CANCELLED: Json = {"code": FailureCode.CANCELLED, "message": "it was cancelled"}
_TERMINATED: Json = {
    "code": FailureCode.TERMINATED,
    "message": "its activity was ended in Temporal, and the command was killed",
}
_STATUS = {Cause.TIMEOUT: ExecutionStatus.TIMED_OUT, Cause.KILLED: ExecutionStatus.CANCELLED}


class _End(NamedTuple):
    """How a command ended, as it is written."""

    status: ExecutionStatus
    result: CommandResult | None = None
    error: Json | None = None


@dataclass(frozen=True)
class Executions:
    """Runs commands in sandboxes on this host."""

    lifetimes: Lifetimes

    @activity.defn(name=names.EXECUTE, no_thread_cancel_exception=True)
    def execute(self, asked: ExecutionInput) -> ExecutionOutcome:
        """Run a command to its end; a retry of this activity follows it, or gives its end."""
        id, attempt = asked.execution_id, activity.info().attempt
        store = self.lifetimes.store
        with (
            structlog.contextvars.bound_contextvars(execution_id=id),
            heartbeating(partial(self._is_wanted, id)) as beat,
        ):
            try:
                opened = store.transact(lambda s: executions.open_one(s, id, attempt))
                row = self._performed(opened, attempt, beat) if opened.go else opened.execution
            except StaleExecutionError as error:
                raise detached(str(error)) from error
        code = (row.result or {}).get("exitCode")
        return ExecutionOutcome(status=ExecutionStatus(row.status), exit_code=code)

    @activity.defn(name=names.END_EXECUTION, no_thread_cancel_exception=True)
    def end(self, asked: ExecutionInput) -> None:
        """Kill a command that nobody follows any more, since its activity was ended in Temporal,
        and write what it came to."""
        id, here = asked.execution_id, self.lifetimes.sandboxes
        with structlog.contextvars.bound_contextvars(execution_id=id), heartbeating():
            opened = here.store.transact(lambda session: executions.take_over(session, id))
            if not opened.go:
                return
            here.runtime.quiet(opened.sandbox.id, lambda command_id: command_id == id)
            attempt = opened.execution.activity_attempt
            recorder = self._recorder(id, attempt)
            end = _End(ExecutionStatus.CANCELLED, self._last_words(opened, recorder), _TERMINATED)
            self._closed(id, attempt, end, recorder)
            log.warning("a command is killed, its activity was ended in Temporal")

    def _last_words(self, opened: Opened, recorder: OutputRecorder) -> CommandResult | None:
        """What a killed command came to, its output taken over; None where it never began, or has
        replaced its own records."""
        row = opened.execution
        execution = self.lifetimes.sandboxes.runtime.begun(opened.sandbox.id, row.id)
        if execution is None:
            return None
        try:
            result = execution.wait(_KILL_WAIT)
            recorder.record(execution, everything=True)
        except SandboxError as error:
            if error.retryable:
                raise
            return None
        return result

    def _recorder(self, id: str, attempt: int) -> OutputRecorder:
        here = self.lifetimes.sandboxes
        return OutputRecorder(
            here.store, here.blobs, (id, 0, 1), lambda s: executions.require(s, id, attempt)
        )

    def _is_wanted(self, id: str) -> bool:
        try:
            with self.lifetimes.store.read() as session:
                return not executions.has_ended(session, id)
        except OperationalError:
            log.warning("whether the command is still wanted could not be read", exc_info=True)
            return True

    def _performed(self, opened: Opened, attempt: int, beat: Beat) -> ExecutionRow:
        row, here = opened.execution, self.lifetimes.sandboxes
        recorder = self._recorder(row.id, attempt)
        try:
            with recorder.keeping():
                execution = here.runtime.run(opened.sandbox.id, _command(opened))
                result = self._watched(row.id, execution, recorder, beat)
        except SandboxError as failure:
            if failure.retryable:
                raise
            told = {"code": FailureCode.SANDBOX_FAILED, "message": failure.message}
            return self._closed(row.id, attempt, _End(ExecutionStatus.FAILED, error=told))
        if result.cause is Cause.LOST:
            with recorder.keeping():
                end = self._lost(opened, result)
        else:
            status = _STATUS.get(result.cause, ExecutionStatus.COMPLETED)
            error = _CANCELLED if status is ExecutionStatus.CANCELLED else None
            end = _End(status, result, error)
        return self._closed(row.id, attempt, end, recorder)

    def _watched(
        self, id: str, execution: Execution, recorder: OutputRecorder, beat: Beat
    ) -> CommandResult:
        """Follow a command; one that was ended before it had begun is killed, since whoever ended
        it found nothing to kill."""
        try:
            return self._followed(execution, recorder, beat)
        except (ApplicationError, StaleExecutionError):
            if not self._is_wanted(id):
                execution.kill()
            raise

    def _followed(
        self, execution: Execution, recorder: OutputRecorder, beat: Beat
    ) -> CommandResult:
        while (result := execution.wait(_LOOK)) is None:
            recorder.record(execution, everything=False)
            if beat.cancelled():
                execution.kill()
                result = execution.wait(_KILL_WAIT)
                if result is not None:
                    break
        recorder.record(execution, everything=True)
        return result

    def _lost(self, opened: Opened, result: CommandResult) -> _End:
        """A command that ended with its container is told as lost; the sandbox itself lives on,
        unless it was stopped."""
        with self.lifetimes.store.read() as session:
            sandbox = session.get_one(SandboxRow, opened.sandbox.id)
        stopped = sandbox.stop_wanted or sandbox.delete_wanted
        if stopped or sandbox.status != SandboxStatus.RUNNING:
            return _End(ExecutionStatus.CANCELLED, result, _CANCELLED)
        here = self.lifetimes.sandboxes
        here.runtime.create(here.spec_of(sandbox))
        log.warning("the sandbox's container had ended; it is started again")
        return _End(ExecutionStatus.FAILED, result, _LOST)

    def _closed(
        self, id: str, attempt: int, end: _End, recorder: OutputRecorder | None = None
    ) -> ExecutionRow:
        is_oom = end.result is not None and end.result.cause is Cause.OOM
        usage = self.lifetimes.sandboxes.usage(self._sandbox_of(id)) if is_oom else None

        def close(session: Session) -> ExecutionRow:
            shown = _shown(end.result) if end.result is not None else None
            if recorder is not None and executions.goes_on(session, id, attempt):
                recorder.save(session)
            new = executions.close(session, id, attempt, end.status, shown, end.error)
            row = session.get_one(ExecutionRow, id)
            if new and is_oom:
                sandbox = session.get_one(SandboxRow, row.sandbox_id)
                sandboxes.tell(session, sandbox, EventType.SANDBOX_OOM, usage, executionId=id)
            return row

        return self.lifetimes.store.transact(close)

    def _sandbox_of(self, id: str) -> str:
        with self.lifetimes.store.read() as session:
            return session.get_one(ExecutionRow, id).sandbox_id


def _command(opened: Opened) -> Command:
    row, command = opened.execution, opened.execution.command["command"]
    return Command(
        id=row.id,
        argv=["/bin/sh", "-c", command] if isinstance(command, str) else command,
        environment={**opened.sandbox.environment, **row.environment},
        stdin=row.stdin,
        workdir=row.workdir,
        timeout_ms=row.timeout_ms,
    )


def _shown(result: CommandResult) -> Json:
    return {
        "exitCode": result.exit_code,
        "cause": result.cause,
        "durationMs": result.duration_ms,
        "stdoutBytes": result.stdout_bytes,
        "stderrBytes": result.stderr_bytes,
        "truncated": result.truncated,
    }
