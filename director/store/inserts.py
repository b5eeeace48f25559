"""Inserts that say what to do where the row is there already; each database has its own."""

from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel

_INSERTS = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert_into(session: Session, kind: type[SQLModel]) -> Any:
    """An insert with `on_conflict_do_nothing` and `on_conflict_do_update`."""
    return _INSERTS[session.get_bind().dialect.name](kind)
