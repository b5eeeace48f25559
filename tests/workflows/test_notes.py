"""Notes on the progress of a run may be lost; the run is not."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.server import TemporalServer
from support.stack import Stack, running_stack
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from director.domain import names


class NoNotes(Interceptor):
    """No note on progress can be written, as where the database is away."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Failing(next)


class _Failing(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        if activity.info().activity_type == names.RECORD_PROGRESS:
            raise OSError("the database is away")
        return await super().execute_activity(input)


@pytest.fixture
async def silent(
    temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """A Director that loses its notes."""
    folder = tmp_path_factory.mktemp("notes")
    async with running_stack(folder, temporal_server.address, "notes") as stack:
        await stack.stop_worker()
        await stack.start_worker(NoNotes())
        yield stack


async def test_a_run_whose_progress_cannot_be_noted_reaches_its_end(silent: Stack) -> None:
    workflow = await silent.workflow("wait notes", "say after")
    await silent.start(workflow["id"])
    await silent.until(workflow["id"], "running")
    path = f"/workflows/{workflow['id']}/signals/progress"
    await silent.call("POST", path, {"message": "on my way"})
    silent.gates.open("notes")

    assert (await silent.ended(workflow["id"]))["status"] == "completed"
