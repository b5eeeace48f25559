"""The database: one way to open a session, for coroutines and for threads."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, event, inspect
from sqlmodel import Session, SQLModel, create_engine

T = TypeVar("T")
_READ = "director_read"
_READERS = 2


class SchemaError(Exception):
    """The database was made by another version, and there are no migrations yet."""

    def __init__(self, database: str, missing: list[str]) -> None:
        super().__init__(
            f"{database} was made by another version of Director: it lacks {', '.join(missing[:5])}"
            ". This version cannot take it over: move it away, or go on with the version that made"
            " it. Nothing was changed in it"
        )


class Store:
    """Sync sessions behind small executors, one for writing and one for reading: what is shown
    must not wait behind a write that waits for a process that holds the database.

    `write` and `read` are for threads (activities), `run` and `fetch` for coroutines (the API).
    A write commits at its end or rolls back; on SQLite it begins IMMEDIATE, since a deferred
    transaction that reads and then writes fails at once under load, and the writers of one
    process wait for each other here instead of in SQLite's back-off.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self._writing = threading.Lock()
        self._writers = ThreadPoolExecutor(1, thread_name_prefix="store-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="store-read")

    def create_tables(self) -> None:
        """Make the tables that are missing. Raises SchemaError for such as another version made."""
        with self._writing, self.engine.begin() as connection:
            if missing := _missing_columns(connection):
                raise SchemaError(self.engine.url.database or "", missing)
            SQLModel.metadata.create_all(connection)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits at the end of the block, or rolls back on an exception."""
        with self._writing, Session(self.engine, expire_on_commit=False) as session:
            yield session
            session.commit()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading one consistent state; what is changed in it is dropped."""
        engine = self.engine.execution_options(**{_READ: True})
        with Session(engine, expire_on_commit=False) as session:
            yield session

    async def run(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in a write transaction off the event loop."""
        return await _off_loop(self._writers, self.write, fn)

    async def fetch(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in a reading session off the event loop."""
        return await _off_loop(self._readers, self.read, fn)

    def close(self) -> None:
        """End the executors and the connections."""
        self._writers.shutdown()
        self._readers.shutdown()
        self.engine.dispose()


def _missing_columns(connection: Connection) -> list[str]:
    found = inspect(connection).get_multi_columns()
    there = {name: {column["name"] for column in columns} for (_, name), columns in found.items()}
    return [
        f"{table.name}.{column.name}"
        for table in SQLModel.metadata.sorted_tables
        for column in table.columns
        if column.name not in there.get(table.name, {column.name})
    ]


async def _off_loop(
    executor: ThreadPoolExecutor, opened: Callable[[], Any], fn: Callable[[Session], T]
) -> T:
    def work() -> T:
        with opened() as session:
            return fn(session)

    context = contextvars.copy_context()  # logs and answers from there know their request
    return await asyncio.get_running_loop().run_in_executor(executor, context.run, work)


def _engine(url: str) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": 30, "check_same_thread": False},
        hide_parameters=True,  # an error's text goes to the log, values are secrets at times
    )

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get(_READ, False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine
