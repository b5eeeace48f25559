"""Sessions: what belongs together, with an idle time and a bound on departments."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from director.domain.base import Body, Description, Int, Json, Millis, Name, NotNull, Shape, example
from director.domain.times import Moment


class SessionStatus(StrEnum):
    """Where a session stands."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    EXPIRED = "expired"
    RESTORING = "restoring"


SessionType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,63}$")]


class SessionConfig(Body):
    """Bounds of a session; `timeout` is idle time in ms, reset by a write or a running workflow."""

    max_departments: Annotated[Int, Field(ge=0, le=10_000)] | None = None
    timeout: Millis | None = None


class SessionCreate(Body):
    """A session to make."""

    model_config = example(
        type="director",
        name="Main Director Session",
        description="Primary director session for orchestration",
        config={"maxDepartments": 10, "timeout": 3600000},
    )

    type: SessionType
    name: Name
    description: Description | None = None
    config: SessionConfig = SessionConfig()
    security_profile_id: str | None = None
    """The profile that its sandboxes are made under."""


class SettableStatus(StrEnum):
    """The statuses that a caller may set."""

    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"


class SessionUpdate(Body):
    """What to change: absent is unchanged, null clears, `config` is merged by key."""

    name: Annotated[Name | None, NotNull] = None
    description: Description | None = None
    status: Annotated[SettableStatus | None, NotNull] = None
    config: SessionConfig | None = None
    security_profile_id: str | None = None


class SessionMetrics(Shape):
    """Counts of what a session holds."""

    active_departments: int
    total_tasks: int
    running_tasks: int


class Session(Shape):
    """A session as the API shows it."""

    id: str
    type: str
    name: str
    description: str | None
    status: SessionStatus
    owner_id: str
    config: Json
    security_profile_id: str | None
    metrics: SessionMetrics
    created_at: Moment
    updated_at: Moment
    expires_at: Moment | None


def merged(stored: Json, change: Body | None) -> Json:
    """Merge a partial object into a stored one by key; null removes the key, or clears it all."""
    if change is None:
        return {}
    return _merged(stored, change.model_dump(mode="json", exclude_unset=True))


def _merged(stored: Json, sent: Json) -> Json:
    result = dict(stored)
    for key, value in sent.items():
        inner = _merged(result.get(key) or {}, value) if isinstance(value, dict) else value
        result[key] = inner
    return {key: value for key, value in result.items() if value is not None}
