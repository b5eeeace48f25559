"""A run is settled by the worker that has its workflow, and where that fails or hangs, by another
activity on the host of its sandbox."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlmodel import select
from support.server import TemporalServer
from support.stack import Data, Stack, running_stack
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from director.activities.runs import RunActivities
from director.activities.sandboxes import Sandboxes, sandbox_id
from director.activities.telling import Signals
from director.domain import names
from director.domain.runs import Progress, ProgressNote
from director.store.tables import EventRow

Before = Callable[[activity.Info], Awaitable[None]]


class Beside(Interceptor):
    """Does something before an activity that a workflow lets its own worker perform."""

    def __init__(self, before: Before) -> None:
        self.before = before

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Beside(next, self)


class _Beside(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, beside: Beside) -> None:
        super().__init__(next)
        self._beside = beside

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        if (info := activity.info()).is_local:
            await self._beside.before(info)
        return await super().execute_activity(input)


async def _nothing(info: activity.Info) -> None:
    del info


@pytest.fixture
async def told(
    temporal_server: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Stack, Beside]]:
    folder = tmp_path_factory.mktemp("local")
    async with running_stack(folder, temporal_server.address, "local") as stack:
        await stack.stop_worker()
        beside = Beside(_nothing)
        await stack.start_worker(beside)
        yield stack, beside


async def scheduled(stack: Stack, run: Data) -> list[str]:
    history = await stack.temporal.get_workflow_handle(run["runId"]).fetch_history()
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
    ]


async def test_a_run_whose_sandbox_is_stuck_is_settled_later_by_its_host(
    told: tuple[Stack, Beside],
) -> None:
    stack, _ = told
    workflow = await stack.workflow("wait stuck")
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    sandbox = sandbox_id(run["runId"])
    stack.runtime.stuck.add(sandbox)
    stack.gates.open("stuck")

    while names.SETTLE not in await scheduled(stack, run):
        await asyncio.sleep(0.05)
    stack.runtime.stuck.discard(sandbox)

    assert (await stack.ended(workflow["id"]))["status"] == "completed"
    assert stack.runtime.removed[-1] == sandbox


async def test_a_run_is_settled_by_its_host_where_its_worker_hangs_in_that(
    told: tuple[Stack, Beside],
) -> None:
    stack, beside = told
    hanging = asyncio.Event()

    async def hang(info: activity.Info) -> None:
        if info.activity_type == names.SETTLE:
            await hanging.wait()

    beside.before = hang
    run = await stack.run("say x")
    hanging.set()
    beside.before = _nothing

    assert run["status"] == "completed"
    assert await scheduled(stack, run) == [names.RUN_STEP, names.SETTLE]
    await stack.temporal.get_workflow_handle(run["runId"]).result()


async def test_the_end_is_the_last_that_is_told_though_progress_is_noted_later(
    told: tuple[Stack, Beside],
) -> None:
    """As where the worker that settled a run died before Temporal heard of it."""
    stack, _ = told
    workflow = await stack.workflow("say one")
    await stack.start(workflow["id"])
    run = await stack.ended(workflow["id"])
    late = Progress(source="agent", message="late", number=1)
    activities = RunActivities(
        cast(Sandboxes, SimpleNamespace(store=stack.store)), cast(Signals, None)
    )

    await asyncio.to_thread(
        activities.record_progress, ProgressNote(run_id=run["runId"], entries=[late])
    )

    events = await stack.store.fetch(
        lambda s: s.exec(select(EventRow.type).where(EventRow.subject == run["runId"])).all()
    )
    assert events[-1] == "workflow.completed"
