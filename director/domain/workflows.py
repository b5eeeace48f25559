"""Workflows: versioned definitions, with the state of their latest run."""

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from director.domain.base import (
    Body,
    Description,
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
from director.domain.departments import Capabilities, ResourceLimits, Wish
from director.domain.runs import DEFAULT_PRIORITY, OnSandboxLost, RunStatus
from director.domain.steps import Step, Steps, Variables, VerifyStep, step_ids
from director.domain.times import Moment
from director.domain.trees import PathError, normalise

DEFAULT_RUN_TIMEOUT_MS = 24 * 3600 * 1000


class SandboxConfig(Body):
    """The sandbox that the steps of a run share."""

    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")] | None = None
    resource_limits: ResourceLimits | None = None


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


def _check_paths(files: dict[str, str]) -> dict[str, str]:
    for path in files:
        try:
            empty = not normalise(path.encode())
        except PathError as error:
            raise PlacedError(str(error), path) from None
        if empty or path.endswith("/"):
            raise PlacedError("names a folder, not a file", path)
    return files


Files = Annotated[dict[str, str], Field(max_length=1000), AfterValidator(_check_paths)]


class WorkflowConfigUpdate(Body):
    """Bounds to change; null is the default again."""

    timeout: Millis | None = None
    max_retries: MaxRetries | None = None
    on_sandbox_lost: OnSandboxLost | None = None
    priority: Priority | None = None
    sandbox: SandboxConfig | None = None


class WorkspaceSource(Body):
    """What lies in `/workspace` when a run starts; `files` go on top of the archive."""

    files: Files | None = None
    archive_id: str | None = None


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
