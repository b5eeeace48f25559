"""A database that is a Postgres server, which several APIs and workers share.

Only who has one imports this: its driver is nine megabytes of a process's memory."""

import asyncio
import threading
import time
from contextlib import AbstractContextManager
from typing import Any

import psycopg
import structlog
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from director.store.database import SQLITE, AwayError, Changes

log = structlog.get_logger()

Parameters = dict[str, Any]
"""What a connection is made with."""

_POSTGRES = "postgresql://"

_CONNECTIONS = 10
"""Of one process, beside one that listens and one that notifies."""
_SPARE = 2
"""For who opens connections past the store, such as migrations."""
_CONFLICTS = ("40001", "40P01")
"""A transaction could not be serialised, or was ended so that another could go on."""

_SESSION = "-c lock_timeout=30s -c idle_in_transaction_session_timeout=60s"
"""As long as SQLite waits for another writer. A process that stands still in the middle of a
transaction is cut off, since all others wait for its locks."""
_DEFAULTS: Parameters = {
    "application_name": "director",
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}

_CHANNEL = "director"
_SPACING = 0.01
"""Seconds between two announcements of a process, and between two looks of who waits for them."""
_POLL = 0.25
_CLOSE_SECONDS = 5

_LISTEN, _NOTIFY = f"LISTEN {_CHANNEL}", f"NOTIFY {_CHANNEL}"
_SNAPSHOT = "SELECT pg_current_snapshot()::text"
"""Differs from an earlier one where a transaction that wrote has begun or ended in between."""


class Postgres:
    """A server, which several APIs and workers share."""

    writers, readers = 4, 4
    at_hand = None

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self.engine = self._engine(
            isolation_level="READ COMMITTED",
            pool_size=_CONNECTIONS,
            max_overflow=_SPARE,
            pool_pre_ping=True,
        )
        self.reading: Engine = self.engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        # To ask a connection whether it lives, and to begin and end a transaction, would be most of
        # what a look costs.
        self.looking: Engine = self._engine(
            isolation_level="AUTOCOMMIT", pool_size=self.readers, max_overflow=0
        )
        self._turns = threading.BoundedSemaphore(_CONNECTIONS)
        self._announcer = Announcer(parameters)

    def _engine(self, **options: Any) -> Engine:
        engine = create_engine(
            _shown(self._parameters),
            creator=lambda: psycopg.connect(**self._parameters),
            pool_use_lifo=True,
            hide_parameters=True,  # an error's text goes to the log, values are secrets at times
            **options,
        )
        event.listen(engine, "handle_error", _as_operational)
        return engine

    def turn(self, *, write: bool) -> AbstractContextManager[Any]:
        """As many sessions as there are connections."""
        return self._turns

    def check(self) -> None:
        """Raise AwayError where the server does not answer."""
        try:
            self.engine.connect().close()
        except DBAPIError as error:
            why = " ".join(str(error.orig).split())
            raise AwayError(f"{self} does not answer: {why}") from error

    def is_conflict(self, error: DBAPIError) -> bool:
        """Deadlocks and what could not be serialised."""
        return getattr(error.orig, "sqlstate", None) in _CONFLICTS

    def announce(self) -> None:
        """Tell it by NOTIFY, soon."""
        self._announcer.announce()

    def changes(self) -> Changes:
        """Listen for it."""
        return NotifiedChanges(self._parameters)

    def close(self) -> None:
        """Close all connections."""
        self._announcer.close()
        self.engine.dispose()
        self.looking.dispose()

    def __str__(self) -> str:
        url = self.engine.url
        return f"database {url.database} on {url.host or 'the local socket'}"


def check_url(url: str) -> Parameters:
    """What a connection to Postgres is made with, as libpq reads the URL.

    Raises ValueError, which does not show the URL, where it is none of Postgres."""
    if not url.startswith(_POSTGRES):
        raise ValueError(
            f"neither {SQLITE}PATH nor {_POSTGRES}USER:PASSWORD@HOST:PORT/DATABASE; these are"
            " possible"
        )
    try:
        given = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        given = {}
    if not given or _is_torn(given):
        raise ValueError(
            f"cannot be read as {_POSTGRES}USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE; signs"
            " such as @ : / ? # % in a password are written as %40 %3A %2F %3F %23 %25"
        )
    if not given.get("dbname"):
        raise ValueError(f"names no database: {_POSTGRES}USER:PASSWORD@HOST:PORT/DATABASE")
    options = f"{_SESSION} {given.get('options') or ''}"
    return {**_DEFAULTS, **given, "options": options}


def _is_torn(given: Parameters) -> bool:
    """Whether a sign in the password has ended the host's part, so that it is shown as another."""
    ports = str(given.get("port", "")).split(",")
    return "@" in str(given.get("dbname", "")) or not all(port.isdigit() for port in ports if port)


def _shown(parameters: Parameters) -> URL:
    """The URL of a server for people: without the password, wherever it was given."""
    port = str(parameters.get("port", ""))
    return URL.create(
        "postgresql+psycopg",
        username=parameters.get("user"),
        host=parameters.get("host"),
        port=int(port) if port.isdigit() else None,
        database=parameters["dbname"],
    )


def _as_operational(context: ExceptionContext) -> None:
    """Let every lost connection be an OperationalError, which passes; the driver has others too."""
    known = context.sqlalchemy_exception
    if context.is_disconnect and known is not None and not isinstance(known, OperationalError):
        raise OperationalError(
            known.statement if isinstance(known, DBAPIError) else None,
            None,
            context.original_exception,
            hide_parameters=True,
            connection_invalidated=True,
        ) from context.original_exception


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
