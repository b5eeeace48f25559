"""A step may wait for somebody's approval, and the run with it; that holds through restarts."""

from pathlib import Path
from typing import Any

import pytest
from support.server import TemporalServer
from support.stack import Stack, running_stack

APPROVED = {"type": "verify", "criteria": "approved"}


async def waiting(stack: Stack, *steps: Any, **fields: Any) -> str:
    """Start a run and wait until it waits."""
    workflow = await stack.workflow(*steps, **fields)
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "waiting")
    return str(workflow["id"])


async def decide(stack: Stack, workflow_id: str, **body: Any) -> None:
    await stack.call("POST", f"/workflows/{workflow_id}/signals/approve", body)


async def test_a_run_waits_until_it_is_approved_and_then_goes_on(stack: Stack) -> None:
    workflow_id = await waiting(stack, "say a", APPROVED, "say b")
    held = await stack.call("GET", f"/workflows/{workflow_id}/status")

    await decide(stack, workflow_id, approved=True, reason="looks good")
    run = await stack.ended(workflow_id)

    assert (held["currentStep"]["status"], held["step"]) == ("waiting", 1)
    assert run["status"] == "completed"
    assert run["result"]["success"]
    assert run["steps"][1]["result"]["message"] == "approved by admin: looks good"
    assert run["steps"][1]["attempt"] == 1


async def test_a_rejected_run_fails_with_who_said_why(stack: Stack) -> None:
    workflow_id = await waiting(stack, APPROVED, "say never")

    await decide(stack, workflow_id, approved=False, reason="too risky")
    run = await stack.ended(workflow_id)

    assert run["status"] == "failed"
    assert run["error"]["message"] == "rejected by admin: too risky"
    assert run["steps"][1]["status"] == "skipped"


async def test_a_step_that_nobody_decides_in_its_time_is_timed_out(stack: Stack) -> None:
    run = await stack.run({**APPROVED, "timeout": 700}, "say never")

    assert run["status"] == "failed"
    assert run["steps"][0]["status"] == "timed_out"
    assert run["error"]["message"] == "nobody decided within 0.7 s"


async def test_the_time_of_the_run_is_over_also_while_it_waits(stack: Stack) -> None:
    run = await stack.run(APPROVED, config={"timeout": 900})

    assert run["status"] == "timed_out"
    assert run["steps"][0]["status"] == "timed_out"


async def test_what_is_judged_before_the_approval_is_not_run_again_after_it(stack: Stack) -> None:
    command = {"type": "command", "command": "say judged"}
    both = {"type": "all", "criteria": [command, {"type": "approval"}]}
    workflow_id = await waiting(stack, {"type": "verify", "criteria": both})

    await decide(stack, workflow_id, approved=True)
    run = await stack.ended(workflow_id)

    assert run["status"] == "completed", run["error"]
    sandbox = run["runId"].replace("run_", "sbx_")
    ran = [command.argv[-1] for id, command in stack.runtime.ran if id == sandbox]
    assert ran == ["say judged"]


async def test_what_fails_before_the_approval_asks_nobody(stack: Stack) -> None:
    both = {"type": "all", "criteria": [{"type": "exitCode"}, {"type": "approval"}]}
    run = await stack.run("fail 3", {"type": "verify", "criteria": both})

    assert run["status"] == "failed"
    assert "exit code was 3" in run["error"]["message"]


async def test_a_waiting_run_can_be_cancelled(stack: Stack) -> None:
    workflow_id = await waiting(stack, APPROVED)

    run = await stack.call("POST", f"/workflows/{workflow_id}/cancel?wait=20")

    assert (run["status"], run["steps"][0]["status"]) == ("cancelled", "cancelled")
    assert run["error"]["step"] == "step-1"


async def test_a_wait_outlives_the_worker(stack: Stack) -> None:
    workflow_id = await waiting(stack, "say before", APPROVED, "say after")

    await stack.stop_worker()
    await decide(stack, workflow_id, approved=True)
    await stack.start_worker()
    run = await stack.ended(workflow_id)

    assert run["status"] == "completed"
    assert [step["attempt"] for step in run["steps"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body.approved"),
        ({"approved": "yes"}, "body.approved"),
        ({"approved": True, "because": "x"}, "body.because"),
    ],
)
async def test_a_decision_that_is_none_is_refused(stack: Stack, body: Any, field: str) -> None:
    workflow_id = await waiting(stack, APPROVED)

    path = f"/workflows/{workflow_id}/signals/approve"
    response = await stack.http.post(path, json=body)

    assert response.status_code == 400
    assert field.removeprefix("body.") in response.json()["error"]["details"]["field"]
    assert (await stack.call("GET", f"/workflows/{workflow_id}/status"))["status"] == "waiting"


async def test_an_approval_that_nobody_waits_for_is_a_conflict(stack: Stack) -> None:
    run = await stack.run("say x")

    path = f"/workflows/{run['workflowId']}/signals/approve"
    response = await stack.http.post(path, json={"approved": True})

    assert response.status_code == 409


async def test_waiting_is_told_and_a_decision_too(stack: Stack) -> None:
    workflow_id = await waiting(stack, APPROVED)
    await decide(stack, workflow_id, approved=True)
    run = await stack.ended(workflow_id)

    with stack.store.read() as session:
        rows = session.connection().exec_driver_sql(
            f"SELECT type FROM events WHERE subject = '{run['runId']}' ORDER BY seq"
        )
        told = [kind for (kind,) in rows]

    assert told == [
        "workflow.queued",
        "workflow.started",
        "step.started",
        "workflow.waiting",
        "workflow.signalled",
        "workflow.resumed",
        "step.ended",
        "workflow.completed",
    ]


async def test_an_approval_is_kept_while_temporal_is_away_and_any_other_signal_is_refused(
    tmp_path: Path, url: str
) -> None:
    server = TemporalServer(tmp_path)
    server.start()
    try:
        async with running_stack(tmp_path, server.address, "approving", url=url) as stack:
            workflow_id = await waiting(stack, APPROVED, "say after")
            server.kill()
            await decide(stack, workflow_id, approved=True)
            other = await stack.http.post(f"/workflows/{workflow_id}/signals/other", json={})
            server.start()
            run = await stack.ended(workflow_id)
    finally:
        server.kill()

    assert other.status_code == 503
    assert run["status"] == "completed"
