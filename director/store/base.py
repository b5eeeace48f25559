"""What the tables share: text in the order of its bytes, times that keep their zone, JSON that can
be absent, rows that know when they changed."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Integer,
    String,
    Table,
    TypeDecorator,
    event,
)
from sqlalchemy.types import TypeEngine
from sqlmodel import AutoString, Field, SQLModel

from director.domain.times import utc_now

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

BIG_INTEGER = BigInteger().with_variant(Integer, "sqlite")
"""A large number, or one that the database gives; SQLite counts rows in INTEGER columns only."""


class Bytewise(TypeDecorator[str]):
    """Text that is compared and ordered by its bytes, as SQLite does it, whatever the language of
    the server: ids sort by time."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        collation = "C" if dialect.name == "postgresql" else None
        return dialect.type_descriptor(String(collation=collation))

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Look for text with a NUL as well, which Postgres refuses and nothing of ours has."""
        return None if value is None else value.replace("\0", "\N{REPLACEMENT CHARACTER}")


@event.listens_for(Column, "after_parent_attach")
def _bytewise(column: Column[Any], table: Any) -> None:
    """Let every text of our tables be one."""
    ours = isinstance(table, Table) and table.metadata is SQLModel.metadata
    if ours and isinstance(column.type, AutoString):
        column.type = Bytewise()


class UtcDateTime(TypeDecorator[datetime]):
    """An aware moment, kept in UTC; SQLite has no zones of its own."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        moment: datetime | None = value
        if moment is None:
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class JsonOrNull(TypeDecorator[Any]):
    """JSON whose None is the database's own NULL, which conditions can ask for."""

    impl = JSON
    cache_ok = True

    def __init__(self) -> None:
        super().__init__(none_as_null=True)


class Row(SQLModel):
    """A row of a table. What pydantic would check it with is not made: rows are not checked."""

    model_config = {"defer_build": True}


class TimedRow(Row):
    """A row that knows when it was made and last changed."""

    created_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)
    updated_at: datetime = Field(default_factory=utc_now, sa_type=UtcDateTime)

    def touch(self) -> None:
        """Say that the row changes now; `updated_at` makes the ETag."""
        self.updated_at = max(utc_now(), self.updated_at)


@event.listens_for(TimedRow, "init", propagate=True)
def _made_at_once(_: object, __: object, given: dict[str, Any]) -> None:
    """A row that is new was not changed a moment later."""
    now = utc_now()
    given.setdefault("created_at", now)
    given.setdefault("updated_at", now)
