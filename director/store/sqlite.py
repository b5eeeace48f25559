"""A database that is a file on this machine."""

import asyncio
import sqlite3
import threading
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property
from typing import Any

import structlog
from asyncinotify import Inotify, Mask
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from director.store.database import Changes

log = structlog.get_logger()

_READ = "director_read"
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.001, 0.25
"""Seconds between two looks whether somebody has committed: just after a write, and at all."""

_SHARE, _LONGEST_REST = 4, 0.01
"""How many times what a change gave to do its hearer rests, at most so many seconds."""


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
    """Watches SQLite's data version, which moves when any other connection commits.

    A commit is written to the log first, of which the kernel tells at once, and counts when the log
    has reached the disk: the version is looked at until then, ever more rarely."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._log, self._writes = f"{path}-wal", _inotify()
        self._seen: int | None = None
        self._told_at = self._written_at = float("-inf")

    async def wait(self) -> None:
        """Rest a while that grows with what the last change gave to do, and look."""
        if self._seen is not None:
            busy = time.monotonic() - self._told_at
            await asyncio.sleep(min(_SHARE * busy, _LONGEST_REST))
        while (version := self._version()) == self._seen:
            await self._stirred()
        if self._seen is None:
            self._listen()
        self._seen, self._told_at = version, time.monotonic()

    async def close(self) -> None:
        """Close the connection."""
        if self._writes is not None:
            self._writes.close()
        self._connection.close()

    async def _stirred(self) -> None:
        """Wait for a write, at most a while that grows with the time since the last one."""
        if self._writes is None:
            await asyncio.sleep(_LONGEST_REST)
            return
        quiet = time.monotonic() - self._written_at
        try:
            async with asyncio.timeout(min(max(quiet / 4, _SHORTEST_PAUSE), _LONGEST_PAUSE)):
                await self._writes.get()
        except TimeoutError:
            self._listen()  # to a log that was not there before
            return
        self._written_at = time.monotonic()
        await asyncio.sleep(_SHORTEST_PAUSE)  # what else is written until then is one with it

    def _listen(self) -> None:
        if self._writes is not None:
            with suppress(OSError):
                self._writes.add_watch(self._log, Mask.MODIFY)

    def _version(self) -> int:
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)


def _inotify() -> Inotify | None:
    """What the kernel tells of writes by; None where it has no more of them to give."""
    try:
        return Inotify()
    except OSError as error:
        log.warning("commits are looked for, since the kernel cannot tell of them", why=str(error))
        return None
