"""The schema on one page; who may log in is in `users`."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, UniqueConstraint, false, text
from sqlmodel import Field

from director.domain.base import Json
from director.domain.checkpoints import CheckpointStatus
from director.domain.departments import DepartmentStatus, TicketState, Wish
from director.domain.lifetimes import ExecutionStatus, SandboxStatus
from director.domain.runs import DEFAULT_PRIORITY, RunStatus, StepStatus
from director.domain.sessions import SessionStatus
from director.domain.times import from_millis, utc_now
from director.store.base import BIG_INTEGER, JsonOrNull, Row, TimedRow, UtcDateTime


def _listed(name: str, *columns: str) -> Index:
    """An index for a list, which shows what is not deleted by descending id: its page is a range
    of the index, and its rows are counted without looking at them."""
    shown = text("deleted_at IS NULL")
    return Index(name, *columns, sqlite_where=shown, postgresql_where=shown)


_QUEUED = text(f"status = '{RunStatus.QUEUED}'")


class SessionRow(TimedRow, table=True):
    """A session; `expires_at` is judged at every read."""

    __tablename__ = "sessions"
    __table_args__ = (
        _listed("ix_sessions_owner", "owner_id", "id"),
        _listed("ix_sessions_owner_status", "owner_id", "status", "id", "expires_at"),
        _listed("ix_sessions_status", "status", "id", "expires_at"),
        _listed("ix_sessions_due", "status", "expires_at"),
    )

    id: str = Field(primary_key=True)
    owner_id: str
    type: str
    name: str
    description: str | None = None
    status: str = SessionStatus.ACTIVE
    config: Json = Field(default={}, sa_type=JSON)
    security_profile_id: str | None = None
    """The profile that its sandboxes are made under."""
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    def renew(self) -> None:
        """Begin the idle time anew."""
        timeout = self.config.get("timeout")
        self.expires_at = utc_now() + from_millis(timeout) if timeout else None


class DepartmentRow(TimedRow, table=True):
    """A department of a session."""

    __tablename__ = "departments"
    __table_args__ = (
        _listed("ix_departments_owner", "owner_id", "id"),
        _listed("ix_departments_session", "session_id", "id"),
        _listed("ix_departments_domain", "domain", "id"),
    )

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id")
    owner_id: str
    name: str
    domain: str
    status: str = DepartmentStatus.ACTIVE
    config: Json = Field(default={}, sa_type=JSON)
    capabilities: list[str] = Field(default=[], sa_type=JSON)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class WorkflowRow(TimedRow, table=True):
    """A workflow: its present version, and where its latest run stands."""

    __tablename__ = "workflows"
    __table_args__ = (
        _listed("ix_workflows_status", "status", "id"),
        _listed("ix_workflows_owner", "owner_id", "id"),
        _listed("ix_workflows_owner_status", "owner_id", "status", "id"),
        _listed("ix_workflows_session", "session_id", "id"),
        _listed("ix_workflows_session_status", "session_id", "status", "id"),
    )

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id")
    owner_id: str
    name: str
    description: str | None = None
    version: int = 1
    status: str = RunStatus.CREATED
    latest_run_id: str | None = None
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DefinitionRow(Row, table=True):
    """One version of a workflow's definition; never changed once written."""

    __tablename__ = "definitions"

    workflow_id: str = Field(primary_key=True, foreign_key="workflows.id")
    version: int = Field(primary_key=True)
    definition: Json = Field(sa_type=JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class RunRow(TimedRow, table=True):
    """A run. `pause_wanted` and `cancel_wanted` are intents: written first, signalled then."""

    __tablename__ = "runs"
    __table_args__ = (
        Index("ix_runs_workflow", "workflow_id", "id"),
        Index("ix_runs_session_status", "session_id", "status"),
        Index("ix_runs_host_status", "host_id", "status"),
        Index("ix_runs_sandbox_status", "sandbox_id", "status"),
        Index("ix_runs_output_dropped", "output_dropped", "completed_at"),
        Index("ix_runs_queued", "owner_id", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
    )

    id: str = Field(primary_key=True)
    workflow_id: str = Field(foreign_key="workflows.id")
    version: int
    session_id: str
    owner_id: str
    status: str = Field(default=RunStatus.QUEUED, index=True)
    environment: Json = Field(default={}, sa_type=JSON)
    context: Json = Field(default={}, sa_type=JSON)
    priority: int = DEFAULT_PRIORITY
    total_steps: int
    result: Json | None = Field(default=None, sa_type=JsonOrNull)
    error: Json | None = Field(default=None, sa_type=JsonOrNull)
    derived_from: Json | None = Field(default=None, sa_type=JsonOrNull)
    image: str | None = None
    resolved_image: str | None = None
    effective_policy: Json | None = Field(default=None, sa_type=JsonOrNull)
    """What counts for its sandbox, from when a host has taken it, and how that holds it, once it is
    made."""
    sandbox_id: str | None = None
    """The sandbox that is not the run's own, but somebody's: it works in that one, or its own has
    become that at its end."""
    keep_sandbox: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    host_id: str | None = None
    sandbox_epoch: int = 0
    """Raised whenever the sandbox is given up with its host: one of an older epoch is removed."""
    memory_mib: int | None = None
    """What is promised to its sandbox on the host that has it."""
    workspace_ready: bool = False
    workspace_from: str | None = None
    """The checkpoint whose files a sandbox starts with, where the one before it was lost."""
    cloned: Json | None = Field(default=None, sa_type=JsonOrNull)
    """The repository that its workspace was filled from, with the commit that was there."""
    temporal_run_id: str | None = None
    superseded: list[str] = Field(default=[], sa_type=JSON)
    """The executions before this one, each replaced by a reset in Temporal."""
    pause_wanted: bool = False
    cancel_wanted: bool = False
    closed_as: str | None = None
    """How its execution ended without settling it: the run's host is to settle it."""
    output_dropped: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """What its steps wrote is no longer kept."""
    signal_count: int = 0
    progress_told: int = 0
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    completed_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class HostRow(TimedRow, table=True):
    """A machine that holds sandboxes; it lives as long as its workers renew its lease."""

    __tablename__ = "hosts"

    id: str = Field(primary_key=True)
    places: int
    memory_mib: int
    draining: bool = False
    lease_until: datetime = Field(sa_type=UtcDateTime)
    epoch: int = 1

    @property
    def living(self) -> bool:
        """Whether the lease lasts."""
        return self.lease_until > utc_now()

    @property
    def registration(self) -> tuple[datetime, int]:
        """Which of the host's leases this is: another one after each that ran out, also where the
        host was forgotten in between."""
        return self.created_at, self.epoch


class StepRow(Row, table=True):
    """A step of a run: its latest attempt, and which Temporal attempt last wrote it."""

    __tablename__ = "steps"
    __table_args__ = (
        Index("ix_steps_department_status", "department_id", "status"),
        Index("ix_steps_department_ended", "department_id", "ended_at"),
    )

    run_id: str = Field(primary_key=True, foreign_key="runs.id")
    index: int = Field(primary_key=True)
    id: str
    type: str
    status: str = StepStatus.PENDING
    attempt: int = 0
    repeats: int = 0
    department_id: str | None = None
    """The one that it names; where it only has a wish, the one that took it."""
    domain: str | None = None
    requires: list[str] = Field(default=[], sa_type=JSON)
    output_epoch: int = Field(default=0, sa_column_kwargs={"server_default": "0"})
    """Raised whenever what it has written is forgotten, since its command runs again."""
    temporal_run_id: str | None = None
    activity_attempt: int = Field(default=0, sa_type=BigInteger)
    result: Json | None = Field(default=None, sa_type=JsonOrNull)
    error: Json | None = Field(default=None, sa_type=JsonOrNull)
    approval: Json | None = Field(default=None, sa_type=JsonOrNull)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    @property
    def wish(self) -> Wish:
        """Where the step is to run; the department may be bound already."""
        return Wish(self.department_id, self.domain, tuple(self.requires))


class TicketRow(Row, table=True):
    """A slot of a department that a step holds or waits for, or a place of the hosts for a run."""

    __tablename__ = "tickets"
    __table_args__ = (
        Index(
            "ix_tickets_line",
            *("pool", "state", "priority", "enqueued_at", "run_id", "step", "owner_id"),
        ),
        Index("ix_tickets_run_step", "run_id", "step"),
    )

    pool: str = Field(primary_key=True)
    run_id: str = Field(primary_key=True)
    """The run, or the sandbox that somebody has made: the id of the workflow that is signalled."""
    step: int = Field(primary_key=True)
    state: str = TicketState.WAITING
    priority: int
    owner_id: str
    enqueued_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    granted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class SandboxRow(TimedRow, table=True):
    """A sandbox that somebody has made. `pause_wanted`, `stop_wanted` and `delete_wanted` are
    intents: written first, brought about then; `intents` counts them, `steered` those that are."""

    __tablename__ = "sandboxes"
    __table_args__ = (
        _listed("ix_sandboxes_owner", "owner_id", "id"),
        _listed("ix_sandboxes_owner_status", "owner_id", "status", "id"),
        _listed("ix_sandboxes_status", "status", "id"),
        _listed("ix_sandboxes_session", "session_id", "id"),
        Index("ix_sandboxes_host_status", "host_id", "status"),
        Index("ix_sandboxes_open", "status", "updated_at"),
        Index("ix_sandboxes_network", "network_id"),
    )

    id: str = Field(primary_key=True)
    owner_id: str
    session_id: str | None = None
    name: str | None = None
    status: str = SandboxStatus.CREATING
    image: str | None = None
    resolved_image: str | None = None
    environment: Json = Field(default={}, sa_type=JSON)
    resource_limits: Json = Field(default={}, sa_type=JSON)
    security_policy: Json = Field(default={}, sa_type=JSON)
    security_profile_id: str | None = Field(default=None, index=True)
    network_mode: str
    network_id: str | None = None
    """Where the mode is `bridge` it is known with the host. A network that was deleted stays."""
    effective_policy: Json = Field(sa_type=JSON)
    workspace: Json | None = Field(default=None, sa_type=JsonOrNull)
    """What lies in its workspace at its begin."""
    cloned: Json | None = Field(default=None, sa_type=JsonOrNull)
    """The repository that came into it, with the commit that was there."""
    error: Json | None = Field(default=None, sa_type=JsonOrNull)
    priority: int = DEFAULT_PRIORITY
    host_id: str | None = None
    sandbox_epoch: int = 0
    memory_mib: int
    temporal_run_id: str | None = None
    closed_as: str | None = None
    """How its workflow ended without settling it: the sandbox's host is to settle it."""
    pause_wanted: bool = False
    stop_wanted: bool = False
    delete_wanted: bool = False
    intents: int = 0
    steered: int = 0
    lifetime_ms: int = Field(sa_type=BigInteger)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class ExecutionRow(TimedRow, table=True):
    """A command in a sandbox that somebody has made; what it writes is in `outputs`, of step 0 and
    attempt 1."""

    __tablename__ = "executions"
    __table_args__ = (
        Index("ix_executions_sandbox", "sandbox_id", "id"),
        Index("ix_executions_status", "status", "updated_at"),
        Index("ix_executions_output_dropped", "output_dropped", "ended_at"),
    )

    id: str = Field(primary_key=True)
    sandbox_id: str = Field(foreign_key="sandboxes.id")
    owner_id: str
    main: bool = False
    """Whether it is the `command` that the sandbox was made with."""
    status: str = ExecutionStatus.QUEUED
    command: Json = Field(sa_type=JSON)
    """A text or a list, under the key of that name."""
    environment: Json = Field(default={}, sa_type=JSON)
    stdin: bytes | None = None
    """What it reads; forgotten at its end."""
    workdir: str
    timeout_ms: int = Field(sa_type=BigInteger)
    activity_attempt: int = Field(default=0, sa_type=BigInteger)
    result: Json | None = Field(default=None, sa_type=JsonOrNull)
    error: Json | None = Field(default=None, sa_type=JsonOrNull)
    output_dropped: bool = False
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    ended_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    @property
    def attempt(self) -> int:
        """As its output counts it: a command that is lost does not run again."""
        return 1

    @property
    def output_epoch(self) -> int:
        """What it has written is never forgotten while it is kept."""
        return 0


Placed = RunRow | SandboxRow
"""What has a sandbox on a host: a run, or a sandbox that somebody has made."""


class OutputRow(Row, table=True):
    """A piece of what a step's attempt wrote to a stream; the bytes of a small one are in the row,
    those of any other are a blob."""

    __tablename__ = "outputs"
    __table_args__ = (
        UniqueConstraint("run_id", "step", "attempt", "stream", "offset"),
        Index("ix_outputs_hash", "hash"),
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_INTEGER)
    run_id: str
    step: int
    attempt: int
    stream: str
    offset: int = Field(sa_type=BIG_INTEGER)
    size: int
    hash: str = ""
    content: bytes | None = None


class BlobRow(Row, table=True):
    """A blob that somebody relies on; touched before it is relied on."""

    __tablename__ = "blobs"
    __table_args__ = (Index("ix_blobs_touched_at", "touched_at"),)

    hash: str = Field(primary_key=True)
    size: int = Field(sa_type=BIG_INTEGER)
    touched_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class BlobLinkRow(Row, table=True):
    """That something, a checkpoint, an archive or a tree that is a blob itself, needs a blob."""

    __tablename__ = "blob_links"
    __table_args__ = (Index("ix_blob_links_blob", "blob"),)

    holder: str = Field(primary_key=True)
    blob: str = Field(primary_key=True)


class ArchiveRow(Row, table=True):
    """An uploaded archive; `tree` is the hash of its manifest."""

    __tablename__ = "archives"

    id: str = Field(primary_key=True)
    owner_id: str = Field(index=True)
    name: str | None = None
    tree: str
    file_count: int
    total_bytes: int = Field(sa_type=BIG_INTEGER)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class CheckpointRow(Row, table=True):
    """A checkpoint; the manifest is written last, together with `ready`."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        Index("ix_checkpoints_owner", "owner_id", "id"),
        Index("ix_checkpoints_session", "session_id", "id"),
    )

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id")
    owner_id: str
    workflow_id: str | None = None
    run_id: str | None = None
    step: str | None = None
    attempt: str | None = Field(default=None, unique=True)
    """Which attempt of a step takes it, so that a retried activity takes no second one."""
    name: str
    description: str | None = None
    status: str = CheckpointStatus.CREATING
    manifest: Json | None = Field(default=None, sa_type=JsonOrNull)
    skipped: list[Any] = Field(default=[], sa_type=JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class ContextRow(TimedRow, table=True):
    """A context window; `numbered` is the number of the item that came last."""

    __tablename__ = "context_windows"
    __table_args__ = (
        _listed("ix_context_windows_owner", "owner_id", "id"),
        Index("ix_context_windows_session", "session_id", "id"),
    )

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id")
    owner_id: str
    name: str
    config: Json = Field(default={}, sa_type=JSON)
    numbered: int = 0
    superseded_by: str | None = None
    """The restore of a checkpoint that was made before the window."""
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class ContextItemRow(Row, table=True):
    """An item of a context window. One that leaves the window is not kept."""

    __tablename__ = "context_items"
    __table_args__ = (
        UniqueConstraint("context_id", "number"),
        # with all that is counted: what is in an item may be large, and lies behind the rest
        Index(
            "ix_context_items_leaving",
            *("context_id", "superseded_by", "importance", "number", "tokens", "expires_at", "id"),
        ),
        Index("ix_context_items_expiry", "superseded_by", "expires_at", "context_id"),
    )

    id: str = Field(primary_key=True)
    context_id: str = Field(foreign_key="context_windows.id")
    number: int
    """Counts the items of a window as they come."""
    type: str
    importance: float
    tokens: int
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    superseded_by: str | None = None
    """The restore of a checkpoint that was made before the item."""
    details: Json = Field(default={}, sa_type=JSON)
    """Its `metadata`."""
    content: Any = Field(sa_type=JSON)


class MessageRow(Row, table=True):
    """A message in the log of a session."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("session_id", "number"),
        Index("ix_messages_log", "session_id", "superseded_by", "number"),
    )

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id")
    number: int
    """Counts the messages of a session, also those that are superseded."""
    role: str
    author: str
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    superseded_by: str | None = None
    """The restore of a checkpoint that was made before the message."""
    details: Json = Field(default={}, sa_type=JSON)
    """Its `metadata`."""
    content: Any = Field(sa_type=JSON)


class EventRow(Row, table=True):
    """An entry of the event log; AUTOINCREMENT, so that a cursor never names two events."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("subject", "seq"),
        Index("ix_events_owner", "owner_id", "id"),
        Index("ix_events_session", "session_id", "id"),
        Index("ix_events_workflow", "workflow_id", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, primary_key=True, sa_type=BIG_INTEGER)
    subject: str
    seq: int
    type: str
    owner_id: str
    session_id: str | None = None
    workflow_id: str | None = None
    data: Json = Field(sa_type=JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class LogPositionRow(Row, table=True):
    """A cursor of the event log that must be remembered, by name."""

    __tablename__ = "log_positions"

    name: str = Field(primary_key=True)
    position: int = Field(sa_type=BigInteger)


class IdempotencyRow(Row, table=True):
    """A request under a key, written with what it makes; `lease_until` is null once it is done."""

    __tablename__ = "idempotency"
    __table_args__ = (UniqueConstraint("principal_id", "route", "key"),)

    id: str = Field(primary_key=True)
    principal_id: str
    route: str
    key: str
    fingerprint: str
    made: str | None = None
    lease_until: datetime | None = Field(default=None, sa_type=UtcDateTime)
    status: int | None = None
    headers: dict[str, str] = Field(default={}, sa_type=JSON)
    body: bytes | None = None
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)

    @property
    def done(self) -> bool:
        """Whether the answer is final and nothing is left to do."""
        return self.lease_until is None

    @property
    def leased(self) -> bool:
        """Whether somebody is at it, as far as can be told."""
        return self.lease_until is not None and self.lease_until > utc_now()


class NetworkRow(TimedRow, table=True):
    """A network. `version` counts its changes; its host enforces those up to `applied`."""

    __tablename__ = "networks"
    __table_args__ = (
        _listed("ix_networks_owner", "owner_id", "id"),
        _listed("ix_networks_host", "host_id", "id"),
        _listed("ix_networks_session", "session_id", "id"),
    )

    id: str = Field(primary_key=True)
    owner_id: str
    session_id: str | None = None
    name: str
    description: str | None = None
    subnet: str
    gateway: str
    picked: bool
    """Nobody named the subnet, so that another one does as well."""
    enable_dns: bool
    internal: bool
    isolated: bool = False
    on_demand: bool = Field(default=False, sa_column_kwargs={"server_default": false()})
    """Made for sandboxes whose mode is `bridge`; it goes with the last of them."""
    host_id: str
    version: int = 1
    applied: int = 0
    members: dict[str, str] = Field(default={}, sa_type=JSON)
    """The sandboxes in it, as its host last saw them, with their addresses."""
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class NetworkPolicyRow(TimedRow, table=True):
    """A policy of a network; `privileged` where an admin made it."""

    __tablename__ = "network_policies"
    __table_args__ = (UniqueConstraint("network_id", "name"),)

    id: str = Field(primary_key=True)
    network_id: str = Field(foreign_key="networks.id")
    name: str
    description: str | None = None
    inbound: list[Any] = Field(default=[], sa_type=JSON)
    outbound: list[Any] = Field(default=[], sa_type=JSON)
    logging: bool
    metrics: bool
    privileged: bool
    counters: list[Any] = Field(default=[], sa_type=JSON)


class NetworkGrantRow(Row, table=True):
    """A destination that is open in a network. `addresses` are those that its host has resolved a
    name to, each with the moment when it last did."""

    __tablename__ = "network_grants"

    id: str = Field(primary_key=True)
    network_id: str = Field(foreign_key="networks.id", index=True)
    host: str
    port: int | None = None
    protocol: str
    description: str | None = None
    privileged: bool
    addresses: dict[str, str] = Field(default={}, sa_type=JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class ProfileRow(TimedRow, table=True):
    """A security profile; `constraints` and `resource_limits` as they were sent."""

    __tablename__ = "security_profiles"
    __table_args__ = (Index("ix_security_profiles_owner", "owner_id", "id"),)

    id: str = Field(primary_key=True)
    owner_id: str
    name: str
    description: str | None = None
    level: str
    constraints: Json = Field(default={}, sa_type=JSON)
    resource_limits: Json = Field(default={}, sa_type=JSON)


class EnforcementRow(Row, table=True):
    """A profile or a network policy that was enforced on a session or a sandbox, the last time at
    `created_at`; never taken back."""

    __tablename__ = "security_enforcements"

    subject: str = Field(primary_key=True)
    policy_id: str = Field(primary_key=True, index=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class SecurityEventRow(Row, table=True):
    """What happened that security is about, from `created_at` to `last_at`: of what comes again in
    a minute one row is kept, found by its `bucket`, with how many `times` it came."""

    __tablename__ = "security_events"
    __table_args__ = (
        Index("ix_security_events_owner", "owner_id", "id"),
        Index("ix_security_events_sandbox", "sandbox_id", "id"),
        Index("ix_security_events_last_at", "last_at"),
    )

    id: str = Field(primary_key=True)
    owner_id: str
    """Empty where it is the whole installation's: only admins see it."""
    type: str
    severity: str
    subject: str
    """What it happened to, or who did it: what alert rules count by."""
    sandbox_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    rule: str
    message: str
    details: Json = Field(default={}, sa_type=JSON)
    times: int = 1
    bucket: str | None = Field(default=None, unique=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    last_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
