"""Steps of a department wait for its slots, in order, and every slot comes back."""

from typing import Any

from support.stack import Data, Stack
from support.waiting import until_so


async def department(stack: Stack, limit: int, **fields: Any) -> Data:
    session_id = fields.pop("sessionId", None) or (await stack.session())["id"]
    body = {
        "sessionId": session_id,
        "name": "A department",
        "domain": "work",
        "config": {"maxConcurrentTasks": limit},
        **fields,
    }
    return dict(await stack.call("POST", "/departments", body))


async def begin(stack: Stack, pool: Data, *steps: Any, **fields: Any) -> str:
    """Start a run whose steps are the department's."""
    fields = {"departmentId": pool["id"], **fields}
    workflow = await stack.workflow(*steps, session_id=pool["sessionId"], **fields)
    await stack.start(workflow["id"])
    return str(workflow["id"])


async def until_step(stack: Stack, workflow_id: str, status: str, step: int = 0) -> Data:
    """Wait until a step has a status."""

    async def reached() -> Data | None:
        run = dict(await stack.call("GET", f"/workflows/{workflow_id}/status"))
        return run if run["steps"] and run["steps"][step]["status"] == status else None

    return dict(await until_so(reached, f"step {step} of {workflow_id} is {status}"))


async def metrics(stack: Stack, pool: Data) -> Data:
    return dict(await stack.call("GET", f"/departments/{pool['id']}/metrics"))


def ran(stack: Stack) -> list[str]:
    return [command.argv[-1] for _, command in stack.runtime.ran]


async def test_a_step_without_a_slot_is_queued_and_begins_when_one_is_free(stack: Stack) -> None:
    pool = await department(stack, 1)
    first = await begin(stack, pool, "wait slot-first")
    await until_step(stack, first, "running")

    second = await begin(stack, pool, "say second")
    queued = await until_step(stack, second, "queued")
    seen = await metrics(stack, pool)
    stack.gates.open("slot-first")
    runs = [await stack.ended(first), await stack.ended(second)]

    assert queued["status"] == "queued", "the run has not begun"
    assert (seen["activeTasks"], seen["queuedTasks"]) == (1, 1)
    assert [run["status"] for run in runs] == ["completed", "completed"]
    after = await metrics(stack, pool)
    assert (after["activeTasks"], after["queuedTasks"]) == (0, 0)


async def test_those_who_wait_are_served_in_the_order_in_which_they_came(stack: Stack) -> None:
    pool = await department(stack, 1)
    first = await begin(stack, pool, "wait order-first")
    await until_step(stack, first, "running")
    waiting = []
    for number in range(5):
        waiting.append(await begin(stack, pool, f"say order-{number}"))
        await until_step(stack, waiting[-1], "queued")

    stack.gates.open("order-first")
    for workflow_id in waiting:
        await stack.ended(workflow_id)

    served = [command for command in ran(stack) if command.startswith("say order-")]
    assert served == [f"say order-{number}" for number in range(5)]


async def test_the_more_urgent_goes_first(stack: Stack) -> None:
    pool = await department(stack, 1)
    first = await begin(stack, pool, "wait urgent-first")
    await until_step(stack, first, "running")
    usual = await begin(stack, pool, "say urgent-usual")
    await until_step(stack, usual, "queued")
    urgent = await begin(stack, pool, "say urgent-urgent", config={"priority": 1})
    await until_step(stack, urgent, "queued")

    stack.gates.open("urgent-first")
    for workflow_id in (usual, urgent):
        await stack.ended(workflow_id)

    served = [command for command in ran(stack) if command.startswith("say urgent-")]
    assert served == ["say urgent-urgent", "say urgent-usual"]


async def test_a_cancelled_run_gives_its_slot_to_the_next(stack: Stack) -> None:
    pool = await department(stack, 1)
    first = await begin(stack, pool, "wait for-ever")
    await until_step(stack, first, "running")
    second = await begin(stack, pool, "say next")
    await until_step(stack, second, "queued")

    await stack.call("POST", f"/workflows/{first}/cancel?wait=20")

    assert (await stack.ended(second))["status"] == "completed"


async def test_a_queued_run_can_be_cancelled_and_leaves_the_line(stack: Stack) -> None:
    pool = await department(stack, 1)
    first = await begin(stack, pool, "wait leave-line")
    await until_step(stack, first, "running")
    second = await begin(stack, pool, "say never-in-line")
    await until_step(stack, second, "queued")

    cancelled = await stack.call("POST", f"/workflows/{second}/cancel?wait=20")
    stack.gates.open("leave-line")
    await stack.ended(first)

    assert (cancelled["status"], cancelled["steps"][0]["status"]) == ("cancelled", "cancelled")
    assert "say never-in-line" not in ran(stack)
    assert (await metrics(stack, pool))["queuedTasks"] == 0


async def test_a_terminated_run_gives_its_slot_to_the_next(stack: Stack) -> None:
    pool = await department(stack, 1)
    first = await begin(stack, pool, "wait for-ever")
    run = await until_step(stack, first, "running")
    second = await begin(stack, pool, "say after-terminate")

    await stack.temporal.get_workflow_handle(run["runId"]).terminate("pressed in the UI")

    assert (await stack.ended(second))["status"] == "completed"
    assert (await stack.ended(first))["status"] == "cancelled"


async def test_a_paused_department_begins_nothing_until_it_is_active_again(stack: Stack) -> None:
    pool = await department(stack, 2)
    await stack.call("PUT", f"/departments/{pool['id']}", {"status": "paused"})
    workflow_id = await begin(stack, pool, "say paused-department")
    await until_step(stack, workflow_id, "queued")

    await stack.call("PUT", f"/departments/{pool['id']}", {"status": "active"})

    assert (await stack.ended(workflow_id))["status"] == "completed"


async def test_a_run_that_is_paused_in_the_line_lets_others_pass(stack: Stack) -> None:
    pool = await department(stack, 1)
    first = await begin(stack, pool, "wait pass-first")
    await until_step(stack, first, "running")
    held = await begin(stack, pool, "say pass-held")
    await until_step(stack, held, "queued")
    other = await begin(stack, pool, "say pass-other")
    await until_step(stack, other, "queued")

    paused = await stack.call("POST", f"/workflows/{held}/pause?wait=10")
    stack.gates.open("pass-first")
    await stack.ended(other)
    await stack.call("POST", f"/workflows/{held}/resume")
    run = await stack.ended(held)

    assert paused["status"] == "paused"
    assert run["status"] == "completed"
    served = [command for command in ran(stack) if command.startswith("say pass-")]
    assert served == ["say pass-other", "say pass-held"]


async def test_a_wish_is_fulfilled_by_the_department_that_frees_first(stack: Stack) -> None:
    session_id = (await stack.session())["id"]
    wish = {"capabilities": ["react"], "sessionId": session_id}
    one, two = await department(stack, 1, **wish), await department(stack, 1, **wish)
    busy = [await begin(stack, pool, f"wait wish-{pool['id']}") for pool in (one, two)]
    for workflow_id in busy:
        await until_step(stack, workflow_id, "running")
    workflow = await stack.workflow("say wish", session_id=session_id, requires=["react"])
    await stack.start(workflow["id"])
    await until_step(stack, workflow["id"], "queued")

    stack.gates.open(f"wish-{two['id']}")
    run = await stack.ended(workflow["id"])
    stack.gates.open(f"wish-{one['id']}")

    assert run["steps"][0]["departmentId"] == two["id"]
    for workflow_id in busy:
        await stack.ended(workflow_id)


async def test_an_approval_holds_no_slot(stack: Stack) -> None:
    pool = await department(stack, 1)
    first = await begin(stack, pool, {"type": "verify", "criteria": "approved"})
    await until_step(stack, first, "waiting")

    second = await begin(stack, pool, "say meanwhile")
    run = await stack.ended(second)
    await stack.call("POST", f"/workflows/{first}/signals/approve", {"approved": True})

    assert run["status"] == "completed"
    assert (await stack.ended(first))["status"] == "completed"


async def test_a_step_whose_department_is_gone_fails_and_says_so(stack: Stack) -> None:
    pool = await department(stack, 1)
    later = {"type": "execute", "command": "say never", "departmentId": pool["id"]}
    workflow = await stack.workflow("wait gone", later, session_id=pool["sessionId"])
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")

    await stack.call("DELETE", f"/departments/{pool['id']}")
    stack.gates.open("gone")
    run = await stack.ended(workflow["id"])

    assert (run["status"], run["error"]["code"]) == ("failed", "NO_DEPARTMENT")
