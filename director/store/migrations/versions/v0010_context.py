"""Context windows with their items, and messages."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
SHOWN = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    _windows()
    _items()
    _messages()


def _windows() -> None:
    op.create_table(
        "context_windows",
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        *_texts("id", "session_id", "owner_id", "name"),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("numbered", sa.Integer(), nullable=False),
        sa.Column("superseded_by", TEXT, nullable=True),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_context_windows"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_context_windows_session_id_sessions"
        ),
    )
    op.create_index(
        "ix_context_windows_owner",
        "context_windows",
        ["owner_id", "id"],
        sqlite_where=SHOWN,
        postgresql_where=SHOWN,
    )
    op.create_index("ix_context_windows_session", "context_windows", ["session_id", "id"])


def _items() -> None:
    op.create_table(
        "context_items",
        *_texts("id", "context_id"),
        sa.Column("number", sa.Integer(), nullable=False),
        *_texts("type"),
        sa.Column("importance", sa.Float(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("superseded_by", TEXT, nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_context_items"),
        sa.ForeignKeyConstraint(
            ["context_id"],
            ["context_windows.id"],
            name="fk_context_items_context_id_context_windows",
        ),
        sa.UniqueConstraint("context_id", "number", name="uq_context_items_context_id_number"),
    )
    counted = ["context_id", "superseded_by", "importance", "number", "tokens", "expires_at", "id"]
    op.create_index("ix_context_items_leaving", "context_items", counted)
    expiring = ["superseded_by", "expires_at", "context_id"]
    op.create_index("ix_context_items_expiry", "context_items", expiring)


def _messages() -> None:
    op.create_table(
        "messages",
        *_texts("id", "session_id"),
        sa.Column("number", sa.Integer(), nullable=False),
        *_texts("role", "author"),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("superseded_by", TEXT, nullable=True),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_messages"),
        sa.ForeignKeyConstraint(
            ["session_id"], ["sessions.id"], name="fk_messages_session_id_sessions"
        ),
        sa.UniqueConstraint("session_id", "number", name="uq_messages_session_id_number"),
    )
    op.create_index("ix_messages_log", "messages", ["session_id", "superseded_by", "number"])


def _texts(*names: str) -> list[sa.Column]:  # type: ignore[type-arg]
    return [sa.Column(name, TEXT, nullable=False) for name in names]
