"""A database that is a file on this machine."""

import asyncio
import sqlite3
import threading
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from director.store.database import Changes

_READ = "director_read"
_PERIOD = 0.01
"""Seconds between two looks whether somebody has committed."""


class Sqlite:
    """A file on this machine, with a log of its own for writing (WAL)."""

    writers, readers = 1, 2

    def __init__(self, url: str) -> None:
        self.engine = create_engine(
            url,
            connect_args={"timeout": 30, "check_same_thread": False},
            hide_parameters=True,  # an error's text goes to the log, values are secrets at times
        )
        self.reading: Engine = self.engine.execution_options(**{_READ: True})
        self.looking: Engine = self.reading
        self._writing = threading.Lock()
        event.listen(self.engine, "connect", _set_up_sqlite)
        event.listen(self.engine, "begin", _begin_sqlite)

    def turn(self, *, write: bool) -> AbstractContextManager[Any]:
        """One writer; whoever reads need not wait."""
        return self._writing if write else nullcontext()

    def check(self) -> None:
        """A file answers always, or never."""

    def is_conflict(self, error: DBAPIError) -> bool:
        """Nothing else writes meanwhile."""
        return False

    def announce(self) -> None:
        """SQLite tells by itself."""

    @cached_property
    def at_hand(self) -> Connection:
        """Kept open, since to take one from the pool costs as much as the reading."""
        return self.reading.connect()

    def changes(self) -> Changes:
        """Watch the file."""
        return FileChanges(self.engine.url.database or "")

    def close(self) -> None:
        """Close all connections."""
        if kept := self.__dict__.pop("at_hand", None):
            kept.close()
        self.engine.dispose()


def _set_up_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    if connection.get_execution_options().get(_READ, False):
        driver: Any = connection.connection.driver_connection
        driver.execute("BEGIN")  # takes no lock yet, so that nothing can be wrong with it
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


class FileChanges:
    """Watches SQLite's data version, which moves when any other connection commits."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._seen: int | None = None

    async def wait(self) -> None:
        """Look at the version every 10 ms."""
        if self._seen is not None:
            await asyncio.sleep(_PERIOD)
        while (version := self._version()) == self._seen:
            await asyncio.sleep(_PERIOD)
        self._seen = version

    async def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _version(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)
