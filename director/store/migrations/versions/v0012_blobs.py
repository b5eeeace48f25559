"""Who relies on a blob."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "blob_links",
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("blob", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("holder", "blob", name="pk_blob_links"),
    )
    op.create_index("ix_blob_links_blob", "blob_links", ["blob"])
    op.create_index("ix_blobs_touched_at", "blobs", ["touched_at"])
    op.create_index("ix_outputs_hash", "outputs", ["hash"])
