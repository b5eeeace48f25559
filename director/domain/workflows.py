"""Workflows: versioned definitions, with the state of their latest run."""

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from director.domain.base import Body, Description, Int, Json, Millis, Name, Shape
from director.domain.criteria import needs_execution
from director.domain.departments import ResourceLimits
from director.domain.runs import RunStatus
from director.domain.steps import Step, Steps, Variables, VerifyStep, step_ids
from director.domain.times import Moment

DEFAULT_RUN_TIMEOUT_MS = 24 * 3600 * 1000


class SandboxConfig(Body):
    """The sandbox that the steps of a run share."""

    image: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}$")] | None = None
    resource_limits: ResourceLimits | None = None


class WorkflowConfig(Body):
    """Bounds of a run. `timeout` counts neither queued nor paused time."""

    timeout: Millis = DEFAULT_RUN_TIMEOUT_MS
    max_retries: Annotated[Int, Field(ge=0, le=99)] = 0
    sandbox: SandboxConfig | None = None


class WorkspaceSource(Body):
    """What lies in `/workspace` when a run starts; `files` go on top of the archive."""

    files: Annotated[dict[str, str], Field(max_length=1000)] | None = None
    archive_id: str | None = None


class Definition(Body):
    """What a version of a workflow says; a run keeps the version that it was started with."""

    steps: Steps
    config: WorkflowConfig = WorkflowConfig()
    environment: Variables = {}
    department_id: str | None = None
    workspace: WorkspaceSource | None = None

    @field_validator("steps")
    @classmethod
    def _coherent(cls, steps: list[Step]) -> list[Step]:
        _check_ids(steps)
        _check_judged(steps)
        return steps


class WorkflowCreate(Definition):
    """A workflow to make."""

    session_id: str
    name: Name
    description: Description | None = None


class WorkflowUpdate(Body):
    """What to change; anything of the definition makes a new version."""

    name: Name | None = None
    description: Description | None = None
    steps: Steps | None = None
    config: WorkflowConfig | None = None
    environment: Variables | None = None
    department_id: str | None = None
    workspace: WorkspaceSource | None = None

    @model_validator(mode="after")
    def _coherent(self) -> "WorkflowUpdate":
        if self.steps is not None:
            Definition(steps=self.steps)
        return self


class StartWorkflow(Body):
    """What a run gets: variables for all steps, and values for `{{context.…}}`."""

    environment: Variables = {}
    context: Json = {}


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
    workspace: Json | None
    created_at: Moment
    updated_at: Moment


def _check_ids(steps: list[Step]) -> None:
    ids = step_ids(steps)
    twice = sorted({id for id in ids if ids.count(id) > 1}) if len(set(ids)) < len(ids) else []
    if twice:
        raise ValueError(f"step ids must be unique; {', '.join(twice)} is there twice")


def _check_judged(steps: list[Step]) -> None:
    executed = False
    for number, step in enumerate(steps):
        executed = executed or step.type == "execute"
        if isinstance(step, VerifyStep) and not executed and needs_execution(step.criterion()):
            raise ValueError(
                f"steps.{number}: there is no execute step before this verify for it to judge"
            )
