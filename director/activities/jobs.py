"""What a step's activity works on, and what it made of it."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel import Session

from director.activities.heartbeat import Beat
from director.domain import plans, steps
from director.domain.base import Json
from director.domain.departments import Ceiling
from director.domain.errors import NotFoundError
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import Approval, StepStatus
from director.domain.security import NOTHING_GIVEN, Given
from director.domain.times import to_millis, utc_now
from director.domain.workflows import Definition
from director.store import runs, security, workflows
from director.store.steps import StepKey
from director.store.tables import RunRow, SandboxRow, StepRow

_DEFINITIONS = 128


@dataclass(frozen=True)
class StepJob:
    """A step with all that it needs from the store; secrets stay in here."""

    key: StepKey
    run: RunRow
    definition: Definition
    began: datetime
    beat: Beat
    ceilings: list[Ceiling] = field(default_factory=list)
    """The limits of every department that has a step in the run; the smallest one counts."""
    given: Given | None = NOTHING_GIVEN
    """What security profiles ask for, until the sandbox is made; None where the one that the
    workflow names is gone."""
    lent: dict[str, str] = field(default_factory=dict)
    """The variables of the sandbox that the run works in, where that is somebody's."""
    approval: Approval | None = None
    """What was decided on the step, where it waited for that."""
    repeats: int = 0
    """How often the command of this attempt was lost with its container, and run again."""
    fresh: bool = False
    """Whether the attempt has begun with this job: no other worker has done anything for it."""

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
        """The variables: those of the step win over the start's, those over the workflow's, and
        those over the ones of a sandbox that is not the run's own."""
        ours = {**self.definition.environment, **self.run.environment, **self.step.environment}
        return {**self.lent, **ours}

    @property
    def judged_next(self) -> bool:
        """Whether a verify follows directly and judges the exit code."""
        return plans.judged_next(self.definition, self.key.index)

    @property
    def is_last(self) -> bool:
        """Whether the run has no step after this one."""
        return self.key.index == len(self.definition.steps) - 1

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
    also: Callable[[Session], None] = lambda _: None
    """Writes what belongs to the end: the last of the output."""


class Definitions:
    """Definitions that steps were performed of lately: a version never changes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Definition] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, session: Session, workflow_id: str, version: int) -> Definition:
        """One version of a workflow's definition; one that brings files along is not kept."""
        at = (workflow_id, version)
        with self._lock:
            if (kept := self._kept.get(at)) is not None:
                self._kept.move_to_end(at)
                return kept
        found = workflows.definition(session, workflow_id, version)
        if found.workspace is None or not found.workspace.files:
            with self._lock:
                self._kept[at] = found
                if len(self._kept) > _DEFINITIONS:
                    self._kept.popitem(last=False)
        return found


def load_job(
    session: Session, key: StepKey, beat: Beat, definitions: Definitions, *, fresh: bool = False
) -> StepJob:
    """Read a step's job from the store, in the transaction that opens the step or later."""
    run = session.get_one(RunRow, key.run_id)
    row = session.get_one(StepRow, (key.run_id, key.index))
    definition = definitions.get(session, run.workflow_id, run.version)
    approval = Approval.model_validate(row.approval) if row.approval else None
    began = row.started_at or utc_now()
    anywhere = not any(definition.wish(step).is_any for step in definition.steps)
    ceilings = [] if anywhere else runs.ceilings(session, key.run_id)
    given = _given(session, run, definition)
    lent = session.get_one(SandboxRow, run.sandbox_id).environment if run.sandbox_id else {}
    return StepJob(
        key, run, definition, began, beat, ceilings, given, lent, approval, row.repeats, fresh
    )


def _given(session: Session, run: RunRow, definition: Definition) -> Given | None:
    if run.workspace_ready or run.sandbox_id is not None:
        return NOTHING_GIVEN
    try:
        return security.given(session, definition.config.security_profile_id, run.session_id)
    except NotFoundError:
        return None
