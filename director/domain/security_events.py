"""Security events: what has happened that security is about."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from director.domain.base import Json, Shape
from director.domain.pages import DEFAULT_LIMIT, PageQuery
from director.domain.times import Moment

MAX_EVENTS = 1000


class Severity(StrEnum):
    """How much somebody should care."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class SecurityEventType(StrEnum):
    """Everything that is seen."""

    OOM_KILL = "oom_kill"
    """The kernel has killed a process for want of memory."""
    TIMEOUT_KILL = "timeout_kill"
    """A command was killed because its time was over."""
    EXEC_DENIED = "exec_denied"
    """A command was refused since the sandbox's policy allows none."""
    EGRESS_BLOCKED = "egress_blocked"
    """The packet filter has refused a connection that a sandbox began."""
    INGRESS_BLOCKED = "ingress_blocked"
    """The packet filter has refused a connection to a sandbox."""
    LOGIN_FAILED = "login_failed"
    """A wrong username or password; only admins see it."""
    TOKEN_REUSED = "token_reused"  # noqa: S105 - a name, no secret
    """A refresh token was used again, which has ended its login."""
    POLICY_CHANGED = "policy_changed"
    """A profile, or what a network allows, was changed."""
    POLICY_ENFORCED = "policy_enforced"
    """A policy was enforced on a sandbox or a session."""
    ALERT = "alert"
    """An alert rule has fired."""


SEVERITIES: Mapping[SecurityEventType, Severity] = {
    SecurityEventType.OOM_KILL: Severity.MEDIUM,
    SecurityEventType.TIMEOUT_KILL: Severity.LOW,
    SecurityEventType.EXEC_DENIED: Severity.MEDIUM,
    SecurityEventType.EGRESS_BLOCKED: Severity.MEDIUM,
    SecurityEventType.INGRESS_BLOCKED: Severity.MEDIUM,
    SecurityEventType.LOGIN_FAILED: Severity.MEDIUM,
    SecurityEventType.TOKEN_REUSED: Severity.HIGH,
    SecurityEventType.POLICY_CHANGED: Severity.LOW,
    SecurityEventType.POLICY_ENFORCED: Severity.LOW,
    SecurityEventType.ALERT: Severity.HIGH,
}


class SecurityEvent(Shape):
    """A security event as the API shows it."""

    id: str
    timestamp: Moment
    """When it was first seen."""
    last_at: Moment
    """When it was last seen: what comes again within a minute is one event with a `count`."""
    count: int
    type: SecurityEventType
    severity: Severity
    sandbox_id: str | None
    session_id: str | None
    run_id: str | None
    rule: str
    message: str
    details: Json


class SecurityEventsQuery(PageQuery):
    """Which security events are wanted; conditions combine with AND."""

    limit: Annotated[int, Field(ge=1, le=MAX_EVENTS)] = DEFAULT_LIMIT
    severity: Severity | None = None
    type: SecurityEventType | None = None
    sandbox_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None


class SandboxCount(Shape):
    """How many events a sandbox had."""

    sandbox_id: str
    count: int


class Counts(Shape):
    """How many events there were, each counted as often as it came."""

    total: int
    by_severity: dict[Severity, int]
    by_type: dict[SecurityEventType, int]
    by_sandbox: list[SandboxCount]
    """The twenty with most, these first."""


class SecuritySummary(Shape):
    """What happened of late."""

    last24h: Annotated[Counts, Field(alias="last24h")]
    last7d: Annotated[Counts, Field(alias="last7d")]
    generated_at: Moment
