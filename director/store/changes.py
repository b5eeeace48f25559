"""Waiting until something was committed to the database, by whichever process."""

import asyncio
import sqlite3
import threading
import time
from typing import Any, Protocol

import psycopg
import structlog

log = structlog.get_logger()

Parameters = dict[str, Any]
"""What a connection to Postgres is made with."""

_CHANNEL = "director"
_PERIOD = 0.01
_SPACING = 0.01
"""Seconds between two announcements of a process, and between two looks of who waits for them."""
_POLL = 0.25
_CLOSE_SECONDS = 5

_LISTEN, _NOTIFY = f"LISTEN {_CHANNEL}", f"NOTIFY {_CHANNEL}"
_SNAPSHOT = "SELECT pg_current_snapshot()::text"
"""Differs from an earlier one where a transaction that wrote has begun or ended in between."""


class Changes(Protocol):
    """Tells one reader that it should look again; it never misses a commit, and may err in saying
    that there was one."""

    async def wait(self) -> None:
        """Return once something was committed since the last call; the first returns at once."""

    async def close(self) -> None:
        """Let go of what is held for waiting."""


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


class NotifiedChanges:
    """Hears what `Announcer` says on Postgres. An announcement can be lost with the process that
    would have made it, or with the connection: behind it stands a look every 250 ms."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._seen = ""
        self._woken = float("-inf")
        self._deaf = False

    async def wait(self) -> None:
        """Listen, and look every 250 ms; where listening is impossible, return as often."""
        await asyncio.sleep(self._woken + _SPACING - time.monotonic())
        try:
            while not await self._changed():
                pass
            self._say(None)
        except psycopg.Error as error:
            self._say(error)
            await self.close()
            await asyncio.sleep(_POLL)
        self._woken = time.monotonic()

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _changed(self) -> bool:
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(
                **self._parameters, autocommit=True
            )
            await self._connection.execute(_LISTEN)
            return True  # nobody has listened until now
        if await self._heard(self._connection, _POLL):
            await self._heard(self._connection, 0)  # the others that came with it say no more
            return True
        before, self._seen = self._seen, await self._snapshot(self._connection)
        return self._seen != before

    @staticmethod
    async def _heard(connection: psycopg.AsyncConnection[Any], seconds: float) -> bool:
        heard = [note async for note in connection.notifies(timeout=seconds, stop_after=1)]
        return bool(heard)

    @staticmethod
    async def _snapshot(connection: psycopg.AsyncConnection[Any]) -> str:
        row = await (await connection.execute(_SNAPSHOT)).fetchone()
        return str(row[0]) if row else ""

    def _say(self, error: psycopg.Error | None) -> None:
        """Once for each loss, and once when it is over."""
        if error is not None and not self._deaf:
            log.warning("changes are looked for, not heard of", why=" ".join(str(error).split()))
        elif error is None and self._deaf:
            log.info("changes are heard of again")
        self._deaf = error is not None


class Announcer:
    """Announces commits of this process on Postgres, from a thread and a connection of its own: a
    NOTIFY inside of their transactions would let them commit one by one only."""

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._wanted = threading.Event()
        self._over = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def announce(self) -> None:
        """Say soon that something was committed; what comes meanwhile is said with it."""
        self._wanted.set()
        if self._thread is None:
            with self._starting:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name="notify", daemon=True)
                    self._thread.start()

    def close(self) -> None:
        """Say what is not said yet, and end."""
        self._over = True
        if self._thread is not None:
            self._wanted.set()
            self._thread.join(_CLOSE_SECONDS)

    def _run(self) -> None:
        connection: psycopg.Connection[Any] | None = None
        while not self._over:
            self._wanted.wait()
            self._wanted.clear()
            connection = self._announced(connection) or self._announced(None)
            time.sleep(_SPACING)
        if connection is not None:
            connection.close()

    def _announced(
        self, connection: psycopg.Connection[Any] | None
    ) -> psycopg.Connection[Any] | None:
        """Announce, and give the connection back unless it is lost: whoever waits looks, too."""
        try:
            connection = connection or psycopg.connect(**self._parameters, autocommit=True)
            connection.execute(_NOTIFY)
        except psycopg.Error:
            if connection is not None:
                connection.close()
            return None
        return connection
