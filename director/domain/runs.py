"""Runs: statuses, and what travels through Temporal. How they move is in `states`."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from director.domain.archives import Workspace
from director.domain.base import Body, Flag, Json, Shape, Text
from director.domain.policies import EffectivePolicy
from director.domain.steps import OnFailure
from director.domain.times import Moment

DEFAULT_PRIORITY = 3
"""In the middle of Temporal's scale, 1 (most urgent) to 5."""


class RunStatus(StrEnum):
    """Where a run stands; `created` is a workflow that was never started."""

    CREATED = "created"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def ended(self) -> bool:
        """Whether nothing follows."""
        return self in _ENDED_RUN


class StepStatus(StrEnum):
    """Where a step stands."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def ended(self) -> bool:
        """Whether this attempt has its outcome."""
        return self in _ENDED_STEP


_ENDED_RUN = frozenset(
    {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.TIMED_OUT}
)
_ENDED_STEP = frozenset(
    {
        StepStatus.COMPLETED,
        StepStatus.FAILED,
        StepStatus.SKIPPED,
        StepStatus.CANCELLED,
        StepStatus.TIMED_OUT,
    }
)


class OnSandboxLost(StrEnum):
    """What follows when a sandbox is lost with its host: its steps are repeated elsewhere, from
    the last checkpoint or else from the first, or the run fails."""

    REPEAT = "repeat"
    FAIL = "fail"


class StepPlan(Shape):
    """One step as the workflow needs it: no command, no environment, no criteria."""

    kind: Literal["step"] = "step"
    index: int
    id: str
    type: str
    timeout_ms: int
    max_attempts: int = 1
    backoff_ms: int = 1000
    on_failure: OnFailure = OnFailure.FAIL
    judges: int | None = None
    """For a verify: the index of the execute step that it judges, and repeats from."""


class Sequence(Shape):
    """Steps one after the other."""

    kind: Literal["sequence"] = "sequence"
    children: "list[StepPlan | Sequence]"

    def steps(self) -> list[StepPlan]:
        """All steps below, in order."""
        found: list[StepPlan] = []
        for child in self.children:
            found.extend([child] if isinstance(child, StepPlan) else child.steps())
        return found


class RunInput(Shape):
    """The input of `DirectorWorkflow`: ids, types, time-outs. Everything else is in the store."""

    run_id: str
    workflow_id: str
    session_id: str
    owner_id: str
    department_id: str | None = None
    priority: int = DEFAULT_PRIORITY
    timeout_ms: int
    paused: bool = False
    """Whether to hold before the first step: a pause came before the start."""
    on_sandbox_lost: OnSandboxLost = OnSandboxLost.REPEAT
    plan: Sequence


class RunResult(Shape):
    """The result of `DirectorWorkflow`."""

    status: RunStatus
    completed_steps: int
    failed_step: int | None = None


class StepInput(Shape):
    """Which step to run, and the number of the attempt as its user counts."""

    run_id: str
    index: int
    attempt: int
    last_attempt: bool = True


class StepOutcome(Shape):
    """How an attempt of a step ended, as far as the workflow must know; or why it has not:
    `queued` waits for the signal `granted`, `waiting` for `approve`, `pending` is to be asked of
    the host of its sandbox."""

    status: StepStatus
    host_id: str | None = None
    exit_code: int | None = None
    checkpoint_id: str | None = None
    code: str | None = None
    """The error's code of the API, where it failed."""
    elapsed_ms: int = 0


class PlaceInput(Shape):
    """A host did not take a step, or the settling, in time: is the sandbox there lost?"""

    run_id: str
    ending: bool = False
    """The run is at its end and needs no other place."""
    step: int | None = None
    """The index of that step: the run goes on behind a checkpoint before it, or begins anew."""


class Placed(Shape):
    """What became of the question; after a loss the run goes on from another sandbox."""

    lost: bool
    host_id: str | None = None
    """The host that has the sandbox; None: no host has it, and any may make it."""
    repeat_from: int = 0
    """The index of the step behind the last checkpoint, from which the run goes on."""


class SettleInput(Shape):
    """The end of a run, for the activity that cleans up and writes what is not written yet."""

    run_id: str
    status: RunStatus
    failed_step: int | None = None
    code: str | None = None


class SettleOutcome(Shape):
    """Done, or on which host the sandbox lies that is still to be removed."""

    host_id: str | None = None


class StatusNote(Shape):
    """A status that the workflow reached and no step's activity writes."""

    run_id: str
    status: RunStatus


class ProgressSignal(Shape):
    """The payload of the `progress` signal, from a step that lasts or from an agent outside."""

    source: Literal["step", "agent"] = "agent"
    step: int | None = None
    message: str | None = None
    percent: float | None = None
    elapsed_ms: int | None = None
    output_bytes: int | None = None


class Progress(ProgressSignal):
    """A progress signal with the number that the workflow gave it."""

    number: int


class ProgressNote(Shape):
    """Numbered progress for the event log."""

    run_id: str
    entries: list[Progress]


class RunState(Shape):
    """What the query of a run answers: the live state in the workflow's own memory."""

    status: RunStatus
    step: int
    total_steps: int
    current_step: int | None
    attempt: int
    paused: bool
    signals: list[str]
    progress: list[Progress]


class ApprovalBody(Body):
    """What `POST …/signals/approve` says of a step that waits for it."""

    approved: Flag
    reason: Annotated[Text, Field(max_length=2000)] | None = None


class Approval(Shape):
    """A decision on a step that waits for one, and who made it."""

    approved: bool
    reason: str | None = None
    by: str


class StepView(Shape):
    """A step of a run as the API shows it."""

    index: int
    id: str
    type: str
    status: StepStatus
    attempt: int
    department_id: str | None = None
    """The department that it is in; of one that only says what it requires, as soon as one has
    taken it."""
    start_time: Moment | None
    end_time: Moment | None
    result: Json | None
    error: Json | None


class RunView(Shape):
    """A run as the API shows it; `GET /workflows/{id}/status` answers the latest."""

    workflow_id: str
    run_id: str | None = None
    session_id: str
    status: RunStatus
    step: int = 0
    total_steps: int
    progress: int = 0
    current_step: StepView | None = None
    steps: list[StepView] = []
    result: Json | None = None
    error: Json | None = None
    definition_version: int
    priority: int = DEFAULT_PRIORITY
    pause_requested: bool = False
    """Whether the run is to hold before its next step, or holds already."""
    image: str | None = None
    resolved_image: str | None = None
    effective_policy: EffectivePolicy | None = None
    """What counts for its sandbox, and how its host holds each field, once that is made."""
    sandbox_id: str | None = None
    """The sandbox that it works in where `config.sandboxId` names one; the one that its own has
    become at its end, with `config.keepSandbox`."""
    workspace: Workspace | None = None
    """The commit of the repository that its workspace was filled from, once that is there."""
    derived_from: Json | None = None
    sandbox_losses: int = 0
    """How often the run lost its sandbox with its host, and went on in another."""
    created_at: Moment
    started_at: Moment | None = None
    completed_at: Moment | None = None
    temporal: dict[str, Any] | None = None


def percent(done: int, total: int) -> int:
    """Completed steps as a whole percentage; 100 only at the end."""
    return 100 * done // total if total else 0
