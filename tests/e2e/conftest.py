"""Real Directors: one that all tests share, and such as are a test's own."""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import docker
import pytest
from e2e.installation import Installation

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
def director(
    sandbox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A Director that tests share: starting one takes seconds. Whoever ends a part heals it."""
    with Installation(tmp_path_factory.mktemp("home"), sandbox_image) as running:
        yield running


@pytest.fixture
def installation(
    sandbox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], AbstractContextManager[Installation]]:
    """Make a Director that is the test's own; called again, it goes on in the same home."""
    home = tmp_path_factory.mktemp("home")
    return lambda: Installation(home, sandbox_image)
