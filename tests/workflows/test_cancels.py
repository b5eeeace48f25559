"""A cancel that comes while the workflow itself is at work settles the run as any other does."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.server import TemporalServer
from support.stack import Stack, running_stack
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from director.domain import names


class SlowNotes(Interceptor):
    """Notes on a run's status are written only once `let` is set."""

    def __init__(self) -> None:
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Slow(next, self)


class _Slow(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, notes: SlowNotes) -> None:
        super().__init__(next)
        self._notes = notes

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        if activity.info().activity_type == names.RECORD_STATUS:
            self._notes.asked.set()
            await self._notes.let.wait()
        return await super().execute_activity(input)


@pytest.fixture
async def slow(
    temporal_server: TemporalServer,
    database: str,
    url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Stack, SlowNotes]]:
    """A Director whose notes are slow, as where the database is locked."""
    folder = tmp_path_factory.mktemp("cancels")
    namespace = f"cancels-{database}"
    async with running_stack(folder, temporal_server.address, namespace, url=url) as stack:
        await stack.stop_worker()
        notes = SlowNotes()
        await stack.start_worker(notes)
        yield stack, notes
        notes.let.set()


async def test_a_cancel_while_a_pause_is_written_is_settled_by_the_run_itself(
    slow: tuple[Stack, SlowNotes],
) -> None:
    stack, notes = slow
    workflow = await stack.workflow("wait cancels-first", "say never")
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    await stack.call("POST", f"/workflows/{workflow['id']}/pause")
    stack.gates.open("cancels-first")
    await notes.asked.wait()

    await stack.call("POST", f"/workflows/{workflow['id']}/cancel")
    ended = await stack.ended(workflow["id"])

    assert ended["status"] == "cancelled"
    handle = stack.temporal.get_workflow_handle(run["runId"])
    scheduled = [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in (await handle.fetch_history()).events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]
    assert scheduled == [names.RUN_STEP], "no other activity than the step's, and one at once"
