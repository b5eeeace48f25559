"""What Temporal shows and keeps of a run, and what happens to a run from its side."""

import asyncio
import json
from pathlib import Path

import pytest
from support.server import TemporalServer
from support.stack import Stack, running_stack
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import SearchAttributeKey

from director.domain import names
from director.domain.runs import RunState

CANARY = "canary-7f3a9c51"


def handle_of(stack: Stack, run: dict) -> WorkflowHandle:
    return stack.temporal.get_workflow_handle(run["runId"])


async def test_a_run_costs_six_events_for_each_step_and_nine_around(stack: Stack) -> None:
    run = await stack.run("say one", "say two", "say three")
    await handle_of(stack, run).result()

    history = await handle_of(stack, run).fetch_history()

    patched, settled, upserted = 2, 1, 1
    assert len(history.events) == 5 + 6 * 3 + patched + settled + upserted


async def test_a_run_shows_its_session_kind_and_state_to_those_who_search(stack: Stack) -> None:
    run = await stack.run("say x")
    await handle_of(stack, run).result()

    described = await handle_of(stack, run).describe()

    found = {
        name: described.typed_search_attributes.get(SearchAttributeKey.for_keyword(name))
        for name in (names.SEARCH_SESSION, names.SEARCH_KIND, names.SEARCH_STATE)
    }
    assert found == {
        names.SEARCH_SESSION: run["sessionId"],
        names.SEARCH_KIND: "run",
        names.SEARCH_STATE: "completed",
    }


async def test_the_temporal_ui_tells_the_story_of_a_run(stack: Stack) -> None:
    run = await stack.run("say x", "fail 1")
    handle = handle_of(stack, run)

    details = await handle.query("__temporal_workflow_metadata")
    history = await handle.fetch_history()
    summaries = {
        event.user_metadata.summary.data.decode()
        for event in history.events
        if event.user_metadata.summary.data
    }

    assert "`step-1` execute: completed" in details.current_details
    assert "`step-2` execute: failed" in details.current_details
    assert {'"step-1: execute"', '"step-2: execute"', '"settle: failed"'} <= summaries


async def test_a_failed_run_is_failed_and_a_cancelled_one_cancelled_in_temporal_too(
    stack: Stack,
) -> None:
    failed = await stack.run("fail 1")
    workflow = await stack.workflow("wait for-ever")
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    cancelled = await stack.call("POST", f"/workflows/{workflow['id']}/cancel?wait=30")

    for run in (failed, cancelled):
        with pytest.raises(WorkflowFailureError):
            await handle_of(stack, run).result()
    seen = [(await handle_of(stack, run).describe()).status for run in (failed, cancelled)]

    assert [status.name for status in seen if status] == ["FAILED", "CANCELED"]


async def test_an_agents_progress_is_numbered_and_seen_everywhere(stack: Stack) -> None:
    workflow = await stack.workflow("wait told-progress")
    await stack.start(workflow["id"])
    run = await stack.until(workflow["id"], "running")
    async with stack.listening() as socket:
        await socket.send(json.dumps({"type": "subscribe", "workflowId": workflow["id"]}))
        path = f"/workflows/{workflow['id']}/signals/progress"
        await stack.call("POST", path, {"message": "half way", "percent": 50})
        frame = await _frame(socket, "workflow.progress", source="agent")
    state = await handle_of(stack, run).query(names.STATE_QUERY, result_type=RunState)
    metadata = await handle_of(stack, run).query("__temporal_workflow_metadata")
    live = await stack.call("GET", f"/workflows/{workflow['id']}/status?source=temporal")
    stack.gates.open("told-progress")
    await stack.ended(workflow["id"])

    (told,) = [entry for entry in state.progress if entry.source == "agent"]
    assert (told.message, told.percent) == ("half way", 50)
    assert frame["data"]["signal"] == {
        "source": "agent",
        "number": told.number,
        "message": "half way",
        "percent": 50,
    }
    assert f"progress {told.number}" in metadata.current_details
    assert told.number in [entry["number"] for entry in live["live"]["progress"]]


async def test_a_step_that_lasts_tells_how_long_in_numbered_signals(stack: Stack) -> None:
    workflow = await stack.workflow("say x; wait lasting")
    async with stack.listening() as socket:
        await socket.send(json.dumps({"type": "subscribe", "workflowId": workflow["id"]}))
        await stack.start(workflow["id"])
        frames = [await _frame(socket, "workflow.progress", source="step") for _ in range(2)]
        stack.gates.open("lasting")
        await stack.ended(workflow["id"])

    signals = [frame["data"]["signal"] for frame in frames]
    assert [signal["number"] for signal in signals] == [1, 2]
    assert 900 < signals[0]["elapsedMs"] < signals[1]["elapsedMs"]
    assert signals[0]["outputBytes"] == 2
    assert [frame["seq"] for frame in frames] == sorted(frame["seq"] for frame in frames)


async def test_nothing_secret_reaches_temporal_the_logs_or_the_event_log(
    stack: Stack, temporal_server: TemporalServer, caplog
) -> None:
    run = await stack.run(
        f"say {CANARY}; complain {CANARY}; fail 0",
        {"type": "verify", "criteria": f"output contains '{CANARY}'"},
        {"type": "checkpoint", "name": CANARY},
        f"fail 9; say {CANARY}",
        start={"environment": {"MODE": CANARY}, "context": {"value": CANARY}},
    )
    history = await handle_of(stack, run).fetch_history()
    with stack.store.read() as session:
        rows = session.connection().exec_driver_sql("SELECT data FROM events").all()

    assert run["steps"][0]["result"]["stdout"].strip() == CANARY
    assert CANARY not in history.to_json()
    assert [row for row in rows if CANARY in str(row)] == []
    assert CANARY not in caplog.text
    for path in temporal_server.folder.glob("temporal.db*"):
        assert CANARY.encode() not in path.read_bytes()


async def test_a_run_that_is_terminated_in_temporal_is_settled(stack: Stack) -> None:
    workflow = await stack.workflow("wait for-ever", "say never")
    await stack.start(workflow["id"])
    run = await stack.until(workflow["id"], "running")

    await handle_of(stack, run).terminate("pressed in the UI")
    ended = await stack.ended(workflow["id"])

    assert ended["status"] == "cancelled"
    assert ended["error"]["code"] == "TERMINATED"
    assert [step["status"] for step in ended["steps"]] == ["cancelled", "skipped"]
    assert run["runId"].replace("run_", "sbx_") in stack.runtime.removed


async def test_a_run_that_is_cancelled_in_temporal_is_cancelled(stack: Stack) -> None:
    workflow = await stack.workflow("wait for-ever")
    await stack.start(workflow["id"])
    run = await stack.until(workflow["id"], "running")

    await handle_of(stack, run).cancel()
    ended = await stack.ended(workflow["id"])

    assert ended["status"] == "cancelled"
    assert ended["steps"][0]["status"] == "cancelled"


@pytest.mark.kills
async def test_runs_outlive_a_crash_of_temporal_and_starts_wait_for_it(
    tmp_path: Path, url: str
) -> None:
    server = TemporalServer(tmp_path)
    server.start()
    try:
        async with running_stack(tmp_path, server.address, "crashing", url=url) as stack:
            going = await stack.workflow("wait crash", "say after")
            waiting = await stack.workflow("say late")
            await stack.start(going["id"])
            await stack.until(going["id"], "running")

            server.kill()
            queued = await stack.start(waiting["id"])
            stack.gates.open("crash")
            server.start()
            runs = [await stack.ended(workflow["id"]) for workflow in (going, waiting)]
    finally:
        server.kill()

    assert queued["status"] == "queued"
    assert [run["status"] for run in runs] == ["completed", "completed"]
    ran = [command.argv[-1] for _, command in stack.runtime.ran]
    assert sorted(ran) == ["say after", "say late", "wait crash"]


async def _frame(socket, event: str, *, source: str) -> dict:
    async with asyncio.timeout(60):
        while True:
            frame = json.loads(await socket.recv())
            signal = frame["data"].get("signal", {})
            if frame.get("event") == event and signal.get("source") == source:
                return dict(frame)


async def test_terminated_runs_leave_no_sandbox_and_run_nothing_again(stack: Stack) -> None:
    made = [await stack.workflow("wait for-ever") for _ in range(6)]
    for workflow in made:
        await stack.start(workflow["id"])
    going = [await stack.until(workflow["id"], "running") for workflow in made]
    names_of = {run["runId"].replace("run_", "sbx_") for run in going}

    for run in going:
        await handle_of(stack, run).terminate("pressed in the UI")
    for workflow in made:
        await stack.ended(workflow["id"])

    def left() -> set[str]:
        return names_of & {sandbox.id for sandbox in stack.runtime.sandboxes()}

    for _ in range(100):
        if not left():
            break
        await asyncio.sleep(0.1)
    assert left() == set()
    assert len([id for id, _ in stack.runtime.ran if id in names_of]) == 6


async def test_reconcile_is_kept_alive_although_somebody_terminates_it(stack: Stack) -> None:
    handle = stack.temporal.get_workflow_handle(names.RECONCILE_ID)
    first = (await handle.describe()).run_id

    await handle.terminate("pressed in the UI")

    for _ in range(300):
        described = await handle.describe()
        if described.run_id != first and described.status is WorkflowExecutionStatus.RUNNING:
            break
        await asyncio.sleep(0.1)
    assert described.run_id != first
