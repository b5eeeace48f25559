"""Real Directors: for each kind of database one that all tests share, and such as are a test's
own."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack

import docker
import pytest
from e2e.installation import Installation, healed
from support.postgres import NewDatabase, PostgresServer, database_url

from director.machine.image import ensure_image


@pytest.fixture(scope="session")
def sandbox_image() -> str:
    """The name of the default sandbox image, made where the engine does not have it."""
    if given := os.environ.get("DIRECTOR_TEST_IMAGE"):
        return given
    client = docker.from_env()
    try:
        return ensure_image(client, print)
    finally:
        client.close()


@pytest.fixture(scope="session")
def directors(
    sandbox_image: str,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Installation]]:
    """One Director for each kind of database; it stays when tests of another kind come between."""
    made: dict[str, Installation] = {}
    with ExitStack() as running:

        def director(kind: str) -> Installation:
            if kind not in made:
                home = tmp_path_factory.mktemp("home")
                url = running.enter_context(database_url(kind, postgres_server, home))
                starting = Installation(home, sandbox_image, environ={"DIRECTOR_DATABASE_URL": url})
                made[kind] = running.enter_context(starting)
            return made[kind]

        yield director


@pytest.fixture(scope="session")
def director(database: str, directors: Callable[[str], Installation]) -> Installation:
    """A Director that tests share: starting one takes seconds. Whoever ends a part heals it."""
    return directors(database)


@pytest.fixture
def whole(director: Installation) -> Iterator[Installation]:
    """The shared Director, with all its parts up before and after."""
    with healed(director):
        yield director


@pytest.fixture(scope="module")
def pair(
    sandbox_image: str, new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A Director with two workers, for the tests of one file, which may kill them."""
    home = tmp_path_factory.mktemp("home")
    with new_database(home) as url:
        environ = {"DIRECTOR_DATABASE_URL": url}
        with Installation(home, sandbox_image, workers=2, environ=environ) as running:
            yield running


@pytest.fixture
def installation(
    sandbox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], AbstractContextManager[Installation]]:
    """Make a Director that is the test's own; called again, it goes on in the same home."""
    home = tmp_path_factory.mktemp("home")
    return lambda: Installation(home, sandbox_image)
