"""Sandboxes on networks, and networks that are made for them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("sandboxes", sa.Column("network_id", TEXT, nullable=True))
    op.create_index("ix_sandboxes_network", "sandboxes", ["network_id"])
    op.add_column(
        "networks",
        sa.Column("on_demand", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
