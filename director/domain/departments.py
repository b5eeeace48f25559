"""Departments: named pools inside a session, with limits and capabilities."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from director.domain.base import Body, Int, Json, Name, NotNull, Number, Shape, example
from director.domain.times import Moment


class DepartmentStatus(StrEnum):
    """Whether a department takes work: a paused one grants nothing, a draining one no new run."""

    ACTIVE = "active"
    PAUSED = "paused"
    DRAINING = "draining"


class TicketState(StrEnum):
    """What a ticket stands for: a slot that is held, or a place in the line for one."""

    WAITING = "waiting"
    HELD = "held"


class Ceiling(Body):
    """Ceiling of a sandbox: memory in MiB, cpu in cores."""

    memory: Annotated[Int, Field(ge=16, le=1024 * 1024)] | None = None
    cpu: Annotated[Number, Field(ge=0.05, le=256)] | None = None


class DepartmentConfig(Body):
    """How many steps may run at once, and how large their sandboxes may be."""

    max_concurrent_tasks: Annotated[Int, Field(ge=1, le=10_000)] | None = None
    resource_limits: Ceiling | None = None


Capabilities = Annotated[list[Name], Field(max_length=100)]


@dataclass(frozen=True)
class Wish:
    """Where a step is to run: in the department that it names, or in any that is as wished."""

    department_id: str | None = None
    domain: str | None = None
    requires: tuple[str, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether any department that matches will do."""
        return self.domain is not None or bool(self.requires)

    @property
    def is_any(self) -> bool:
        """Whether it asks for a department at all, whichever."""
        return self.department_id is not None or self.is_open

    def met_by(self, domain: str, capabilities: list[str]) -> bool:
        """Whether a department of that domain and with these capabilities will do."""
        return self.domain in (None, domain) and set(self.requires) <= set(capabilities)

    def __str__(self) -> str:
        parts = [f"domain {self.domain!r}"] if self.domain is not None else []
        parts += [f"capabilities {', '.join(self.requires)}"] if self.requires else []
        return " and ".join(parts)


class DepartmentCreate(Body):
    """A department to make."""

    model_config = example(
        sessionId="ses_01j9zqk3v8x4r2m6n0p5t7w1ya",
        name="Code Generation Department",
        domain="code-generation",
        config={"maxConcurrentTasks": 5, "resourceLimits": {"memory": 512, "cpu": 1.0}},
        capabilities=["javascript", "typescript", "react"],
    )

    session_id: str
    name: Name
    domain: Name
    config: DepartmentConfig = DepartmentConfig()
    capabilities: Capabilities = []


class DepartmentUpdate(Body):
    """What to change: absent is unchanged, null clears, `config` is merged by key."""

    name: Annotated[Name | None, NotNull] = None
    domain: Annotated[Name | None, NotNull] = None
    status: Annotated[DepartmentStatus | None, NotNull] = None
    config: DepartmentConfig | None = None
    capabilities: Capabilities | None = None


class Department(Shape):
    """A department as the API shows it."""

    id: str
    session_id: str
    name: str
    domain: str
    status: DepartmentStatus
    owner_id: str
    config: Json
    capabilities: list[str]
    created_at: Moment
    updated_at: Moment


class DepartmentMetrics(Shape):
    """What a department does and did. Active are the steps that have a slot, queued those that
    wait for one; `utilization` is active tasks by `maxConcurrentTasks`."""

    active_tasks: int
    queued_tasks: int
    completed_tasks: int
    failed_tasks: int
    avg_duration_ms: int | None
    p95_duration_ms: int | None
    utilization: float | None
    last_activity_at: Moment | None
