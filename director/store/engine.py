"""The store: one way to open a session, for coroutines and for threads."""

import asyncio
import contextvars
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import sqlalchemy
from sqlalchemy import Connection, Engine, Select, bindparam, event, inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import ORMExecuteState
from sqlalchemy.orm.util import identity_key
from sqlmodel import Session

from director.store import events, schema
from director.store.database import SQLITE, AwayError, Changes, Database
from director.store.schema import Migration
from director.store.sqlite import Sqlite

T = TypeVar("T")

_PAUSES = (0.01, 0.05, 0.2)
"""Seconds before a transaction is repeated that was ended for another's sake."""

_WROTE = "director_wrote"


class Store:
    """Sync sessions behind small executors, one for writing and one for reading: what is shown
    must not wait behind a write that waits for somebody else's.

    `write`, `transact` and `read` are for threads (activities), `run`, `fetch` and `look` for
    coroutines (the API). A write commits at its end or rolls back. `transact` and `run` get a
    function, which they call again where Postgres ended its transaction so that another could go
    on; a `write` is repeated by whoever repeats all around it, such as Temporal.
    """

    def __init__(self, url: str) -> None:
        self._database = _database_of(url)
        self.engine = self._database.engine
        self._writers = ThreadPoolExecutor(self._database.writers, "store-write")
        self._readers = ThreadPoolExecutor(self._database.readers, "store-read")

    def check(self) -> None:
        """Raise AwayError where the database is a server that does not answer."""
        self._database.check()

    def wait(self, seconds: float, say: Callable[[AwayError], None]) -> None:
        """Wait until the database answers. Raises AwayError after so long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.check()
            except AwayError as error:
                if time.monotonic() > deadline:
                    raise
                say(error)
            time.sleep(1)

    def create_tables(self) -> Migration:
        """Bring the database to the schema of this code. Raises SchemaError where it is of a newer
        version, or none of ours, AwayError where it does not answer. Where nothing is to be done
        it waits for nobody."""
        self.check()
        with self.read() as session:
            found = schema.version_of(session.connection())
        if found == schema.HEAD:
            return Migration(found, found)
        with self._database.turn(write=True):
            return schema.migrate(self.engine)

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits at the end of the block, or rolls back on an exception."""
        with self._database.turn(write=True):
            with _session(_WritingSession, self.engine) as session:
                yield session
                events.write(session)
                session.commit()
            if session.info.get(_WROTE):
                self._database.announce()

    def transact(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in a write transaction, again where that was ended for another's sake."""
        for pause in _PAUSES:
            try:
                return self._once(fn)
            except DBAPIError as error:
                if not self._database.is_conflict(error):
                    raise
            time.sleep(pause * (0.5 + random.random()))  # noqa: S311 - only keeps two apart
        return self._once(fn)

    def _once(self, fn: Callable[[Session], T]) -> T:
        with self.write() as session:
            return fn(session)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading one consistent state; what is changed in it is dropped."""
        database = self._database
        with database.turn(write=False), _session(_Session, database.reading) as session:
            yield session

    async def run(self, fn: Callable[[Session], T]) -> T:
        """As `transact`, off the event loop."""
        return await _off_loop(self._writers, partial(self.transact, fn))

    async def fetch(self, fn: Callable[[Session], T]) -> T:
        """Run `fn` in a reading session off the event loop."""
        return await _off_loop(self._readers, partial(self._seen, fn))

    async def look(self, fn: Callable[[Session], T]) -> T:
        """As `fetch`, for what reads a few rows by their ids, each statement by itself: without a
        transaction around them, and where they are at hand without the way to a thread and back,
        either of which costs more than the reading."""
        if (kept := self._database.at_hand) is None:
            return await _off_loop(self._readers, partial(self._looked, fn))
        with _session(_Session, kept) as session:
            return fn(session)

    def _seen(self, fn: Callable[[Session], T]) -> T:
        with self.read() as session:
            return fn(session)

    def _looked(self, fn: Callable[[Session], T]) -> T:
        try:
            return self._look(fn)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        return self._look(fn)  # the server was started again meanwhile

    def _look(self, fn: Callable[[Session], T]) -> T:
        with _session(_Session, self._database.looking) as session:
            return fn(session)

    def changes(self) -> Changes:
        """For one who waits for what others commit."""
        return self._database.changes()

    def close(self) -> None:
        """End the executors and the connections."""
        self._writers.shutdown()
        self._readers.shutdown()
        self._database.close()


def _database_of(url: str) -> Database:
    """The database of a URL. Raises ValueError; it does not show the URL, which has a password."""
    if url.startswith(SQLITE):
        return Sqlite(url)
    from director.store.postgres import Postgres, check_url  # loads its driver

    return Postgres(check_url(url))


def _session(kind: type[Session], bind: Engine | Connection) -> Session:
    return kind(bind, expire_on_commit=False)


class _Session(Session):
    """Asks for a row by its id with a statement that is made once for each kind: the ORM's own
    is made anew each time, which costs more than to ask it."""

    def get(self, entity: Any, ident: Any, **options: Any) -> Any:
        """As the ORM's."""
        known = identity_key(entity, ident) in self.identity_map
        if known or options or not isinstance(ident, str):
            return super().get(entity, ident, **options)
        return self.scalars(_by_id(entity), {"id": ident}).first()


@cache
def _by_id(kind: Any) -> Select[Any]:
    (key,) = inspect(kind).primary_key
    return sqlalchemy.select(kind).where(key == bindparam("id"))


class _WritingSession(_Session):
    """Knows whether it has sent anything that writes: other commits need not be announced."""


@event.listens_for(_WritingSession, "after_flush")
def _flushed(session: Session, _: Any) -> None:
    session.info[_WROTE] = True


@event.listens_for(_WritingSession, "do_orm_execute")
def _executed(state: ORMExecuteState) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        state.session.info[_WROTE] = True


async def _off_loop(executor: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    context = contextvars.copy_context()  # logs and answers from there know their request
    return await asyncio.get_running_loop().run_in_executor(executor, context.run, work)
