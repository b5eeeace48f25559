"""Which commit of a repository a workspace was filled with."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    for table in ("runs", "sandboxes"):
        op.add_column(table, sa.Column("cloned", sa.JSON(), nullable=True))
