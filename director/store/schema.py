"""The version of a database's schema: brought to the one of this code, or refused.

Alembic is imported only where there is something to do: that costs more than opening the store."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, Engine, create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from alembic.config import Config

log = structlog.get_logger()

HEAD = "0012"
"""The revision of `tables`; the last one in `migrations/versions`."""

_FIRST = "0001"
_TABLE = "alembic_version"
_POSTGRES_LOCK = 0x6469726563746F72
_ONE_AT_A_TIME = threading.Lock()
"""Alembic keeps the migration that runs in a global of its process."""


class SchemaError(Exception):
    """The database is none that this version can take over; nothing was changed in it."""

    def __init__(self, database: str, problem: str) -> None:
        super().__init__(f"{database} {problem}. Nothing was changed in it")


@dataclass(frozen=True)
class Revisions:
    """Where the scripts of Alembic are, and which of them is the last."""

    folder: Path
    head: str


@dataclass(frozen=True)
class Migration:
    """The version that a database had, None where it was empty, and the one that it has now."""

    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return self.before != self.after

    def __str__(self) -> str:
        if not self.changed:
            return f"the database has schema {self.after}: nothing to do"
        return f"the database was brought from {self.before or 'nothing'} to schema {self.after}"


OURS = Revisions(Path(__file__).parent / "migrations", HEAD)


def version_of(connection: Connection) -> str | None:
    """The version that is written in a database, or None."""
    if not inspect(connection).has_table(_TABLE):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def migrate(engine: Engine, revisions: Revisions = OURS) -> Migration:
    """Bring a database to the last revision in one transaction; who comes meanwhile waits, and
    finds it done.

    Raises SchemaError where it is none of ours, was used by a newer version, or is damaged."""
    with _ONE_AT_A_TIME, engine.connect() as connection:
        alone = _prepared(connection)
        with alone.begin():
            if engine.dialect.name == "postgresql":
                alone.execute(text("SET LOCAL lock_timeout = 0"))  # a large one takes its time
                alone.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
            done = Migration(_brought(alone, revisions), revisions.head)
    if done.changed:
        where = _name(engine)
        log.info("database migrated", database=where, before=done.before, after=done.after)
    return done


def upgrade(connection: Connection, revisions: Revisions, version: str) -> None:
    """Run the revisions up to one, in the transaction of the connection."""
    from alembic import command

    command.upgrade(_config(connection, revisions), version)


def _prepared(connection: Connection) -> Connection:
    """Of Postgres, a connection that sees what others committed while it waited for them. Of
    SQLite, one on which a table can be replaced although others refer to it."""
    if connection.dialect.name != "sqlite":
        return connection.execution_options(isolation_level="READ COMMITTED")
    connection.detach()  # closed at the end: nobody else gets it without its foreign keys
    cursor = connection.connection.cursor()
    cursor.execute("PRAGMA foreign_keys=OFF")  # has no effect inside a transaction
    cursor.close()
    return connection


def _brought(connection: Connection, revisions: Revisions) -> str | None:
    """Bring a database to the last revision; gives the one that it had."""
    found = version_of(connection)
    if found == revisions.head:
        return found
    if found is None:
        found = _recognised(connection, revisions)
    else:
        _check_known(connection, revisions, found)
    try:
        upgrade(connection, revisions, revisions.head)
    except SQLAlchemyError as error:
        why = str(getattr(error, "orig", None) or error).strip().removesuffix(".")
        problem = f"could not be brought from schema {found} to {revisions.head}: {why}"
        raise SchemaError(_name(connection.engine), problem) from error
    _check_references(connection)
    return found


def _recognised(connection: Connection, revisions: Revisions) -> str | None:
    """Stamp what the first version made, which wrote no version into it; None if it is empty."""
    from alembic import command

    there, first = _columns(connection), _first_columns(revisions)
    if not there.keys() & first.keys():
        return None
    lacking = [table for table in first if table not in there]
    for table in first.keys() & there.keys():
        lacking += [f"{table}.{name}" for name in first[table] if name not in there[table]]
    if lacking:
        raise SchemaError(
            _name(connection.engine),
            f"was made by another version of Director: it lacks {', '.join(sorted(lacking)[:5])}."
            " This version cannot take it over: move it away, or go on with the version that"
            " made it",
        )
    command.stamp(_config(connection, revisions), _FIRST)
    return _FIRST


def _columns(connection: Connection) -> dict[str, list[str]]:
    found = inspect(connection).get_multi_columns()
    return {table: [column["name"] for column in columns] for (_, table), columns in found.items()}


def _first_columns(revisions: Revisions) -> dict[str, list[str]]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        upgrade(connection, revisions, _FIRST)
        columns = _columns(connection)
    engine.dispose()
    del columns[_TABLE]
    return columns


def _check_known(connection: Connection, revisions: Revisions, version: str) -> None:
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(_config(connection, revisions))
    if version not in {script.revision for script in scripts.walk_revisions()}:
        raise SchemaError(
            _name(connection.engine),
            f"has schema {version}, and this version of Director knows those up to"
            f" {revisions.head} only: a newer one has used it. Start that one or a newer one, or"
            " restore the backup that was made before",
        )


def _check_references(connection: Connection) -> None:
    """See that no row refers to one that is gone: SQLite has not looked meanwhile."""
    if connection.dialect.name != "sqlite":
        return
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        problem = f"is damaged: row {broken[1]} of {broken[0]} refers to none of {broken[2]}"
        raise SchemaError(_name(connection.engine), problem)


def _config(connection: Connection, revisions: Revisions) -> "Config":
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(revisions.folder).replace("%", "%%"))
    return config


def _name(engine: Engine) -> str:
    """The database in words for people: no part of its URL that may hold the password."""
    url = engine.url
    if engine.dialect.name == "sqlite":
        return url.database or "the database in memory"
    return f"database {url.database} on {url.host or 'this machine'}"
