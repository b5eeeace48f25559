"""What many tests share: a real Temporal server and one stack with scripted sandboxes."""

from collections.abc import AsyncIterator, Iterator

import pytest
from support.server import TemporalServer
from support.stack import Stack, running_stack

from director.logs import set_up_logs


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
async def stack(
    temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """One Director for all tests that break nothing: each makes sessions of its own."""
    folder = tmp_path_factory.mktemp("stack")
    async with running_stack(folder, temporal_server.address, "shared") as running:
        yield running
