"""Runs on a real Temporal server, with scripted sandboxes."""

from support.stack import Stack


async def test_a_run_performs_its_steps_in_order_and_completes(stack: Stack) -> None:
    run = await stack.run("say one", "say two", {"type": "verify", "criteria": "exit code is 0"})

    assert run["status"] == "completed"
    assert [step["status"] for step in run["steps"]] == ["completed"] * 3
    assert [step["result"].get("stdout") for step in run["steps"][:2]] == ["one\n", "two\n"]
    assert (run["step"], run["totalSteps"], run["progress"]) == (3, 3, 100)
    assert run["result"]["success"] is True
