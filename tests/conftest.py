"""What many tests share: a real Temporal server, a real Postgres, and for each kind of database one
stack with scripted sandboxes."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.groups import group, in_order
from support.postgres import DATABASES, NewDatabase, PostgresServer, database_url
from support.server import TemporalServer

from director.logs import set_up_logs

if TYPE_CHECKING:
    # else imported where they are used: API, worker and store take two seconds, and many processes
    # run no test that has them in itself
    from support.stack import Stack

    from director.store.engine import Store

_ON_BOTH = (
    "store",
    "api",
    "activities",
    "workflows/test_approvals.py",
    "workflows/test_cancels.py",
    "workflows/test_resets.py",
    "workflows/test_slots.py",
    "workflows/test_tries.py",
)
"""The tests that run on every kind of database, wherever they use one, as those do that are marked
`kills` or `both`; others use SQLite."""
_ON_ONE = tuple(
    f"api/test_{noun}.py"
    for noun in (
        "archives",
        "auth",
        "departments",
        "foundation",
        "networks",
        "openapi",
        "sandboxes",
        "users",
        "workflows",
    )
)
"""But not these, whose statements `store` tries on every kind: what they look at is all that comes
before a statement, and what becomes of its answer. Where requests meet, they are marked `both`."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let a test run on every kind of database, unless it names one itself."""
    named = {mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")}
    if "database" in metafunc.fixturenames and "database" not in named:
        place = metafunc.definition.path.relative_to(Path(__file__).parent)
        marked = any(map(metafunc.definition.get_closest_marker, ("kills", "both")))
        plain = any(map(place.is_relative_to, _ON_ONE))
        if marked or (not plain and any(map(place.is_relative_to, _ON_BOTH))):
            metafunc.parametrize("database", DATABASES, indirect=True, scope="session")


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None]:
    """Where tests run side by side, tell which belong together, and let the longest begin."""
    side_by_side = config.getoption("loadgroup", default=False)
    if side_by_side:
        for item in items:
            if not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group(group(item)))
    yield
    if side_by_side:
        items[:] = in_order(items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note which tests have failed, for who runs all of them."""
    path = os.environ.get("DIRECTOR_TEST_FAILED")
    if path and report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        with Path(path).open("a") as noted:
            noted.write(f"{report.nodeid}\n")


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    set_up_logs("console")


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer]:
    """One dev server for all tests that do not kill it."""
    server = TemporalServer(tmp_path_factory.mktemp("temporal"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One Postgres for all tests that do not kill it; it starts when it is used."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def database(request: pytest.FixtureRequest) -> str:
    """The kind of database that a test runs on."""
    return str(getattr(request, "param", DATABASES[0]))


@pytest.fixture(scope="session")
def new_database(database: str, postgres_server: PostgresServer) -> NewDatabase:
    """Make a database of that kind, given a folder, for as long as a block lasts."""
    return partial(database_url, database, postgres_server)


@pytest.fixture
def url(new_database: NewDatabase, tmp_path: Path) -> Iterator[str]:
    """The URL of a database of the test's own."""
    with new_database(tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with Director's tables, to be copied: making them costs more than most tests do."""
    from director.store.engine import Store

    path = tmp_path_factory.mktemp("template") / "director.db"
    store = Store(f"sqlite:///{path}")
    store.create_tables()
    store.close()
    return path


@pytest.fixture
def store(url: str, sqlite_template: Path) -> Iterator["Store"]:
    """A store of the test's own."""
    from director.store.engine import Store

    if url.startswith("sqlite:///"):
        shutil.copyfile(sqlite_template, url.removeprefix("sqlite:///"))
    store = Store(url)
    store.create_tables()
    yield store
    store.close()


@pytest.fixture(scope="session")
async def stacks(
    temporal_server: TemporalServer,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Callable[[str], Awaitable["Stack"]]]:
    """One Director for each kind of database; it stays when tests of another kind come between."""
    from support.stack import Stack, running_stack

    made: dict[str, Stack] = {}
    async with AsyncExitStack() as running:

        async def stack(kind: str) -> Stack:
            if kind not in made:
                folder = tmp_path_factory.mktemp(kind)
                url = running.enter_context(database_url(kind, postgres_server, folder))
                starting = running_stack(folder, temporal_server.address, f"shared-{kind}", url=url)
                made[kind] = await running.enter_async_context(starting)
            return made[kind]

        yield stack


@pytest.fixture(scope="session")
async def stack(database: str, stacks: Callable[[str], Awaitable["Stack"]]) -> "Stack":
    """One Director for all tests that break nothing: each makes sessions of its own."""
    return await stacks(database)
