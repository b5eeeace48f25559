"""Sandboxes that people make, and the commands in them; a ticket may be a sandbox's."""

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
SHOWN = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    _sandboxes()
    _executions()
    with op.batch_alter_table("tickets") as tickets:
        tickets.drop_constraint("fk_tickets_run_id_runs", type_="foreignkey")


def _sandboxes() -> None:
    op.create_table(
        "sandboxes",
        _moment("created_at", nullable=False),
        _moment("updated_at", nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        *_texts("session_id", "name"),
        sa.Column("status", TEXT, nullable=False),
        *_texts("image", "resolved_image"),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("resource_limits", sa.JSON(), nullable=False),
        sa.Column("security_policy", sa.JSON(), nullable=False),
        sa.Column("network_mode", TEXT, nullable=False),
        sa.Column("effective_policy", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        *_texts("host_id"),
        sa.Column("sandbox_epoch", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.Integer(), nullable=False),
        *_texts("temporal_run_id", "closed_as"),
        sa.Column("pause_wanted", sa.Boolean(), nullable=False),
        sa.Column("stop_wanted", sa.Boolean(), nullable=False),
        sa.Column("delete_wanted", sa.Boolean(), nullable=False),
        sa.Column("intents", sa.Integer(), nullable=False),
        sa.Column("steered", sa.Integer(), nullable=False),
        sa.Column("lifetime_ms", sa.BigInteger(), nullable=False),
        *(_moment(name) for name in ("started_at", "expires_at", "ended_at", "deleted_at")),
        sa.PrimaryKeyConstraint("id", name="pk_sandboxes"),
    )
    _listed("ix_sandboxes_owner", "owner_id", "id")
    _listed("ix_sandboxes_owner_status", "owner_id", "status", "id")
    _listed("ix_sandboxes_status", "status", "id")
    _listed("ix_sandboxes_session", "session_id", "id")
    op.create_index("ix_sandboxes_host_status", "sandboxes", ["host_id", "status"])
    op.create_index("ix_sandboxes_open", "sandboxes", ["status", "updated_at"])


def _executions() -> None:
    op.create_table(
        "executions",
        _moment("created_at", nullable=False),
        _moment("updated_at", nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("sandbox_id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("main", sa.Boolean(), nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("command", sa.JSON(), nullable=False),
        sa.Column("environment", sa.JSON(), nullable=False),
        sa.Column("workdir", TEXT, nullable=False),
        sa.Column("timeout_ms", sa.BigInteger(), nullable=False),
        sa.Column("activity_attempt", sa.BigInteger(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("output_dropped", sa.Boolean(), nullable=False),
        _moment("started_at"),
        _moment("ended_at"),
        sa.ForeignKeyConstraint(
            ["sandbox_id"], ["sandboxes.id"], name="fk_executions_sandbox_id_sandboxes"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_executions"),
    )
    op.create_index("ix_executions_sandbox", "executions", ["sandbox_id", "id"])
    op.create_index("ix_executions_status", "executions", ["status", "updated_at"])
    op.create_index("ix_executions_output_dropped", "executions", ["output_dropped", "ended_at"])


def _texts(*names: str) -> "list[sa.Column[str]]":
    return [sa.Column(name, TEXT, nullable=True) for name in names]


def _moment(name: str, *, nullable: bool = True) -> "sa.Column[datetime]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _listed(name: str, *columns: str) -> None:
    op.create_index(name, "sandboxes", list(columns), sqlite_where=SHOWN, postgresql_where=SHOWN)
