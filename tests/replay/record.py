"""Record a history of each shape of run, on purpose only: `make histories SHAPES="queued lost"`.

A test replays them with the workflow code of today: a change that would break runs which are
going on somewhere fails there, and wants `workflow.patched`."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.server import TemporalServer
from support.stack import Data, Stack, running_stack
from support.waiting import until_so
from temporalio.client import WorkflowExecutionStatus
from workflows.test_hosts import Machine
from workflows.test_settling import scheduled

from director.activities.sandboxes import sandbox_id
from director.domain import names

FOLDER = Path(__file__).parent / "histories"
VERIFY = {"type": "verify", "criteria": "exit code is 0"}
RETRIED = {**VERIFY, "retry": {"maxAttempts": 2, "backoff": 10}}


async def record(shapes: list[str]) -> None:
    """Run each shape, or those that are named, and write its history."""
    with tempfile.TemporaryDirectory() as name:
        server = TemporalServer(Path(name))
        server.start()
        try:
            async with running_stack(Path(name), server.address, "record") as stack:
                for shape in shapes or list(SHAPES):
                    await _write(stack, shape, await SHAPES[shape](stack))
        finally:
            server.kill()


async def _paused(stack: Stack) -> Data:
    workflow = await stack.workflow("wait pause", "say after")
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    await stack.call("POST", f"/workflows/{workflow['id']}/pause")
    await stack.call("POST", f"/workflows/{workflow['id']}/signals/anything", {})
    stack.gates.open("pause")
    await stack.until(workflow["id"], "paused")
    await stack.call("POST", f"/workflows/{workflow['id']}/resume")
    return await stack.ended(workflow["id"])


async def _cancelled(stack: Stack) -> Data:
    workflow = await stack.workflow("wait ever", "say never")
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    return dict(await stack.call("POST", f"/workflows/{workflow['id']}/cancel?wait=30"))


async def _queued(stack: Stack) -> Data:
    """In line, paused there, and granted a slot after it has gone on."""
    pool = await stack.call(
        "POST",
        "/departments",
        {
            "sessionId": (await stack.session())["id"],
            "name": "d",
            "domain": "d",
            "config": {"maxConcurrentTasks": 1},
        },
    )
    fields = {"session_id": pool["sessionId"], "departmentId": pool["id"]}
    first = await stack.workflow("wait line", **fields)
    second = await stack.workflow("say a", "say b", **fields)
    await stack.start(first["id"])
    await stack.until(first["id"], "running")
    await stack.start(second["id"])
    while (await stack.call("GET", f"/departments/{pool['id']}/metrics"))["queuedTasks"] == 0:
        await asyncio.sleep(0.02)
    await stack.call("POST", f"/workflows/{second['id']}/pause?wait=10")
    await stack.call("POST", f"/workflows/{second['id']}/resume?wait=10")
    stack.gates.open("line")
    return await stack.ended(second["id"])


async def _approved(stack: Stack) -> Data:
    workflow = await stack.workflow("say a", {"type": "verify", "criteria": "approved"}, "say b")
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "waiting")
    path = f"/workflows/{workflow['id']}/signals/approve"
    await stack.call("POST", path, {"approved": True})
    return await stack.ended(workflow["id"])


async def _undecided(stack: Stack) -> Data:
    return await stack.run({"type": "verify", "criteria": "approved", "timeout": 300})


async def _lost(stack: Stack) -> Data:
    """The host of the sandbox is lost, and the steps behind the checkpoint are repeated."""
    await stack.stop_worker()
    one, two = Machine(stack, "one"), Machine(stack, "two")
    await one.start()
    workflow = await stack.workflow("say a", {"type": "checkpoint"}, "say b", "wait lost")
    await stack.start(workflow["id"])
    await until_so(lambda: len(one.runtime.ran) == 3, "the last step runs")
    await two.start()
    await one.stop()
    stack.gates.open("lost")
    run = await stack.ended(workflow["id"])
    await two.stop()
    await stack.start_worker()
    return run


async def _sandbox(stack: Stack, lifetime_ms: int = 60_000) -> Data:
    limits = {"memory": 64, "maxDuration": lifetime_ms}
    body = {"command": "wait ever", "resourceLimits": limits}
    return dict(await stack.call("POST", "/sandboxes", body))


async def _deleted(stack: Stack) -> Data:
    sandbox = await _sandbox(stack)
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")
    return {"runId": sandbox["id"]}


async def _expired(stack: Stack) -> Data:
    return {"runId": (await _sandbox(stack, 300))["id"]}


async def _ended(stack: Stack) -> Data:
    """The sandbox's workflow is cancelled in the Temporal UI."""
    sandbox = await _sandbox(stack)
    await asyncio.sleep(0.5)
    await stack.temporal.get_workflow_handle(sandbox["id"]).cancel()
    return {"runId": sandbox["id"]}


async def _settled_late(stack: Stack) -> Data:
    """Its worker fails to settle it at once, and an activity does it."""
    workflow = await stack.workflow("wait late")
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    stack.runtime.stuck.add(sandbox_id(run["runId"]))
    stack.gates.open("late")
    while names.SETTLE not in await scheduled(stack, run):
        await asyncio.sleep(0.05)
    stack.runtime.stuck.clear()
    return await stack.ended(workflow["id"])


SHAPES: dict[str, Callable[[Stack], Awaitable[Data]]] = {
    "completed": lambda stack: stack.run("say x", VERIFY, {"type": "checkpoint", "name": "c"}),
    "failed": lambda stack: stack.run("fail 1", "say never"),
    "repeated": lambda stack: stack.run("fail 1", RETRIED),
    "lasting": lambda stack: stack.run("last 2.5"),
    "timed_out": lambda stack: stack.run("wait ever", config={"timeout": 1100}),
    "paused": _paused,
    "cancelled": _cancelled,
    "queued": _queued,
    "approved": _approved,
    "undecided": _undecided,
    "lost": _lost,
    "sandbox_deleted": _deleted,
    "sandbox_expired": _expired,
    "sandbox_ended": _ended,
    "settled": lambda stack: stack.run("say x", VERIFY),
    "settled_late": _settled_late,
}


async def _write(stack: Stack, shape: str, run: Data) -> None:
    handle = stack.temporal.get_workflow_handle(run["runId"])
    while (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:
        await asyncio.sleep(0.05)
    history = json.loads((await handle.fetch_history()).to_json())
    FOLDER.mkdir(exist_ok=True)
    pretty = json.dumps(_impersonal(history), indent=1, sort_keys=True)
    (FOLDER / f"{shape}.json").write_text(pretty + "\n")


def _impersonal(value: Any) -> Any:
    """The history without what only names the machine on which it was recorded."""
    if isinstance(value, list):
        return [_impersonal(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {key: _impersonal(item) for key, item in value.items() if key != "stackTrace"}
    return kept | ({"identity": "worker"} if "identity" in kept else {})


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1:]))
