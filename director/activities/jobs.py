"""What a step's activity works on, and what it made of it."""

from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from director.activities.heartbeat import Beat
from director.domain import plans, steps
from director.domain.base import Json
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import Approval, StepStatus
from director.domain.times import to_millis, utc_now
from director.domain.workflows import Definition
from director.store import workflows
from director.store.steps import StepKey
from director.store.tables import RunRow, StepRow


@dataclass(frozen=True)
class StepJob:
    """A step with all that it needs from the store; secrets stay in here."""

    key: StepKey
    run: RunRow
    definition: Definition
    began: datetime
    beat: Beat
    approval: Approval | None = None
    """What was decided on the step, where it waited for that."""
    repeats: int = 0
    """How often the command of this attempt was lost with its container, and run again."""

    @property
    def step(self) -> steps.Step:
        """The step as its author wrote it."""
        return self.definition.steps[self.key.index]

    @property
    def step_id(self) -> str:
        """The step's name in the API."""
        return steps.step_ids(self.definition.steps)[self.key.index]

    @property
    def environment(self) -> dict[str, str]:
        """The variables: those of the step win over the start's, those over the workflow's."""
        return {**self.definition.environment, **self.run.environment, **self.step.environment}

    @property
    def judged_next(self) -> bool:
        """Whether a verify follows directly and judges the exit code."""
        return plans.judged_next(self.definition, self.key.index)

    @property
    def left_ms(self) -> int:
        """Milliseconds until the step's time is over; negative when it is."""
        return self.step.timeout - to_millis(utc_now() - self.began)

    def check(self) -> None:
        """Raise when the step must stop: StepFailure when its time is over, else as `Beat.check`.
        May be called from any thread."""
        self.beat.check()
        if self.left_ms < 0:
            seconds = self.step.timeout / 1000
            raise StepFailure(FailureCode.TIMEOUT, f"the step ran longer than {seconds:g} s")

    @property
    def command_id(self) -> str:
        """One name for one attempt: the same never runs twice in a sandbox."""
        return f"{self.key.index}-{self.key.attempt}-{self.key.temporal_run_id}"


@dataclass(frozen=True)
class StepDone:
    """How a step ended."""

    status: StepStatus
    """Also `waiting` for an approval, `queued` for room, or `pending` on another host."""
    result: Json | None = None
    error: Json | None = None
    host_id: str | None = None
    """The host that is to be asked instead."""


def load_job(session: Session, key: StepKey, beat: Beat) -> StepJob:
    """Read a step's job from the store, once the step is open."""
    run = session.get_one(RunRow, key.run_id)
    row = session.get_one(StepRow, (key.run_id, key.index))
    definition = workflows.definition(session, run.workflow_id, run.version)
    approval = Approval.model_validate(row.approval) if row.approval else None
    began = row.started_at or utc_now()
    return StepJob(key, run, definition, began, beat, approval, row.repeats)
