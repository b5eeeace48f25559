"""A host is lost when its lease is over and another can take its run; never by time alone."""

import asyncio
from collections.abc import Callable

from support.stack import Data, Stack
from support.waiting import until_so
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowHistory
from workflows.test_hosts import Machine, bare, going, machine, row_of

from director.store.tables import StepRow

__all__ = ["bare", "machine"]

SAVED = {"type": "checkpoint", "name": "saved"}


def ran(host: Machine, run: Data) -> list[str]:
    """What the run has run on a host, in order."""
    sandbox = run["runId"].replace("run_", "sbx_")
    return [command.argv[-1] for id, command in host.runtime.ran if id == sandbox]


async def test_a_run_whose_host_is_lost_goes_on_from_its_first_step_on_another(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    workflow = await bare.workflow("say first; write a.txt hi", "wait lost-second")
    run = await bare.start(workflow["id"])
    await until_so(lambda: ran(one, run)[1:] == ["wait lost-second"], "the second step runs")

    await two.start()
    await one.stop()
    await until_so(lambda: ran(two, run)[1:] == ["wait lost-second"], "it is repeated")
    bare.gates.open("lost-second")
    ended = await bare.ended(workflow["id"])

    assert ended["status"] == "completed", ended["error"]
    assert ended["sandboxLosses"] == 1
    assert [step["attempt"] for step in ended["steps"]] == [2, 2]
    assert ran(two, run) == ["say first; write a.txt hi", "wait lost-second"]
    assert one.holds(run) == [0], "nobody has removed it there yet"
    await one.start()
    await until_so(lambda: one.holds(run) == [], "the host that comes back removes what it lost")


async def test_after_a_loss_a_run_goes_on_behind_its_last_checkpoint_with_its_files(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    found = {"type": "verify", "criteria": {"type": "file", "path": "a.txt", "contains": "kept"}}
    workflow = await bare.workflow("write a.txt kept", SAVED, "wait lost-third", found)
    run = await bare.start(workflow["id"])
    await until_so(lambda: ran(one, run)[1:] == ["wait lost-third"], "the third step runs")

    await two.start()
    await one.stop()
    await until_so(lambda: ran(two, run) == ["wait lost-third"], "only that one is repeated")
    bare.gates.open("lost-third")
    ended = await bare.ended(workflow["id"])

    assert ended["status"] == "completed", ended["error"]
    assert [step["attempt"] for step in ended["steps"]] == [1, 1, 2, 1]


async def test_a_run_that_is_to_fail_with_its_sandbox_fails_and_is_settled(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    workflow = await bare.workflow("wait lost-fail", config={"onSandboxLost": "fail"})
    run = await bare.start(workflow["id"])
    await until_so(lambda: row_of(bare, run).workspace_ready, "the sandbox is there")

    await two.start()
    await one.stop()
    ended = await bare.ended(workflow["id"])

    assert (ended["status"], ended["error"]["code"]) == ("failed", "SANDBOX_LOST")
    assert "host" in ended["error"]["message"]
    assert ran(two, run) == []


async def test_a_run_is_settled_although_its_host_never_comes_back(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    run = await going(bare, "never-settled")

    await one.stop()
    await two.start()
    path = f"/workflows/{run['workflowId']}/cancel?wait=60"
    ended = await bare.call("POST", path)

    assert ended["status"] == "cancelled"


def _timed_out(history: WorkflowHistory) -> bool:
    kind = EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT
    return any(event.event_type == kind for event in history.events)


async def test_time_alone_loses_no_host(bare: Stack, machine: Callable[..., Machine]) -> None:
    one = machine("one")
    await one.start()
    workflow = await bare.workflow("say first", "wait patience")
    run = await bare.start(workflow["id"])
    await until_so(lambda: ran(one, run)[1:] == ["wait patience"], "the second step runs")

    await one.stop()
    handle = bare.temporal.get_workflow_handle(run["runId"])
    async with asyncio.timeout(60):
        while not _timed_out(await handle.fetch_history()):
            await asyncio.sleep(0.2)
    await one.start()
    bare.gates.open("patience")
    ended = await bare.ended(workflow["id"])

    assert (ended["status"], ended["sandboxLosses"]) == ("completed", 0)
    assert ran(one, run) == ["say first", "wait patience"]


async def test_a_step_that_is_repeated_is_not_passed_over_because_a_checkpoint_follows_it(
    bare: Stack, machine: Callable[..., Machine]
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    judged = {
        "type": "verify",
        "criteria": {"type": "file", "path": "never.txt"},
        "retry": {"maxAttempts": 2, "backoff": 2000},
    }
    workflow = await bare.workflow("wait lost-again", SAVED, judged)
    bare.gates.open("lost-again")
    run = await bare.start(workflow["id"])

    def first() -> StepRow:
        with bare.store.read() as session:
            return session.get_one(StepRow, (run["runId"], 0))

    await until_so(lambda: first().status == "completed", "it has run once")
    bare.gates.close("lost-again")
    await until_so(lambda: (first().attempt, first().status) == (2, "running"), "it runs again")

    await two.start()
    await one.stop()
    await until_so(lambda: ran(two, run) == ["wait lost-again"], "it is repeated elsewhere")
    bare.gates.open("lost-again")
    ended = await bare.ended(workflow["id"])

    assert [step["status"] for step in ended["steps"]] == ["completed", "completed", "failed"]
    assert [step["attempt"] for step in ended["steps"]] == [3, 2, 2]
