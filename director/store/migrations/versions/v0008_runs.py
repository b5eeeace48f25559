"""What counts for the sandbox of a run, and whose it is; what lies in a sandbox at its begin, and
what a command in it reads."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("runs", sa.Column("effective_policy", sa.JSON(), nullable=True))
    op.add_column("runs", sa.Column("sandbox_id", TEXT, nullable=True))
    op.add_column(
        "runs",
        sa.Column("keep_sandbox", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_index("ix_runs_sandbox_status", "runs", ["sandbox_id", "status"])
    op.add_column("sandboxes", sa.Column("workspace", sa.JSON(), nullable=True))
    op.add_column("executions", sa.Column("stdin", sa.LargeBinary(), nullable=True))
