"""Departments through HTTP."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlmodel import Session
from support.stack import Data, Stack

from director.domain.names import GRANTED
from director.store import tickets
from director.store.tables import RunRow, StepRow

Refusal = Callable[[httpx.Response, int, str], Data]


async def department(stack: Stack, session_id: str | None = None, **fields: Any) -> Data:
    """Make a department."""
    session_id = session_id or (await stack.session())["id"]
    body = {"sessionId": session_id, "name": "A department", "domain": "code", **fields}
    return dict(await stack.call("POST", "/departments", body))


async def took(stack: Stack, run: Data) -> str:
    """Take a slot for the first step of a run, or find the one that it has."""

    def take(session: Session) -> str:
        row = session.get_one(RunRow, run["runId"])
        return tickets.take(session, row, session.get_one(StepRow, (row.id, 0))).state

    return await stack.store.run(take)


async def signalled(stack: Stack, run: Data) -> bool:
    """Whether the signal of a granted slot has reached a run."""
    history = await stack.temporal.get_workflow_handle(run["runId"]).fetch_history()
    events = [event.workflow_execution_signaled_event_attributes for event in history.events]
    return any(event.signal_name == GRANTED for event in events)


async def test_a_change_keeps_what_is_absent_and_merges_the_config_in_depth(stack: Stack) -> None:
    limits = {"memory": 512, "cpu": 1.0}
    made = await department(
        stack,
        config={"maxConcurrentTasks": 5, "resourceLimits": limits},
        capabilities=["react", "vue"],
    )

    path = f"/departments/{made['id']}"
    changed = await stack.call("PUT", path, {"config": {"resourceLimits": {"memory": 256}}})

    assert changed["config"] == {
        "maxConcurrentTasks": 5,
        "resourceLimits": {"memory": 256, "cpu": 1.0},
    }
    assert changed["capabilities"] == ["react", "vue"]
    assert (changed["name"], changed["domain"]) == ("A department", "code")


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_null_clears_what_can_be_empty(stack: Stack, method: str) -> None:
    made = await department(
        stack, config={"resourceLimits": {"memory": 512, "cpu": 1}}, capabilities=["x"]
    )
    path = f"/departments/{made['id']}"

    changed = await stack.call(
        method, path, {"capabilities": None, "config": {"resourceLimits": {"cpu": None}}}
    )

    assert changed["capabilities"] == []
    assert changed["config"] == {"resourceLimits": {"memory": 512}}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": None}, "name"),
        ({"domain": None}, "domain"),
        ({"status": None}, "status"),
        ({"status": "closed"}, "status"),
        ({"sessionId": "ses_1"}, "sessionId"),
        ({"capabilities": "react"}, "capabilities"),
        ({"capabilities": [1]}, "capabilities.0"),
        ({"capabilities": [""]}, "capabilities.0"),
        ({"capabilities": ["x"] * 101}, "capabilities"),
        ({"config": {"maxConcurrentTasks": 0}}, "config.maxConcurrentTasks"),
        ({"config": {"maxConcurrentTasks": "5"}}, "config.maxConcurrentTasks"),
        ({"config": {"maxConcurentTasks": 5}}, "config.maxConcurentTasks"),
        ({"config": {"resourceLimits": {"cpu": True}}}, "config.resourceLimits.cpu"),
        ({"config": {"resourceLimits": {"cpu": "1"}}}, "config.resourceLimits.cpu"),
        ({"config": {"resourceLimits": {"cpu": 0}}}, "config.resourceLimits.cpu"),
        ({"config": {"resourceLimits": {"memory": 512.5}}}, "config.resourceLimits.memory"),
        ({"config": {"resourceLimits": {"memory": -1}}}, "config.resourceLimits.memory"),
        ({"config": {"resourceLimits": {"ram": 1}}}, "config.resourceLimits.ram"),
    ],
)
async def test_a_wrong_change_is_a_400_that_names_the_field(
    stack: Stack, refused: Refusal, body: Data, field: str
) -> None:
    made = await department(stack)
    response = await stack.http.put(f"/departments/{made['id']}", json=body)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == field


async def test_a_department_over_the_sessions_limit_is_a_409_that_tells_it(
    stack: Stack, refused: Refusal
) -> None:
    session = await stack.session(config={"maxDepartments": 2})
    body = {"sessionId": session["id"], "name": "a", "domain": "d"}
    answers = await asyncio.gather(*(stack.http.post("/departments", json=body) for _ in range(5)))

    assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409, 409]
    full = next(answer for answer in answers if answer.status_code == 409)
    details = refused(full, 409, "CONFLICT")
    assert (details["maxDepartments"], details["departments"]) == (2, 2)

    gone = next(answer for answer in answers if answer.status_code == 201).json()["data"]["id"]
    await stack.call("DELETE", f"/departments/{gone}")
    await department(stack, session["id"])


async def test_lists_are_filtered_by_session_and_domain_together(stack: Stack) -> None:
    one, other = (await stack.session())["id"], (await stack.session())["id"]
    wanted = (await department(stack, one, domain="frontend"))["id"]
    await department(stack, one, domain="backend")
    await department(stack, other, domain="frontend")

    async def ids(query: str) -> list[str]:
        return [row["id"] for row in await stack.call("GET", f"/departments?{query}")]

    assert await ids(f"sessionId={one}&domain=frontend") == [wanted]
    assert len(await ids(f"sessionId={one}")) == 2
    assert await ids(f"sessionId={one}&domain=devops") == []
    assert await ids("sessionId=ses_123456789&domain=frontend") == []


async def test_the_metrics_tell_what_became_of_its_steps(stack: Stack) -> None:
    made = await department(stack, config={"maxConcurrentTasks": 4})
    path = f"/departments/{made['id']}/metrics"
    assert await stack.call("GET", path) == {
        "activeTasks": 0,
        "queuedTasks": 0,
        "completedTasks": 0,
        "failedTasks": 0,
        "avgDurationMs": None,
        "p95DurationMs": None,
        "utilization": 0,
        "lastActivityAt": None,
    }

    run = await stack.run(
        "say one",
        {"type": "execute", "command": "say two", "timeout": 60_000},
        "fail 3",
        "say never",
        session_id=made["sessionId"],
        departmentId=made["id"],
    )
    assert run["status"] == "failed"
    busy = await stack.workflow(
        "wait metrics", session_id=made["sessionId"], departmentId=made["id"]
    )
    going = await stack.start(busy["id"])
    await stack.until(busy["id"], "running")
    await took(stack, going)

    metrics = await stack.call("GET", path)
    refusal = await stack.http.delete(f"/departments/{made['id']}")
    stack.gates.open("metrics")
    await stack.ended(busy["id"])

    assert (metrics["activeTasks"], metrics["utilization"]) == (1, 0.25)
    assert (metrics["completedTasks"], metrics["failedTasks"]) == (2, 1)
    assert 0 <= metrics["avgDurationMs"] <= metrics["p95DurationMs"]
    assert run["startedAt"] <= metrics["lastActivityAt"] <= run["completedAt"]
    assert refusal.status_code == 409, "a department with a step at work is kept"
    assert refusal.json()["error"]["details"]["activeTasks"] == 1


async def test_a_delete_says_so_once(stack: Stack, refused: Refusal) -> None:
    made = await department(stack)
    path = f"/departments/{made['id']}"
    assert await stack.call("DELETE", path) == {"id": made["id"], "deleted": True}
    for method, suffix in (("DELETE", ""), ("GET", ""), ("GET", "/metrics")):
        refused(await stack.http.request(method, path + suffix), 404, "NOT_FOUND")
    assert await stack.call("GET", f"/departments?sessionId={made['sessionId']}") == []


async def test_a_write_on_an_old_version_is_a_412(stack: Stack, refused: Refusal) -> None:
    made = await department(stack)
    path = f"/departments/{made['id']}"
    old = (await stack.http.get(path)).headers["etag"]
    await stack.call("PUT", path, {"name": "changed"})
    for method, body in (("PUT", {"name": "late"}), ("DELETE", None)):
        late = await stack.http.request(method, path, json=body, headers={"If-Match": old})
        refused(late, 412, "PRECONDITION_FAILED")
    assert (await stack.call("GET", path))["name"] == "changed"


async def test_a_department_in_somebody_elses_session_is_a_404(
    stack: Stack, operator: httpx.AsyncClient, refused: Refusal
) -> None:
    session = await stack.session()
    body = {"sessionId": session["id"], "name": "a", "domain": "d"}
    refused(await operator.post("/departments", json=body), 404, "NOT_FOUND")
    assert (await stack.call("GET", f"/departments?sessionId={session['id']}")) == []


async def test_what_the_admin_adds_to_a_session_is_its_owners(
    stack: Stack, operator: httpx.AsyncClient
) -> None:
    body = {"type": "director", "name": "olga's"}
    session = (await operator.post("/sessions", json=body)).json()["data"]
    made = await department(stack, session["id"])
    seen = (await operator.get(f"/departments/{made['id']}")).json()["data"]
    assert seen["ownerId"] == session["ownerId"]


async def test_a_raised_limit_wakes_the_runs_that_wait(stack: Stack) -> None:
    made = await department(stack, config={"maxConcurrentTasks": 1})
    path = f"/departments/{made['id']}"
    started = []
    for gate in ("pool-1", "pool-2", "pool-3"):
        workflow = await stack.workflow(
            f"wait {gate}", session_id=made["sessionId"], departmentId=made["id"]
        )
        started.append(await stack.start(workflow["id"]))
        await took(stack, started[-1])
    metrics = await stack.call("GET", f"{path}/metrics")
    assert (metrics["activeTasks"], metrics["queuedTasks"], metrics["utilization"]) == (1, 2, 1)

    await stack.call("PATCH", path, {"status": "paused", "config": {"maxConcurrentTasks": 2}})
    assert not await signalled(stack, started[1]), "a paused department grants nothing"
    changed = await stack.call("PATCH", path, {"status": "active"})
    assert changed["status"] == "active"

    assert [await took(stack, run) for run in started] == ["held", "held", "waiting"]
    assert [await signalled(stack, run) for run in started[1:]] == [True, False]
    refusal = await stack.http.delete(path)
    assert refusal.status_code == 409
    details = refusal.json()["error"]["details"]
    assert (details["activeTasks"], details["queuedTasks"]) == (2, 1)

    for gate in ("pool-1", "pool-2", "pool-3"):
        stack.gates.open(gate)
    await stack.call("PATCH", path, {"config": {"maxConcurrentTasks": None}})
    for run in started:
        await stack.ended(run["workflowId"])


@pytest.mark.parametrize("on_step", [False, True])
async def test_a_draining_department_takes_no_new_run(
    stack: Stack, refused: Refusal, on_step: bool
) -> None:
    made = await department(stack)
    place = {"departmentId": made["id"]}
    step = {"type": "execute", "command": "say hi", **(place if on_step else {})}
    workflow = await stack.workflow(
        step, session_id=made["sessionId"], **({} if on_step else place)
    )
    await stack.call("PUT", f"/departments/{made['id']}", {"status": "draining"})

    response = await stack.http.post(f"/workflows/{workflow['id']}/start")
    details = refused(response, 409, "CONFLICT")
    assert (details["departmentId"], details["departmentStatus"]) == (made["id"], "draining")

    await stack.call("PUT", f"/departments/{made['id']}", {"status": "active"})
    await stack.start(workflow["id"])
    run = await stack.ended(workflow["id"])
    assert (run["status"], run["steps"][0]["departmentId"]) == ("completed", made["id"])


async def test_a_start_that_no_department_matches_says_what_there_is(
    stack: Stack, refused: Refusal
) -> None:
    made = await department(stack, capabilities=["vue"])
    session_id = made["sessionId"]
    workflow = await stack.workflow(
        {"type": "execute", "command": "wait matched", "requires": ["vue", "react"]},
        session_id=session_id,
        domain="code",
    )

    response = await stack.http.post(f"/workflows/{workflow['id']}/start")
    details = refused(response, 409, "CONFLICT")
    assert (details["domain"], details["requires"]) == ("code", ["vue", "react"])
    assert [each["id"] for each in details["departments"]] == [made["id"]]
    assert "domain 'code' and capabilities vue, react" in details["message"]

    other = await department(stack, session_id, capabilities=["react", "vue"])
    await stack.call("PUT", f"/departments/{other['id']}", {"status": "draining"})
    response = await stack.http.post(f"/workflows/{workflow['id']}/start")
    assert "(draining, " in refused(response, 409, "CONFLICT")["message"]

    await stack.call("PUT", f"/departments/{other['id']}", {"status": "active"})
    run = await stack.start(workflow["id"])
    await took(stack, run)
    shown = await stack.call("GET", f"/workflows/{workflow['id']}/status")
    stack.gates.open("matched")
    await stack.ended(workflow["id"])
    assert shown["steps"][0]["departmentId"] == other["id"]
