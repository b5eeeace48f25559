"""Reset, pressed in the Temporal UI: steps run again, and what ran before is ended first."""

import asyncio

import pytest
from support.stack import Stack
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import WorkflowFailureError


async def reset(stack: Stack, run_id: str, task: int = 0) -> str:
    """Reset a run to its workflow task of that position; gives the new execution's id."""
    handle = stack.temporal.get_workflow_handle(run_id)
    history = await handle.fetch_history()
    tasks = [
        event.event_id
        for event in history.events
        if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
    ]
    answer = await stack.temporal.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=stack.temporal.namespace,
            workflow_execution=WorkflowExecution(workflow_id=run_id),
            reason="pressed in the UI",
            workflow_task_finish_event_id=tasks[task],
            request_id=f"reset-{run_id}-{task}",
        )
    )
    return answer.run_id


def commands(stack: Stack, run_id: str) -> list[str]:
    """The commands that a run has started, in order."""
    sandbox = run_id.replace("run_", "sbx_")
    return [command.argv[-1] for id, command in stack.runtime.ran if id == sandbox]


async def test_a_run_that_is_reset_performs_its_steps_again(stack: Stack) -> None:
    workflow = await stack.workflow("say one", "wait never-opened")
    run_id = (await stack.start(workflow["id"]))["runId"]
    while len(commands(stack, run_id)) < 2:
        await asyncio.sleep(0.02)
    sandbox = run_id.replace("run_", "sbx_")
    (hanging,) = [
        execution for execution in stack.runtime.executions(sandbox) if execution.wait(0) is None
    ]

    again = await reset(stack, run_id)
    while len(commands(stack, run_id)) < 4:
        await asyncio.sleep(0.02)

    ended = hanging.wait(0)
    assert ended is not None, "what the old execution began was ended before"
    assert ended.cause == "killed"
    status = await stack.call("GET", f"/workflows/{workflow['id']}/status")
    assert status["temporal"]["runId"] == again
    assert status["step"] == 1
    assert commands(stack, run_id) == ["say one", "wait never-opened"] * 2
    run = await stack.call("POST", f"/workflows/{workflow['id']}/cancel?wait=20")
    assert run["status"] == "cancelled"
    assert sandbox in stack.runtime.removed


async def test_after_a_reset_the_run_ends_as_its_new_execution_ends(stack: Stack) -> None:
    workflow = await stack.workflow("say one", "wait reset-and-open", "say three")
    run_id = (await stack.start(workflow["id"]))["runId"]
    while len(commands(stack, run_id)) < 2:
        await asyncio.sleep(0.02)

    await reset(stack, run_id)
    stack.gates.open("reset-and-open")
    run = await stack.ended(workflow["id"])

    assert run["status"] == "completed"
    assert [step["status"] for step in run["steps"]] == ["completed"] * 3
    assert commands(stack, run_id)[-3:] == ["say one", "wait reset-and-open", "say three"]


async def test_a_run_that_has_ended_keeps_its_end_when_it_is_reset(stack: Stack) -> None:
    run = await stack.run("say one", "say two")
    ran = len(commands(stack, run["runId"]))

    await reset(stack, run["runId"], task=1)
    with pytest.raises(WorkflowFailureError) as failed:
        await stack.temporal.get_workflow_handle(run["runId"]).result()

    assert "RUN_ENDED" in str(getattr(failed.value.cause, "type", ""))
    status = await stack.call("GET", f"/workflows/{run['workflowId']}/status")
    assert status["status"] == "completed"
    assert len(commands(stack, run["runId"])) == ran
