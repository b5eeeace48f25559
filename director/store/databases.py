"""What differs between SQLite and Postgres: connections, transactions, whose turn it is.

SQLite has one writer at a time, over all processes: a write begins IMMEDIATE, since a deferred
transaction that reads and then writes fails at once under load, and the writers of one process wait
for each other here instead of in SQLite's back-off. On Postgres writers work beside each other, and
what one decides by is locked: see `locks`."""

import threading
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError

from director.store.changes import Announcer, Changes, FileChanges, NotifiedChanges, Parameters

_POSTGRES = "postgresql://"
_SQLITE = "sqlite:///"

_READ = "director_read"
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


class AwayError(Exception):
    """The database does not answer; the message says which one, and why."""


class Database(Protocol):
    """One kind of database, as a store uses it."""

    engine: Engine
    reading: Engine
    """The same connections, for transactions that read one consistent state."""
    looking: Engine
    """For who reads a few rows by their ids: each statement stands alone. Connections may have been
    lost unseen, so that whoever reads repeats it once."""
    writers: int
    readers: int
    """How many threads write and read for coroutines."""

    @property
    def at_hand(self) -> Connection | None:
        """For an event loop: by it a few rows are read sooner than a thread begins, and never wait
        for a writer. None where they are further away."""

    def turn(self, *, write: bool) -> AbstractContextManager[Any]:
        """Wait for the turn to open a session."""

    def check(self) -> None:
        """Raise AwayError where the database is elsewhere and does not answer."""

    def is_conflict(self, error: DBAPIError) -> bool:
        """Whether a transaction was ended for another's sake, so that it may be repeated."""

    def announce(self) -> None:
        """Tell those who wait in `changes`, in any process, that something was committed."""

    def changes(self) -> Changes:
        """For one who waits for commits."""

    def close(self) -> None:
        """Close all connections."""


def database_of(url: str) -> Database:
    """The database of a URL. Raises ValueError; it does not show the URL, which has a password."""
    return Sqlite(url) if url.startswith(_SQLITE) else Postgres(check_url(url))


def check_url(url: str) -> Parameters:
    """What a connection to Postgres is made with, as libpq reads the URL.

    Raises ValueError, which does not show the URL, where it is none of Postgres."""
    if not url.startswith(_POSTGRES):
        raise ValueError(
            f"neither {_SQLITE}PATH nor {_POSTGRES}USER:PASSWORD@HOST:PORT/DATABASE; these are"
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
