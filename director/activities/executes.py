"""`execute` steps: a command in the run's sandbox, its output recorded."""

import json
from dataclasses import dataclass

from director.activities.commands import Commands, Ended
from director.activities.jobs import StepDone, StepJob
from director.activities.outputs import OutputRecorder
from director.activities.pulse import Pulse
from director.domain.base import Json
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import StepStatus
from director.domain.sandboxes import Cause, Command, CommandResult
from director.domain.steps import ExecuteStep
from director.domain.templates import TemplateError, fill
from director.sandbox.runtime import Execution


@dataclass(frozen=True)
class Executes:
    """Performs `execute` steps."""

    commands: Commands

    def perform(self, job: StepJob, step: ExecuteStep, pulse: Pulse) -> StepDone:
        """Run the step's command to its end."""
        command = command_of(job, step)
        sandboxes = self.commands.sandboxes
        recorder = OutputRecorder.of_step(
            sandboxes.store, sandboxes.blobs, job.key, fresh=job.fresh
        )
        with recorder.keeping():
            ended = self.commands.run(job, command, _Recording(recorder, pulse))
        return _done(job, ended, recorder)


@dataclass(frozen=True)
class _Recording:
    """Records the output of a command while it runs."""

    recorder: OutputRecorder
    pulse: Pulse

    def look(self, execution: Execution, *, ended: bool) -> None:
        self.recorder.record(execution, everything=ended)
        self.pulse.output_bytes = self.recorder.size

    def lost(self) -> None:
        self.recorder.restart()


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


def _done(job: StepJob, ended: Ended, recorder: OutputRecorder) -> StepDone:
    result, shown = ended.result, _shown(job, ended, recorder)
    if result.cause is Cause.TIMEOUT:
        seconds = job.step.timeout / 1000
        failure = StepFailure(FailureCode.TIMEOUT, f"the command ran longer than {seconds:g} s")
        return StepDone(StepStatus.TIMED_OUT, shown, failure.error, also=recorder.save)
    if result.exit_code == 0 or job.judged_next:
        return StepDone(StepStatus.COMPLETED, shown, also=recorder.save)
    error = _failure(result, recorder).error
    return StepDone(StepStatus.FAILED, shown, error, also=recorder.save)


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


def _shown(job: StepJob, ended: Ended, recorder: OutputRecorder) -> Json:
    result = ended.result
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
        "repeats": ended.repeats,
    }
