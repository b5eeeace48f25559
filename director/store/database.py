"""What a store asks of its database; `sqlite` and `postgres` are the two kinds.

SQLite has one writer at a time, over all processes: a write begins IMMEDIATE, since a deferred
transaction that reads and then writes fails at once under load, and the writers of one process wait
for each other here instead of in SQLite's back-off. On Postgres writers work beside each other, and
what one decides by is locked: see `locks`."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

SQLITE = "sqlite:///"
"""How the URL of a file begins."""


class Changes(Protocol):
    """Tells one reader that it should look again; it never misses a commit, and may err in saying
    that there was one."""

    async def wait(self) -> None:
        """Return once something was committed since the last call; the first returns at once."""

    async def close(self) -> None:
        """Let go of what is held for waiting."""


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
