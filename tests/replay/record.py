"""Record a history of each shape of run, on purpose only: `make histories`.

A test replays them with the workflow code of today: a change that would break runs which are
going on somewhere fails there, and wants `workflow.patched`."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.server import TemporalServer
from support.stack import Data, Stack, running_stack
from temporalio.client import WorkflowExecutionStatus

FOLDER = Path(__file__).parent / "histories"
VERIFY = {"type": "verify", "criteria": "exit code is 0"}
RETRIED = {**VERIFY, "retry": {"maxAttempts": 2, "backoff": 10}}


async def record() -> None:
    """Run each shape and write its history."""
    with tempfile.TemporaryDirectory() as name:
        server = TemporalServer(Path(name))
        server.start()
        try:
            async with running_stack(Path(name), server.address, "record") as stack:
                for shape, run in (await _runs(stack)).items():
                    await _write(stack, shape, run)
        finally:
            server.kill()


async def _runs(stack: Stack) -> dict[str, Data]:
    return {
        "completed": await stack.run("say x", VERIFY, {"type": "checkpoint", "name": "c"}),
        "failed": await stack.run("fail 1", "say never"),
        "repeated": await stack.run("fail 1", RETRIED),
        "lasting": await stack.run("last 2.5"),
        "timed_out": await stack.run("wait ever", config={"timeout": 1100}),
        "paused": await _paused(stack),
        "cancelled": await _cancelled(stack),
    }


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
    asyncio.run(record())
