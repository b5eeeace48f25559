"""Networks that belong to a session; how many runs of somebody are queued."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("networks", sa.Column("session_id", TEXT, nullable=True))
    _index("ix_networks_session", "networks", "deleted_at IS NULL", "session_id", "id")
    _index("ix_runs_queued", "runs", "status = 'queued'", "owner_id")


def _index(name: str, table: str, of: str, *columns: str) -> None:
    where = sa.text(of)
    op.create_index(name, table, list(columns), sqlite_where=where, postgresql_where=where)
