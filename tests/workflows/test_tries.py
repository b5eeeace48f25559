"""A step that was set down is taken up again, however many tries it took to set it down."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from support.postgres import NewDatabase
from support.server import TemporalServer
from support.stack import Stack, running_stack
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from director.domain import names


class FirstTriesFail(Interceptor):
    """The first time that a step is asked for comes to nothing, as where its worker dies."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Failing(next)


class _Failing(ActivityInboundInterceptor):
    asked: set[tuple[str | None, int]] = set()

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        info = activity.info()
        if info.activity_type == names.RUN_STEP:
            step = (info.workflow_id, input.args[0].index)
            if step not in self.asked:
                self.asked.add(step)
                raise ApplicationError("a try is lost", category=ApplicationErrorCategory.BENIGN)
        return await super().execute_activity(input)


@pytest.fixture(scope="module")
async def unlucky(
    temporal_server: TemporalServer,
    database: str,
    new_database: NewDatabase,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """A Director that needs a second try for each step."""
    folder = tmp_path_factory.mktemp("tries")
    with new_database(folder) as url:
        starting = running_stack(folder, temporal_server.address, f"tries-{database}", url=url)
        async with starting as stack:
            await stack.stop_worker()
            await stack.start_worker(FirstTriesFail())
            yield stack


async def test_a_step_that_stood_in_line_begins(unlucky: Stack) -> None:
    session_id = (await unlucky.session())["id"]
    body = {"sessionId": session_id, "name": "One", "domain": "one"}
    body["config"] = {"maxConcurrentTasks": 1}
    pool = (await unlucky.call("POST", "/departments", body))["id"]

    fields = {"session_id": session_id, "departmentId": pool}
    first = (await unlucky.workflow("wait tries-first", **fields))["id"]
    second = (await unlucky.workflow("say second", **fields))["id"]
    await unlucky.start(first)
    await unlucky.until(first, "running")
    await unlucky.start(second)
    while (await unlucky.call("GET", f"/departments/{pool}/metrics"))["queuedTasks"] == 0:
        pass
    unlucky.gates.open("tries-first")

    assert (await unlucky.ended(first))["status"] == "completed"
    assert (await unlucky.ended(second))["status"] == "completed"


async def test_a_step_that_waited_for_an_approval_goes_on(unlucky: Stack) -> None:
    workflow = await unlucky.workflow({"type": "verify", "criteria": "approved"}, "say after")
    await unlucky.start(workflow["id"])
    await unlucky.until(workflow["id"], "waiting")
    decision = {"approved": True}
    await unlucky.call("POST", f"/workflows/{workflow['id']}/signals/approve", decision)

    assert (await unlucky.ended(workflow["id"]))["status"] == "completed"
