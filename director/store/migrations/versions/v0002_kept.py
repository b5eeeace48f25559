"""What is kept of outputs and events, and until when."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "log_positions",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_log_positions"),
    )
    op.add_column("outputs", sa.Column("content", sa.LargeBinary(), nullable=True))
    op.add_column(
        "runs",
        sa.Column("output_dropped", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_index("ix_runs_output_dropped", "runs", ["output_dropped", "completed_at"])
    op.add_column(
        "steps", sa.Column("output_epoch", sa.Integer(), nullable=False, server_default="0")
    )
