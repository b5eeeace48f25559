"""Rows without an execution and executions without a row come to their end."""

import asyncio
import uuid
from datetime import timedelta

from structlog.testing import capture_logs
from support.server import free_port
from support.stack import Stack
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from director.activities.closed import ClosedRuns
from director.activities.reconcile import ReconcileActivities
from director.activities.sandboxes import Sandboxes
from director.activities.telling import Signals
from director.blobs.store import LocalBlobs
from director.domain import names
from director.domain.ids import RUN, new_id
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow
from director.store import runs
from director.store.tables import WorkflowRow
from director.temporal.client import connect


def reconcile(stack: Stack, **parts) -> ReconcileActivities:
    blobs = LocalBlobs(stack.settings.home / "blobs")
    sandboxes = Sandboxes(stack.store, blobs, stack.runtime, "scripted", "i")
    client = parts.pop("client", stack.temporal)
    signals = Signals(client, asyncio.get_running_loop())
    closed = ClosedRuns(sandboxes, signals)
    return ReconcileActivities(stack.store, client, closed, **parts)


async def orphan(stack: Stack) -> WorkflowHandle:
    """An execution of a run that is in no database."""
    return await stack.temporal.start_workflow(
        names.RUN_WORKFLOW, id=new_id(RUN), task_queue=f"nobody-{uuid.uuid4()}"
    )


async def status_of(handle: WorkflowHandle) -> WorkflowExecutionStatus | None:
    return (await handle.describe()).status


async def test_an_execution_without_a_row_is_terminated_and_says_why(stack: Stack) -> None:
    workflow = await stack.workflow("wait orphans")
    await stack.start(workflow["id"])
    run = await stack.until(workflow["id"], "running")
    handle = await orphan(stack)

    async with asyncio.timeout(60):
        while await status_of(handle) is WorkflowExecutionStatus.RUNNING:
            await reconcile(stack, orphan_age=timedelta(0)).reconcile()
    last = (await handle.fetch_history()).events[-1]

    assert "no such run" in last.workflow_execution_terminated_event_attributes.reason
    known = stack.temporal.get_workflow_handle(run["runId"])
    assert await status_of(known) is WorkflowExecutionStatus.RUNNING
    stack.gates.open("orphans")
    await stack.ended(workflow["id"])


async def test_a_young_execution_without_a_row_is_spared(stack: Stack) -> None:
    handle = await orphan(stack)
    async with asyncio.timeout(60):
        while not await stack.temporal.count_workflows(f"WorkflowId = '{handle.id}'"):
            await asyncio.sleep(0.05)

    await reconcile(stack).reconcile()

    assert await status_of(handle) is WorkflowExecutionStatus.RUNNING
    await handle.terminate()


async def test_orphans_are_looked_for_once_in_a_period(stack: Stack) -> None:
    activities = reconcile(stack, orphan_age=timedelta(0))
    await activities.reconcile()
    handle = await orphan(stack)
    async with asyncio.timeout(60):
        while not await stack.temporal.count_workflows(f"WorkflowId = '{handle.id}'"):
            await asyncio.sleep(0.05)

    await activities.reconcile()

    assert await status_of(handle) is WorkflowExecutionStatus.RUNNING
    await handle.terminate()


async def test_a_part_that_fails_keeps_no_other_from_its_work(stack: Stack) -> None:
    done = []

    async def broken() -> None:
        raise RuntimeError("broken")

    async def sound() -> None:
        done.append("sound")

    with capture_logs() as logs:
        await reconcile(stack, more=(broken, sound)).reconcile()

    failed = [entry for entry in logs if entry["event"] == "a part of reconcile failed"]
    assert done == ["sound"]
    assert [(entry["part"], entry["why"]) for entry in failed] == [("broken", "broken")]


async def test_visibility_that_does_not_answer_is_logged_and_ends_no_round(stack: Stack) -> None:
    done = []

    async def sound() -> None:
        done.append("sound")

    away = await connect(f"127.0.0.1:{free_port()}", "shared", lazy=True)
    with capture_logs() as logs:
        await reconcile(stack, client=away, more=(sound,)).reconcile()

    failed = {entry["part"] for entry in logs if entry["event"] == "a part of reconcile failed"}
    assert done == ["sound"]
    assert "end_orphans" in failed


async def test_a_run_that_temporal_has_forgotten_can_still_be_cancelled(stack: Stack) -> None:
    workflow = await stack.workflow("say never")
    with stack.store.write() as session:
        owner = session.get_one(WorkflowRow, workflow["id"]).owner_id
        admin = Principal(user_id=owner, username="admin", role=Role.ADMIN, login_id="lgn_1")
        run = runs.create(session, admin, workflow["id"], StartWorkflow())
        run.temporal_run_id = str(uuid.uuid4())
        session.add(run)

    cancelled = await stack.call("POST", f"/workflows/{workflow['id']}/cancel?wait=30")

    assert cancelled["status"] == "cancelled"
