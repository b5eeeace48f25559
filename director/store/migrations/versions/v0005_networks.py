"""Networks of sandboxes, their policies, and what is open in them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

TEXT = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)
SHOWN = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "networks",
        *_times(),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("owner_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("subnet", TEXT, nullable=False),
        sa.Column("gateway", TEXT, nullable=False),
        sa.Column("picked", sa.Boolean(), nullable=False),
        sa.Column("enable_dns", sa.Boolean(), nullable=False),
        sa.Column("internal", sa.Boolean(), nullable=False),
        sa.Column("isolated", sa.Boolean(), nullable=False),
        sa.Column("host_id", TEXT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("applied", sa.Integer(), nullable=False),
        sa.Column("members", sa.JSON(), nullable=False),
        sa.Column("deleted_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_networks"),
    )
    _listed("ix_networks_owner", "owner_id", "id")
    _listed("ix_networks_host", "host_id", "id")
    op.create_table(
        "network_policies",
        *_times(),
        *_of_a_network("network_policies"),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("inbound", sa.JSON(), nullable=False),
        sa.Column("outbound", sa.JSON(), nullable=False),
        sa.Column("logging", sa.Boolean(), nullable=False),
        sa.Column("metrics", sa.Boolean(), nullable=False),
        sa.Column("privileged", sa.Boolean(), nullable=False),
        sa.Column("counters", sa.JSON(), nullable=False),
        sa.UniqueConstraint("network_id", "name", name="uq_network_policies_network_id_name"),
    )
    op.create_table(
        "network_grants",
        *_of_a_network("network_grants"),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("protocol", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("privileged", sa.Boolean(), nullable=False),
        sa.Column("addresses", sa.JSON(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
    )
    op.create_index("ix_network_grants_network_id", "network_grants", ["network_id"])


def _times() -> list[sa.Column]:  # type: ignore[type-arg]
    return [sa.Column(name, TIME, nullable=False) for name in ("created_at", "updated_at")]


def _of_a_network(table: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("id", TEXT, nullable=False),
        sa.Column("network_id", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(
            ["network_id"], ["networks.id"], name=f"fk_{table}_network_id_networks"
        ),
    ]


def _listed(name: str, *columns: str) -> None:
    op.create_index(name, "networks", list(columns), sqlite_where=SHOWN, postgresql_where=SHOWN)
