"""A command in a run's sandbox, followed to its end; what another worker began is followed too."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from director.activities.heartbeat import StepCancelledError
from director.activities.jobs import StepJob
from director.activities.sandboxes import Sandboxes
from director.domain.failures import FailureCode, StepFailure
from director.domain.sandboxes import Cause, Command, CommandResult
from director.sandbox.runtime import Execution
from director.store import steps

MAX_REPEATS = 3
"""How often a command is run again after its container ended under it: one that ends its own
container would otherwise run for ever."""

_LOST = (
    "the sandbox, or what watches commands in it, ended under the command {} times;"
    " does the command end processes that are not its own?"
)
_LOOK = 0.04
"""Between two looks at what a command has written: a look is cheap, what it finds is paced."""

_KILL_WAIT = 1.0
"""For the last words of a command that is killed; what lives then ends with its container."""


class Watcher(Protocol):
    """Whoever wants to see a command while it runs."""

    def look(self, execution: Execution, *, ended: bool) -> None:
        """Called now and then, and once more after the end."""

    def lost(self) -> None:
        """The command was lost with its container and runs again from its beginning."""


class Ended(NamedTuple):
    """A command that has ended, and how often it was lost before."""

    execution: Execution
    result: CommandResult
    repeats: int


@dataclass(frozen=True)
class Commands:
    """Runs commands of steps, each once as long as its container lives."""

    sandboxes: Sandboxes

    def run(self, job: StepJob, command: Command, watcher: Watcher) -> Ended:
        """Run a command to its end, or follow the one of that id to its end.

        Raises StepCancelledError once it is dead and its sandbox is gone, StepFailure if it is
        lost again and again."""
        sandbox, repeats = self.sandboxes.prepare(job), job.repeats
        while True:
            named = command.model_copy(update={"id": f"{command.id}-{repeats}"})
            execution = self.sandboxes.runtime.run(sandbox, named)
            result = self._followed(job, execution, watcher)
            if result.exit_code:
                self.sandboxes.check_joined(job)
            if result.cause is not Cause.LOST:
                return Ended(execution, result, repeats)
            if repeats >= MAX_REPEATS:
                raise StepFailure(FailureCode.SANDBOX_FAILED, _LOST.format(repeats + 1))
            repeats = self._repeat(job)
            watcher.lost()
            sandbox = self.sandboxes.prepare(job)

    def _followed(self, job: StepJob, execution: Execution, watcher: Watcher) -> CommandResult:
        while (result := execution.wait(_LOOK)) is None:
            watcher.look(execution, ended=False)
            if job.beat.cancelled():
                execution.kill()
                execution.wait(_KILL_WAIT)
                watcher.look(execution, ended=True)
                # Only that ends what left its session and forgot its environment; settling may
                # have to wait for Temporal.
                self.sandboxes.leave(job.run)
                raise StepCancelledError
        watcher.look(execution, ended=True)
        return result

    def _repeat(self, job: StepJob) -> int:
        with self.sandboxes.store.write() as session:
            return steps.repeat_step(session, job.key)
