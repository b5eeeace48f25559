"""Security profiles: what they ask for, and what is shown of them."""

from typing import Annotated, NamedTuple, Self

from pydantic import model_validator

from director.domain.base import Body, Description, Flag, Name, NotNull, Shape, example
from director.domain.departments import Ceiling
from director.domain.policies import ResourceLimits, SecurityLevel, SecurityPolicy
from director.domain.times import Moment


class ProfileCreate(Body):
    """A security profile to make. Its level says what its `constraints` leave out."""

    model_config = example(
        name="high-security",
        description="High security profile for production",
        level="high",
        constraints={
            "allowFilesystem": False,
            "allowNetwork": False,
            "allowExec": True,
            "maxProcesses": 5,
            "maxOpenFiles": 50,
            "readOnlyRoot": True,
            "noPrivileges": True,
        },
    )

    name: Name
    description: Description | None = None
    level: SecurityLevel
    constraints: SecurityPolicy = SecurityPolicy()
    resource_limits: Ceiling = Ceiling()


class ProfileUpdate(Body):
    """What to change: absent is unchanged, null clears, `constraints` and `resourceLimits` are
    merged by key. Sandboxes that are there keep what they have until it is enforced."""

    name: Annotated[Name | None, NotNull] = None
    description: Description | None = None
    level: Annotated[SecurityLevel | None, NotNull] = None
    constraints: SecurityPolicy | None = None
    resource_limits: Ceiling | None = None


class Profile(Shape):
    """A security profile as the API shows it."""

    id: str
    name: str
    description: str | None
    level: SecurityLevel
    constraints: SecurityPolicy
    resource_limits: Ceiling
    policy: SecurityPolicy
    """What it asks for in all: its constraints, and its level's where they say nothing."""
    owner_id: str
    created_at: Moment
    updated_at: Moment


class Given(NamedTuple):
    """What profiles ask for, to be judged together with what others say."""

    limits: list[ResourceLimits]
    policies: list[SecurityPolicy]


NOTHING_GIVEN = Given([], [])


class Scope(Body):
    """Where a policy is to hold: in the sandboxes of a session, now and later, or in one sandbox,
    which must be in the session where both are named."""

    session_id: str | None = None
    sandbox_id: str | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.session_id is None and self.sandbox_id is None:
            raise ValueError("is empty: name a `sessionId`, a `sandboxId`, or both")
        return self


class EnforceBody(Body):
    """Where a policy is to hold. `recreate`: what no living sandbox can be given is brought about
    by a new container; its files stay, and the commands that run in it are killed."""

    model_config = example(scope={"sessionId": "ses_123", "sandboxId": "sbx_123"})

    scope: Scope
    recreate: Flag = False


class FieldsOf(Shape):
    """Fields of a sandbox's policy, as the API names them."""

    sandbox_id: str
    fields: list[str]


class Violation(Shape):
    """Where a policy does not hold, and why."""

    sandbox_id: str
    run_id: str | None = None
    issue: str


class Enforcement(Shape):
    """What became of enforcing a policy."""

    policy_id: str
    scope: Scope
    applied: list[FieldsOf]
    """The sandboxes where it holds now, but for what needs a new container, each with what has
    changed."""
    requires_restart: list[FieldsOf]
    """What holds only in a new container: enforce it with `recreate: true`."""
    violations: list[Violation]


class EnforceInput(Shape):
    """The profile that is to hold in a sandbox."""

    sandbox_id: str
    policy_id: str
    recreate: bool = False


class EnforceOutcome(Shape):
    """What became of it in one sandbox; with an `issue` nothing has changed."""

    applied: list[str] = []
    requires_restart: list[str] = []
    issue: str | None = None
