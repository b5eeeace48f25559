"""Security profiles, where they hold, and security events."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    for table in ("sessions", "sandboxes"):
        op.add_column(table, sa.Column("security_profile_id", TEXT, nullable=True))
    op.create_index("ix_sandboxes_security_profile_id", "sandboxes", ["security_profile_id"])
    _profiles()
    _enforcements()
    _events()


def _profiles() -> None:
    op.create_table(
        "security_profiles",
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        *_texts("id", "owner_id", "name"),
        sa.Column("description", TEXT, nullable=True),
        *_texts("level"),
        sa.Column("constraints", sa.JSON(), nullable=False),
        sa.Column("resource_limits", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_security_profiles"),
    )
    op.create_index("ix_security_profiles_owner", "security_profiles", ["owner_id", "id"])


def _enforcements() -> None:
    op.create_table(
        "security_enforcements",
        *_texts("subject", "policy_id"),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("subject", "policy_id", name="pk_security_enforcements"),
    )
    op.create_index("ix_security_enforcements_policy_id", "security_enforcements", ["policy_id"])


def _events() -> None:
    op.create_table(
        "security_events",
        *_texts("id", "owner_id", "type", "severity", "subject"),
        *(sa.Column(f"{name}_id", TEXT, nullable=True) for name in ("sandbox", "session", "run")),
        *_texts("rule", "message"),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("times", sa.Integer(), nullable=False),
        sa.Column("bucket", TEXT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_security_events"),
        sa.UniqueConstraint("bucket", name="uq_security_events_bucket"),
    )
    op.create_index("ix_security_events_owner", "security_events", ["owner_id", "id"])
    op.create_index("ix_security_events_sandbox", "security_events", ["sandbox_id", "id"])
    op.create_index("ix_security_events_last_at", "security_events", ["last_at"])


def _texts(*names: str) -> list[sa.Column]:  # type: ignore[type-arg]
    return [sa.Column(name, TEXT, nullable=False) for name in names]
