"""Indexes by which each list is read and counted, and the event log is filtered."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

SHOWN = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    for name, table in (
        ("ix_sessions_owner_id", "sessions"),
        ("ix_departments_session_id", "departments"),
        ("ix_departments_owner_id", "departments"),
        ("ix_workflows_owner_status", "workflows"),
        ("ix_workflows_session_id", "workflows"),
        ("ix_workflows_status", "workflows"),
        ("ix_runs_workflow_id", "runs"),
        ("ix_checkpoints_owner_id", "checkpoints"),
        ("ix_checkpoints_session_id", "checkpoints"),
    ):
        op.drop_index(name, table)
    _listed("ix_sessions_owner", "sessions", "owner_id", "id")
    _listed("ix_sessions_owner_status", "sessions", "owner_id", "status", "id", "expires_at")
    _listed("ix_sessions_status", "sessions", "status", "id", "expires_at")
    _listed("ix_sessions_due", "sessions", "status", "expires_at")
    _listed("ix_departments_owner", "departments", "owner_id", "id")
    _listed("ix_departments_session", "departments", "session_id", "id")
    _listed("ix_departments_domain", "departments", "domain", "id")
    _listed("ix_workflows_status", "workflows", "status", "id")
    _listed("ix_workflows_owner", "workflows", "owner_id", "id")
    _listed("ix_workflows_owner_status", "workflows", "owner_id", "status", "id")
    _listed("ix_workflows_session", "workflows", "session_id", "id")
    _listed("ix_workflows_session_status", "workflows", "session_id", "status", "id")
    op.create_index("ix_runs_workflow", "runs", ["workflow_id", "id"])
    op.create_index("ix_steps_department_ended", "steps", ["department_id", "ended_at"])
    op.create_index("ix_checkpoints_owner", "checkpoints", ["owner_id", "id"])
    op.create_index("ix_checkpoints_session", "checkpoints", ["session_id", "id"])
    op.create_index("ix_events_owner", "events", ["owner_id", "id"])
    op.create_index("ix_events_session", "events", ["session_id", "id"])
    op.create_index("ix_events_workflow", "events", ["workflow_id", "id"])


def _listed(name: str, table: str, *columns: str) -> None:
    op.create_index(name, table, list(columns), sqlite_where=SHOWN, postgresql_where=SHOWN)
