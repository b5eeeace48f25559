"""`verify` steps: the host judges what the last execute step did, and records the evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from director.activities.commands import Commands
from director.activities.jobs import StepDone, StepJob
from director.activities.outputs import JUDGED, OutputRecorder
from director.domain.criteria import CommandCriterion, Criterion, change_texts, walk
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import Approval, StepStatus
from director.domain.sandboxes import Cause, Command
from director.domain.steps import VerifyStep
from director.domain.templates import TemplateError, fill
from director.sandbox.runtime import Execution
from director.store import runs
from director.store.steps import StepKey
from director.store.tables import StepRow
from director.verify.evidence import ApprovalNeededError
from director.verify.judge import judge


@dataclass(frozen=True)
class Verifies:
    """Judges criteria against what was recorded and what lies in the workspace."""

    commands: Commands

    def perform(self, job: StepJob, step: VerifyStep) -> StepDone:
        """Judge the step's criterion; what cannot be seen is a failed verdict, never a pass."""
        criterion = _criterion(job, step)
        sandbox = self.commands.sandboxes.prepare(job)
        evidence = RunEvidence(self.commands, job, sandbox, self._judged(job))
        try:
            verdict = judge(criterion, evidence)
        except ApprovalNeededError:
            return _undecided(job)
        result = verdict.model_dump(mode="json", exclude_none=True)
        result["attempt"] = job.key.attempt
        if verdict.passed:
            return StepDone(StepStatus.COMPLETED, result)
        failure = StepFailure(FailureCode.VERIFICATION_FAILED, verdict.message)
        return StepDone(StepStatus.FAILED, result, failure.error)

    def _judged(self, job: StepJob) -> StepRow | None:
        with self.commands.sandboxes.store.read() as session:
            return runs.last_execute(session, job.run.id, before=job.key.index)


def _undecided(job: StepJob) -> StepDone:
    if job.left_ms > 0:
        return StepDone(StepStatus.WAITING)
    message = f"nobody decided within {job.step.timeout / 1000:g} s"
    raise StepFailure(FailureCode.TIMEOUT, message)


class _Unwatched:
    """Nobody looks at a criterion's command until it has ended."""

    def look(self, execution: Execution, *, ended: bool) -> None:
        """Nothing is recorded."""

    def lost(self) -> None:
        """Nothing is forgotten."""


class RunEvidence:
    """Evidence of a run: recorded output, the workspace's files, commands in its sandbox."""

    def __init__(
        self, commands: Commands, job: StepJob, sandbox: str, judged: StepRow | None
    ) -> None:
        self._commands, self._job, self._judged = commands, job, judged
        self._sandboxes = commands.sandboxes
        self._files = self._sandboxes.runtime.workspace(sandbox)
        self._ran = 0

    @property
    def exit_code(self) -> int | None:
        """How the judged command ended."""
        return (self._judged.result or {}).get("exitCode") if self._judged else None

    def output(self, stream: Literal["stdout", "stderr"]) -> str:
        """The end of what the judged command wrote."""
        if self._judged is None:
            return ""
        judged = self._judged
        key = StepKey(judged.run_id, judged.index, judged.attempt, "", 0)
        recorder = OutputRecorder.of_step(self._sandboxes.store, self._sandboxes.blobs, key)
        return recorder.tail(stream, JUDGED)

    def read(self, path: str, limit: int) -> bytes:
        """The beginning of a file of the workspace."""
        return self._files.read(path, limit)

    def kind(self, path: str) -> str | None:
        """What lies at a path."""
        return self._files.kind(path)

    def glob(self, pattern: str) -> Sequence[str]:
        """The files that a pattern names."""
        return self._files.glob(pattern)

    def approval(self) -> Approval | None:
        """What was decided by those who were asked."""
        return self._job.approval

    def run(self, argv: Sequence[str], timeout_ms: int) -> tuple[int | None, str]:
        """Run a command in the sandbox, within what is left of the step's time."""
        self._ran += 1
        command = Command(
            id=f"{self._job.command_id}-verify-{self._ran}",
            argv=list(argv),
            environment=self._job.environment,
            timeout_ms=max(1, min(timeout_ms, self._job.left_ms)),
        )
        ended = self._commands.run(self._job, command, _Unwatched())
        text = _end(ended.execution, "stdout") + _end(ended.execution, "stderr")
        timed_out = ended.result.cause is Cause.TIMEOUT
        return (None if timed_out else ended.result.exit_code), text


def _end(execution: Execution, stream: Literal["stdout", "stderr"]) -> str:
    return execution.read(stream, 0, JUDGED).decode(errors="replace")


def _criterion(job: StepJob, step: VerifyStep) -> Criterion:
    try:
        _check_shell_commands(step.criterion(), job)
        return change_texts(step.criterion(), lambda text: fill(text, job.run.context))
    except TemplateError as error:
        raise StepFailure(FailureCode.INVALID_TEMPLATE, str(error)) from None
    except ValueError as error:
        message = f"with the context's values the criteria are not allowed: {error}"
        raise StepFailure(FailureCode.INVALID_TEMPLATE, message) from None


def _check_shell_commands(criterion: Criterion, job: StepJob) -> None:
    """Raise TemplateError where a value would change what a criterion's command does."""
    for each in walk(criterion):
        if isinstance(each, CommandCriterion) and isinstance(each.command, str):
            fill(each.command, job.run.context, shell=True)
