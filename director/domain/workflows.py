"""Workflows: versioned definitions, with the state of their latest run."""

from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from director.domain.archives import WorkspaceSource
from director.domain.base import (
    Body,
    Description,
    Flag,
    Int,
    Json,
    Millis,
    Name,
    NotNull,
    PlacedError,
    Shape,
    example,
)
from director.domain.criteria import needs_execution
from director.domain.departments import Capabilities, Ceiling, Wish
from director.domain.lifetimes import ImageName
from director.domain.policies import (
    EffectivePolicy,
    Hold,
    Holding,
    Network,
    NetworkMode,
    ResourceLimits,
    SecurityPolicy,
    effective,
)
from director.domain.runs import DEFAULT_PRIORITY, OnSandboxLost, RunStatus
from director.domain.security import NOTHING_GIVEN, Given
from director.domain.steps import Step, Steps, Variables, VerifyStep, step_ids
from director.domain.times import Moment

DEFAULT_RUN_TIMEOUT_MS = 24 * 3600 * 1000


_HELD_OF_A_RUN = {
    "allowExec": Holding(how=Hold.ENFORCED, note="a workflow that forbids it is refused"),
    "maxDuration": Holding(
        how=Hold.ENFORCED, note="bounds the run, as `config.timeout` does: the lower one counts"
    ),
}


class SandboxConfig(Body):
    """The sandbox that the steps of a run share: all that a sandbox of one's own takes."""

    image: ImageName | None = None
    resource_limits: ResourceLimits | None = None
    security_policy: SecurityPolicy | None = None
    network_mode: Network | None = None

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        if self.security_policy is not None and self.security_policy.allow_exec is False:
            issue = "no step could run a command: leave it out, or make it true"
            raise PlacedError(issue, "securityPolicy", "allowExec")
        if self.network_mode not in (None, NetworkMode.ISOLATED, NetworkMode.NONE):
            issue = "a run's own sandbox is not connected: make one that is, and name it by"
            raise PlacedError(f"{issue} `config.sandboxId`", "networkMode")
        return self

    @property
    def max_duration(self) -> int | None:
        """How long a run may take at most, in milliseconds, where that is bounded here."""
        return self.resource_limits.max_duration if self.resource_limits else None

    def policy(self, ceilings: Iterable[Ceiling], given: Given = NOTHING_GIVEN) -> EffectivePolicy:
        """What counts for the sandbox of a run whose departments allow so much at most, under what
        security profiles ask for."""
        allowed = (ResourceLimits(cpu=each.cpu, memory=each.memory) for each in ceilings)
        limits = [*given.limits, self.resource_limits, *allowed]
        policies = [*given.policies, self.security_policy]
        found = effective(limits, policies, self.network_mode)
        return found.with_held(_HELD_OF_A_RUN)


MaxRetries = Annotated[Int, Field(ge=0, le=99)]
Priority = Annotated[Int, Field(ge=1, le=5)]
"""Temporal's own scale: 1 is the most urgent."""


class WorkflowConfig(Body):
    """Bounds of a run, and how urgent it is. `timeout` counts neither queued nor paused time."""

    timeout: Millis = DEFAULT_RUN_TIMEOUT_MS
    max_retries: MaxRetries = 0
    on_sandbox_lost: OnSandboxLost | None = None
    priority: Priority | None = None
    sandbox: SandboxConfig | None = None
    security_profile_id: str | None = None
    """A profile that the sandbox of each run is under."""
    sandbox_id: str | None = None
    """A living sandbox to work in, instead of one that is made for each run."""
    keep_sandbox: Flag | None = None
    """Whether a run's own sandbox stays after its end, as a sandbox like any other."""

    @property
    def run_timeout(self) -> int:
        """Milliseconds that a run may take: its sandbox's `maxDuration` bounds it too."""
        most = self.sandbox.max_duration if self.sandbox else None
        return self.timeout if most is None else min(self.timeout, most)


class WorkflowConfigUpdate(Body):
    """Bounds to change; null is the default again."""

    timeout: Millis | None = None
    max_retries: MaxRetries | None = None
    on_sandbox_lost: OnSandboxLost | None = None
    priority: Priority | None = None
    sandbox: SandboxConfig | None = None
    security_profile_id: str | None = None
    sandbox_id: str | None = None
    keep_sandbox: Flag | None = None


def _coherent(steps: list[Step]) -> list[Step]:
    _check_ids(steps)
    _check_judged(steps)
    return steps


CoherentSteps = Annotated[Steps, AfterValidator(_coherent)]


class Definition(Body):
    """What a version of a workflow says; a run keeps the version that it was started with."""

    steps: CoherentSteps
    config: WorkflowConfig = WorkflowConfig()
    environment: Variables = {}
    department_id: str | None = None
    domain: Name | None = None
    requires: Capabilities | None = None
    workspace: WorkspaceSource | None = None

    @property
    def priority(self) -> int:
        """How urgent a run is that says nothing of its own."""
        return self.config.priority or DEFAULT_PRIORITY

    def wish(self, step: Step) -> Wish:
        """Where a step is to run: what it says itself wins, field by field, over the workflow."""
        if step.department_id is not None:
            return Wish(department_id=step.department_id)
        if self.department_id is not None and step.domain is None and not step.requires:
            return Wish(department_id=self.department_id)
        requires = self.requires if step.requires is None else step.requires
        domain = self.domain if step.domain is None else step.domain
        return Wish(domain=domain, requires=tuple(requires or ()))


class WorkflowCreate(Definition):
    """A workflow to make."""

    model_config = example(
        sessionId="ses_01j9zqk3v8x4r2m6n0p5t7w1ya",
        name="Code Review Workflow",
        description="Automated code review process",
        steps=[
            {"type": "execute", "command": "npm test", "timeout": 300000},
            {"type": "verify", "criteria": "tests pass", "timeout": 60000},
            {"type": "checkpoint", "name": "code-review-checkpoint"},
        ],
        config={"timeout": 1800000, "maxRetries": 3},
    )

    session_id: str
    name: Name
    description: Description | None = None


class WorkflowUpdate(Body):
    """What to change: absent is unchanged, null clears, `config` is merged by key. Anything of
    the definition makes a new version."""

    name: Annotated[Name | None, NotNull] = None
    description: Description | None = None
    steps: Annotated[CoherentSteps | None, NotNull] = None
    config: WorkflowConfigUpdate | None = None
    environment: Variables | None = None
    department_id: str | None = None
    domain: Name | None = None
    requires: Capabilities | None = None
    workspace: WorkspaceSource | None = None


class StartWorkflow(Body):
    """What a run gets: variables for all steps, values for `{{context.…}}`, and its priority,
    which is else the workflow's."""

    model_config = example(
        environment={"NODE_ENV": "production"}, context={"reviewer": "ai-assistant"}
    )

    environment: Variables = {}
    context: Json = {}
    priority: Priority | None = None


class Workflow(Shape):
    """A workflow as the API shows it, with the state of its latest run."""

    id: str
    session_id: str
    owner_id: str
    name: str
    description: str | None
    version: int
    status: RunStatus
    latest_run_id: str | None
    steps: list[dict[str, Any]]
    config: Json
    environment: dict[str, str]
    department_id: str | None
    domain: str | None
    requires: list[str] | None
    workspace: Json | None
    created_at: Moment
    updated_at: Moment


def _check_ids(steps: list[Step]) -> None:
    seen: set[str] = set()
    for number, id in enumerate(step_ids(steps)):
        if id in seen:
            raise PlacedError(f"step ids must be unique; {id} is there twice", number, "id")
        seen.add(id)


def _check_judged(steps: list[Step]) -> None:
    executed = False
    for number, step in enumerate(steps):
        executed = executed or step.type == "execute"
        if isinstance(step, VerifyStep) and not executed and needs_execution(step.criterion()):
            issue = "there is no execute step before this verify for it to judge"
            raise PlacedError(issue, number)
