"""The schema on one page; who may log in is in `users`."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Index, UniqueConstraint
from sqlmodel import Field, SQLModel

from director.domain.base import Json
from director.domain.checkpoints import CheckpointStatus
from director.domain.departments import DepartmentStatus, TicketState, Wish
from director.domain.runs import DEFAULT_PRIORITY, RunStatus, StepStatus
from director.domain.sessions import SessionStatus
from director.domain.times import from_millis, utc_now
from director.store.base import JsonOrNull, TimedRow, UtcDateTime


class SessionRow(TimedRow, table=True):
    """A session; `expires_at` is judged at every read."""

    __tablename__ = "sessions"

    id: str = Field(primary_key=True)
    owner_id: str = Field(index=True)
    type: str
    name: str
    description: str | None = None
    status: str = SessionStatus.ACTIVE
    config: Json = Field(default={}, sa_type=JSON)
    expires_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)

    def renew(self) -> None:
        """Begin the idle time anew."""
        timeout = self.config.get("timeout")
        self.expires_at = utc_now() + from_millis(timeout) if timeout else None


class DepartmentRow(TimedRow, table=True):
    """A department of a session."""

    __tablename__ = "departments"

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id", index=True)
    owner_id: str = Field(index=True)
    name: str
    domain: str
    status: str = DepartmentStatus.ACTIVE
    config: Json = Field(default={}, sa_type=JSON)
    capabilities: list[str] = Field(default=[], sa_type=JSON)
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class WorkflowRow(TimedRow, table=True):
    """A workflow: its present version, and where its latest run stands."""

    __tablename__ = "workflows"
    __table_args__ = (Index("ix_workflows_owner_status", "owner_id", "status", "id"),)

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id", index=True)
    owner_id: str
    name: str
    description: str | None = None
    version: int = 1
    status: str = Field(default=RunStatus.CREATED, index=True)
    latest_run_id: str | None = None
    deleted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class DefinitionRow(SQLModel, table=True):
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
        Index("ix_runs_session_status", "session_id", "status"),
        Index("ix_runs_host_status", "host_id", "status"),
    )

    id: str = Field(primary_key=True)
    workflow_id: str = Field(foreign_key="workflows.id", index=True)
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
    host_id: str | None = None
    sandbox_epoch: int = 0
    """Raised whenever the sandbox is given up with its host: one of an older epoch is removed."""
    memory_mib: int | None = None
    """What is promised to its sandbox on the host that has it."""
    workspace_ready: bool = False
    workspace_from: str | None = None
    """The checkpoint whose files a sandbox starts with, where the one before it was lost."""
    temporal_run_id: str | None = None
    superseded: list[str] = Field(default=[], sa_type=JSON)
    """The executions before this one, each replaced by a reset in Temporal."""
    pause_wanted: bool = False
    cancel_wanted: bool = False
    closed_as: str | None = None
    """How its execution ended without settling it: the run's host is to settle it."""
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


class StepRow(SQLModel, table=True):
    """A step of a run: its latest attempt, and which Temporal attempt last wrote it."""

    __tablename__ = "steps"
    __table_args__ = (Index("ix_steps_department_status", "department_id", "status"),)

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


class TicketRow(SQLModel, table=True):
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
    run_id: str = Field(primary_key=True, foreign_key="runs.id")
    step: int = Field(primary_key=True)
    state: str = TicketState.WAITING
    priority: int
    owner_id: str
    enqueued_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    granted_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class OutputRow(SQLModel, table=True):
    """A piece of what a step's attempt wrote to a stream; the bytes are a blob."""

    __tablename__ = "outputs"
    __table_args__ = (UniqueConstraint("run_id", "step", "attempt", "stream", "offset"),)

    id: int | None = Field(default=None, primary_key=True)
    run_id: str
    step: int
    attempt: int
    stream: str
    offset: int
    size: int
    hash: str


class BlobRow(SQLModel, table=True):
    """A blob that somebody relies on; touched before it is relied on."""

    __tablename__ = "blobs"

    hash: str = Field(primary_key=True)
    size: int
    touched_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class ArchiveRow(SQLModel, table=True):
    """An uploaded archive; `tree` is the hash of its manifest."""

    __tablename__ = "archives"

    id: str = Field(primary_key=True)
    owner_id: str = Field(index=True)
    name: str | None = None
    tree: str
    file_count: int
    total_bytes: int
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class CheckpointRow(SQLModel, table=True):
    """A checkpoint; the manifest is written last, together with `ready`."""

    __tablename__ = "checkpoints"

    id: str = Field(primary_key=True)
    session_id: str = Field(foreign_key="sessions.id", index=True)
    owner_id: str = Field(index=True)
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


class EventRow(SQLModel, table=True):
    """An entry of the event log; AUTOINCREMENT, so that a cursor never names two events."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("subject", "seq"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    subject: str
    seq: int
    type: str
    owner_id: str
    session_id: str | None = None
    workflow_id: str | None = None
    data: Json = Field(sa_type=JSON)
    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)


class IdempotencyRow(SQLModel, table=True):
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
