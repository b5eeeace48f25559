"""The schema of 0.1.0, which made its tables in SQLite without migrations: such a database is
stamped so. On Postgres it is where all begin."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "archives",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=True),
        sa.Column("tree", TEXT, nullable=False),
        sa.Column("file_count", sa.Integer(), nullable=False),
        sa.Column("total_bytes", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_archives"),
    )
    op.create_index("ix_archives_owner_id", "archives", ["owner_id"])
    op.create_table(
        "blobs",
        sa.Column("hash", TEXT, nullable=False),
        sa.Column("size", BIG, nullable=False),
        sa.Column("touched_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_blobs"),
    )
    op.create_table(
        "events",
        sa.Column("id", BIG, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("session_id", TEXT, nullable=True),
        sa.Column("workflow_id", TEXT, nullable=True),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
        sa.UniqueConstraint("subject", "seq", name="uq_events_subject_seq"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "hosts",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("places", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_hosts"),
    )
    op.create_table(
        "idempotency",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("principal_id", TEXT, nullable=False),
        sa.Column("route", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("made", TEXT, nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_idempotency"),
        sa.UniqueConstraint(
            "principal_id", "route", "key", name="uq_idempotency_principal_id_route_key"
        ),
    )
    op.create_index("ix_idempotency_expires_at", "idempotency", ["expires_at"])
    op.create_table(
        "outputs",
        sa.Column("id", BIG, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("stream", TEXT, nullable=False),
        sa.Column("offset", BIG, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("hash", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outputs"),
        sa.UniqueConstraint(
            "run_id",
            "step",
            "attempt",
            "stream",
            "offset",
            name="uq_outputs_run_id_step_attempt_stream_offset",
        ),
    )
    op.create_table(
        "sessions",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_sessions"),
    )
    op.create_index("ix_sessions_owner_id", "sessions", ["owner_id"])
    op.create_table(
        "users",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("username", TEXT, nullable=False),
        sa.Column("password_hash", TEXT, nullable=False),
        sa.Column("role", TEXT, nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_users"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("session_id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("workflow_id", TEXT, nullable=True),
        sa.Column("run_id", TEXT, nullable=True),
        sa.Column("step", TEXT, nullable=True),
        sa.Column("attempt", TEXT, nullable=True),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=True),
        sa.Column("skipped", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_checkpoints_session_id_sessions"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_checkpoints"),
        sa.UniqueConstraint("attempt", name="uq_checkpoints_attempt"),
    )
    op.create_index("ix_checkpoints_owner_id", "checkpoints", ["owner_id"])
    op.create_index("ix_checkpoints_session_id", "checkpoints", ["session_id"])
    op.create_table(
        "departments",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("session_id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("domain", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("capabilities", sa.JSON(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_departments_session_id_sessions"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_departments"),
    )
    op.create_index("ix_departments_owner_id", "departments", ["owner_id"])
    op.create_index("ix_departments_session_id", "departments", ["session_id"])
    op.create_table(
        "logins",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("user_id", TEXT, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_logins_user_id_users"),
        sa.PrimaryKeyConstraint("id", name="pk_logins"),
    )
    op.create_index("ix_logins_user_id", "logins", ["user_id"])
    op.create_table(
        "workflows",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("session_id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("latest_run_id", TEXT, nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_workflows_session_id_sessions"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_workflows"),
    )
    op.create_index("ix_workflows_owner_status", "workflows", ["owner_id", "status", "id"])
    op.create_index("ix_workflows_session_id", "workflows", ["session_id"])
    op.create_index("ix_workflows_status", "workflows", ["status"])
    op.create_table(
        "definitions",
        sa.Column("workflow_id", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name="fk_definitions_workflow_id_workflows"
        ),
        sa.PrimaryKeyConstraint("workflow_id", "version", name="pk_definitions"),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("hash", TEXT, nullable=False),
        sa.Column("login_id", TEXT, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["login_id"], ["logins.id"], name="fk_refresh_tokens_login_id_logins"
        ),
        sa.PrimaryKeyConstraint("hash", name="pk_refresh_tokens"),
    )
    op.create_index("ix_refresh_tokens_expires_at", "refresh_tokens", ["expires_at"])
    op.create_index("ix_refresh_tokens_login_id", "refresh_tokens", ["login_id"])
    op.create_table(
        "runs",
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("workflow_id", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("session_id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("context", sa.JSON(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("total_steps", sa.Integer(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("derived_from", sa.JSON(), nullable=True),
        sa.Column("image", TEXT, nullable=True),
        sa.Column("resolved_image", TEXT, nullable=True),
        sa.Column("host_id", TEXT, nullable=True),
        sa.Column("sandbox_epoch", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=True),
        sa.Column("workspace_ready", sa.Boolean(), nullable=False),
        sa.Column("workspace_from", TEXT, nullable=True),
        sa.Column("temporal_run_id", TEXT, nullable=True),
        sa.Column("superseded", sa.JSON(), nullable=False),
        sa.Column("pause_wanted", sa.Boolean(), nullable=False),
        sa.Column("cancel_wanted", sa.Boolean(), nullable=False),
        sa.Column("closed_as", TEXT, nullable=True),
        sa.Column("signal_count", sa.Integer(), nullable=False),
        sa.Column("progress_told", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name="fk_runs_workflow_id_workflows"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    op.create_index("ix_runs_host_status", "runs", ["host_id", "status"])
    op.create_index("ix_runs_session_status", "runs", ["session_id", "status"])
    op.create_index("ix_runs_status", "runs", ["status"])
    op.create_index("ix_runs_workflow_id", "runs", ["workflow_id"])
    op.create_table(
        "steps",
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("type", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("department_id", TEXT, nullable=True),
        sa.Column("domain", TEXT, nullable=True),
        sa.Column("requires", sa.JSON(), nullable=False),
        sa.Column("temporal_run_id", TEXT, nullable=True),
        sa.Column("activity_attempt", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("approval", sa.JSON(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_steps_run_id_runs"),
        sa.PrimaryKeyConstraint("run_id", "index", name="pk_steps"),
    )
    op.create_index("ix_steps_department_status", "steps", ["department_id", "status"])
    op.create_table(
        "tickets",
        sa.Column("pool", TEXT, nullable=False),
        sa.Column("run_id", TEXT, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("enqueued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("granted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_tickets_run_id_runs"),
        sa.PrimaryKeyConstraint("pool", "run_id", "step", name="pk_tickets"),
    )
    op.create_index(
        "ix_tickets_line",
        "tickets",
        ["pool", "state", "priority", "enqueued_at", "run_id", "step", "owner_id"],
    )
    op.create_index("ix_tickets_run_step", "tickets", ["run_id", "step"])
    op.create_index("uq_users_username", "users", [sa.text("lower(username)")], unique=True)
