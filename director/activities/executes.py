"""`execute` steps: a command in the run's sandbox, followed to its end."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from director.activities.heartbeat import cancel_requested
from director.activities.jobs import StepDone, StepJob
from director.activities.outputs import OutputRecorder
from director.activities.sandboxes import Sandboxes
from director.domain.base import Json
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import ProgressSignal, StepStatus
from director.domain.sandboxes import Cause, Command, CommandResult
from director.domain.steps import ExecuteStep
from director.domain.templates import TemplateError, fill
from director.domain.times import to_millis, utc_now
from director.sandbox.runtime import Execution
from director.store import steps

Tell = Callable[[str, ProgressSignal], None]
"""Sends a progress signal to the workflow of a run; it neither waits nor fails."""

MAX_REPEATS = 3
"""How often a command is run again after its container ended under it: one that ends its own
container would otherwise run for ever."""

_LOST = "the sandbox ended under the command {} times; does the command end all its processes?"
_LOOK = 0.2
_KILL_WAIT = 30.0


@dataclass(frozen=True)
class Executes:
    """Runs commands; a command that another worker began is followed, never begun again."""

    sandboxes: Sandboxes
    tell: Tell

    def perform(self, job: StepJob, step: ExecuteStep) -> StepDone:
        """Run the step's command to its end."""
        command = command_of(job, step)
        sandbox = self.sandboxes.prepare(job)
        recorder = OutputRecorder(self.sandboxes.store, self.sandboxes.blobs, job.key)
        repeats = job.repeats
        while True:
            named = command.model_copy(update={"id": f"{command.id}-{repeats}"})
            execution = self.sandboxes.runtime.run(sandbox, named)
            result = self._follow(job, execution, recorder)
            if result is None:
                return StepDone(StepStatus.CANCELLED)
            if result.cause is not Cause.LOST:
                return _done(job, result, recorder, repeats)
            if repeats >= MAX_REPEATS:
                raise StepFailure(FailureCode.SANDBOX_FAILED, _LOST.format(repeats + 1))
            repeats = self._repeat(job)
            recorder.forget()
            sandbox = self.sandboxes.prepare(job)

    def _follow(
        self, job: StepJob, execution: Execution, recorder: OutputRecorder
    ) -> CommandResult | None:
        pulse = _Pulse(job, self.tell)
        while (result := execution.wait(_LOOK)) is None:
            recorder.record(execution)
            pulse.beat(recorder.size)
            if cancel_requested():
                execution.kill()
                execution.wait(_KILL_WAIT)
                recorder.record(execution)
                return None
        recorder.record(execution)
        return result

    def _repeat(self, job: StepJob) -> int:
        with self.sandboxes.store.write() as session:
            return steps.repeat_step(session, job.key)


class _Pulse:
    """Tells the workflow that a step lasts: every second at first, ever more rarely later, so
    that even a day gives fewer than 200 signals."""

    def __init__(self, job: StepJob, tell: Tell) -> None:
        self._job, self._tell = job, tell
        self._next = time.monotonic() + 1.0

    def beat(self, output_bytes: int) -> None:
        if (now := time.monotonic()) < self._next:
            return
        elapsed = to_millis(utc_now() - self._job.began)
        self._next = now + max(1.0, elapsed / 1000 / 20)
        signal = ProgressSignal(
            source="step",
            step=self._job.key.index,
            elapsed_ms=elapsed,
            output_bytes=output_bytes,
        )
        self._tell(self._job.run.id, signal)


def command_of(job: StepJob, step: ExecuteStep) -> Command:
    """The command of a step with its templates filled. Raises StepFailure."""
    context = job.run.context
    try:
        if isinstance(step.command, str):
            argv = ["/bin/sh", "-c", fill(step.command, context, shell=True)]
        else:
            argv = [fill(part, context) for part in step.command]
        environment = {name: fill(value, context) for name, value in job.environment.items()}
    except TemplateError as error:
        raise StepFailure(FailureCode.INVALID_TEMPLATE, str(error)) from None
    return Command(
        id=job.command_id,
        argv=argv,
        environment=environment,
        context=json.dumps(context, ensure_ascii=False),
        timeout_ms=step.timeout,
    )


def _done(job: StepJob, result: CommandResult, recorder: OutputRecorder, repeats: int) -> StepDone:
    shown = _shown(job, result, recorder, repeats)
    if result.cause is Cause.TIMEOUT:
        seconds = job.step.timeout / 1000
        failure = StepFailure(FailureCode.TIMEOUT, f"the command ran longer than {seconds:g} s")
        return StepDone(StepStatus.TIMED_OUT, shown, failure.error)
    if result.exit_code == 0 or job.judged_next:
        return StepDone(StepStatus.COMPLETED, shown)
    return StepDone(StepStatus.FAILED, shown, _failure(result, recorder).error)


def _failure(result: CommandResult, recorder: OutputRecorder) -> StepFailure:
    if result.cause is Cause.OOM:
        return StepFailure(
            FailureCode.OUT_OF_MEMORY,
            f"the sandbox ran out of memory, and the command ended with {result.exit_code}",
        )
    said = recorder.tail("stderr", 2000).strip() or recorder.tail("stdout", 2000).strip()
    last = said.splitlines()[-1][:500] if said else "it wrote nothing"
    return StepFailure(
        FailureCode.COMMAND_FAILED, f"the command ended with exit code {result.exit_code}: {last}"
    )


def _shown(job: StepJob, result: CommandResult, recorder: OutputRecorder, repeats: int) -> Json:
    return {
        "exitCode": result.exit_code,
        "durationMs": result.duration_ms,
        "stdout": recorder.inline("stdout"),
        "stderr": recorder.inline("stderr"),
        "stdoutBytes": result.stdout_bytes,
        "stderrBytes": result.stderr_bytes,
        "truncated": result.truncated,
        "oomKilled": result.cause is Cause.OOM,
        "attempt": job.key.attempt,
        "repeats": repeats,
    }
