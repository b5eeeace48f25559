"""Workflows through HTTP: what is taken, what is refused and how it is told, and versions."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlmodel import col, select
from support.stack import Data, Stack

from director.store.tables import DefinitionRow

Refusal = Callable[[httpx.Response, int, str], Data]

E = {"type": "execute", "command": "say hi"}


def verify(criteria: Any) -> list[Data]:
    """An execute step and a verify of it."""
    return [E, {"type": "verify", "criteria": criteria}]


@pytest.fixture(scope="module")
async def session_id(stack: Stack) -> str:
    """A session for all the workflows that are refused."""
    return str((await stack.session())["id"])


BAD_STEPS = [
    ([], "steps", "at least 1"),
    ([E] * 501, "steps", "at most 500"),
    ("say hi", "steps", "a list"),
    (None, "steps", "a list"),
    (["say hi"], "steps.0", "JSON object"),
    ([None], "steps.0", "JSON object"),
    ([{"command": "x"}], "steps.0.type", "is required"),
    ([E, {"type": "exec", "command": "x"}], "steps.1.type", "'execute', 'verify', 'checkpoint'"),
    ([{"type": 5}], "steps.0.type", "'execute', 'verify', 'checkpoint'"),
    ([{"type": "execute"}], "steps.0.command", "is required"),
    ([{"type": "execute", "command": ""}], "steps.0.command", "at least 1"),
    ([{"type": "execute", "command": []}], "steps.0.command", "at least 1"),
    ([{"type": "execute", "command": {}}], "steps.0.command", "a string or a list"),
    ([{"type": "execute", "command": 5}], "steps.0.command", "a string or a list"),
    ([{"type": "execute", "command": ["a", 7]}], "steps.0.command.1", "a string"),
    ([{"type": "execute", "command": "a\0b"}], "steps.0.command", "NUL"),
    ([{"type": "execute", "command": ["a", "\0"]}], "steps.0.command.1", "NUL"),
    ([{**E, "timeOut": 5}], "steps.0.timeOut", "is no known field"),
    ([{**E, "criteria": "tests pass"}], "steps.0.criteria", "is no known field"),
    ([{**E, "timeout": "5"}], "steps.0.timeout", "an integer"),
    ([{**E, "timeout": 5.0}], "steps.0.timeout", "an integer"),
    ([{**E, "timeout": True}], "steps.0.timeout", "an integer"),
    ([{**E, "timeout": None}], "steps.0.timeout", "an integer"),
    ([{**E, "timeout": 0}], "steps.0.timeout", "at least 1"),
    ([{**E, "timeout": -1}], "steps.0.timeout", "at least 1"),
    ([{**E, "timeout": 10**20}], "steps.0.timeout", "at most 2592000000"),
    ([{**E, "id": "a"}, E, {**E, "id": "a"}], "steps.2.id", "a is there twice"),
    ([E, {**E, "id": "step-1"}], "steps.1.id", "step-1 is there twice"),
    ([{**E, "id": "a b"}], "steps.0.id", "must match"),
    ([{**E, "id": ""}], "steps.0.id", "must match"),
    ([{**E, "retry": 3}], "steps.0.retry", "JSON object"),
    ([{**E, "retry": {"maxAttempts": "3"}}], "steps.0.retry.maxAttempts", "an integer"),
    ([{**E, "retry": {"maxAttempts": 0}}], "steps.0.retry.maxAttempts", "at least 1"),
    ([{**E, "retry": {"attempts": 2}}], "steps.0.retry.attempts", "is no known field"),
    ([{**E, "onFailure": "rollback"}], "steps.0.onFailure", "'fail', 'continue' or 'retry'"),
    ([{**E, "onFailure": None}], "steps.0.onFailure", "'fail'"),
    ([{"type": "verify", "criteria": "tests pass"}], "steps.0", "no execute step before"),
    ([{"type": "verify", "criteria": {"type": "exitCode"}}, E], "steps.0", "no execute step"),
    (verify(5), "steps.1.criteria", "a string or a JSON object"),
    (verify(""), "steps.1.criteria", "at least 1"),
    (verify("tests pas"), "steps.1.criteria", "known phrases: `tests pass`"),
    (verify("exit code is x"), "steps.1.criteria", "not complete"),
    (verify("tests pass or no errors"), "steps.1.criteria", "only `and`"),
    (verify("output matches /(/"), "steps.1.criteria", "no RE2 pattern"),
    (verify("output matches /(?=a)/"), "steps.1.criteria", "no RE2 pattern"),
    (verify("file exists ../x"), "steps.1.criteria", ".."),
    (verify({"type": "regex", "pattern": "("}), "steps.1.criteria", "no RE2 pattern"),
    (verify({"type": "jsn"}), "steps.1.criteria.type", "'exitCode', 'output'"),
    (verify({"equals": 0}), "steps.1.criteria.type", "is required"),
    (verify({"type": "exitCode", "equals": "0"}), "steps.1.criteria.equals", "an integer"),
    (verify({"type": "exitCode", "equals": False}), "steps.1.criteria.equals", "an integer"),
    (verify({"type": "exitCode", "equal": 0}), "steps.1.criteria.equal", "no known field"),
    (
        verify({"type": "all", "criteria": [{"type": "not", "criterion": {"type": "file"}}]}),
        "steps.1.criteria.criteria.0.criterion.path",
        "is required",
    ),
    ([E, {"type": "verify"}], "steps.1.criteria", "is required"),
    ([{"type": "checkpoint", "name": ""}], "steps.0.name", "at least 1"),
    ([{"type": "checkpoint", "nam": "x"}], "steps.0.nam", "is no known field"),
]


@pytest.mark.parametrize(("steps", "field", "told"), BAD_STEPS)
async def test_a_wrong_step_is_a_400_that_says_where_and_why(
    stack: Stack, session_id: str, refused: Refusal, steps: Any, field: str, told: str
) -> None:
    body = {"sessionId": session_id, "name": "w", "steps": steps}
    details = refused(await stack.http.post("/workflows", json=body), 400, "VALIDATION_ERROR")
    assert (details["field"], told in details["issue"]) == (field, True), details
    assert len(details["errors"]) == 1, "one mistake is told once"
    assert details["message"] == f"Invalid input data: {field}: {details['issue']}"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"config": {"maxRetries": True}}, "config.maxRetries"),
        ({"config": {"maxRetries": "3"}}, "config.maxRetries"),
        ({"config": {"maxRetries": 100}}, "config.maxRetries"),
        ({"config": {"timeout": 0}}, "config.timeout"),
        ({"config": {"retries": 1}}, "config.retries"),
        ({"config": {"sandbox": {"image": "a b"}}}, "config.sandbox.image"),
        ({"config": {"sandbox": {"image": "--privileged"}}}, "config.sandbox.image"),
        ({"config": {"sandbox": {"privileged": True}}}, "config.sandbox.privileged"),
        ({"config": {"sandbox": {"networkMode": "bridge"}}}, "config.sandbox.networkMode"),
        ({"config": {"sandbox": {"networkMode": "host"}}}, "config.sandbox.networkMode"),
        (
            {"config": {"sandbox": {"securityPolicy": {"allowExec": False}}}},
            "config.sandbox.securityPolicy.allowExec",
        ),
        (
            {"config": {"sandbox": {"securityPolicy": {"blockedPaths": ["/dev"]}}}},
            "config.sandbox.securityPolicy.blockedPaths.0",
        ),
        ({"config": {"sandboxId": "sbx_none"}}, "config.sandboxId"),
        ({"config": {"keepSandbox": "yes"}}, "config.keepSandbox"),
        ({"workspace": {"git": {"ref": "main"}}}, "workspace.git.url"),
        ({"environment": []}, "environment"),
        ({"workspace": {"files": {"../etc/x": "a"}}}, "workspace.files.../etc/x"),
        ({"workspace": {"files": {"/etc/x": "a"}}}, "workspace.files./etc/x"),
        ({"workspace": {"files": {"a/": "x"}}}, "workspace.files.a/"),
        ({"workspace": {"files": {"": "x"}}}, "workspace.files."),
        ({"workspace": {"files": {"a": 5}}}, "workspace.files.a"),
        ({"workspace": {"git": {"url": "x"}}}, "workspace.git.url"),
        ({"workspace": {"archiveId": "arc_1"}}, "workspace.archiveId"),
        ({"workspace": {"archiveId": 5}}, "workspace.archiveId"),
        ({"departmentId": "dep_1"}, "departmentId"),
        ({"requires": "react"}, "requires"),
        ({"requires": [""]}, "requires.0"),
        ({"domain": ""}, "domain"),
        ({"steps": [{**E, "requires": [1]}]}, "steps.0.requires.0"),
        ({"config": {"priority": 0}}, "config.priority"),
        ({"config": {"priority": 6}}, "config.priority"),
        ({"config": {"priority": "1"}}, "config.priority"),
        ({"steps": [E, {**E, "departmentId": "dep_1"}]}, "steps.1.departmentId"),
        ({"name": ""}, "name"),
        ({"stepz": []}, "stepz"),
    ],
)
async def test_a_wrong_part_is_a_400_that_names_it(
    stack: Stack, session_id: str, refused: Refusal, fields: Data, field: str
) -> None:
    body = {"sessionId": session_id, "name": "w", "steps": [E], **fields}
    details = refused(await stack.http.post("/workflows", json=body), 400, "VALIDATION_ERROR")
    assert details["field"] == field, details


@pytest.mark.parametrize(
    ("environment", "field"),
    [
        ({"A-B": "canary77"}, "environment.A-B"),
        ({"1A": "canary77"}, "environment.1A"),
        ({"A": 77123}, "environment.A"),
        ({"A": True}, "environment.A"),
        ({"A": None}, "environment.A"),
        ({"A": ["canary77"]}, "environment.A"),
        ({"A": "canary77\0"}, "environment.A"),
        (["A=canary77"], "environment"),
        ("A=canary77", "environment"),
        ({"API_TOKEN": "***"}, "environment.API_TOKEN"),
    ],
)
@pytest.mark.parametrize("where", ["workflow", "step", "start"])
async def test_a_wrong_variable_is_named_and_its_value_never_echoed(
    stack: Stack,
    session_id: str,
    refused: Refusal,
    where: str,
    environment: Any,
    field: str,
) -> None:
    body: Data = {"sessionId": session_id, "name": "w", "steps": [dict(E)]}
    if where == "start":
        made = await stack.call("POST", "/workflows", body)
        path, body = f"/workflows/{made['id']}/start", {"environment": environment}
    else:
        path = "/workflows"
        (body if where == "workflow" else body["steps"][0])["environment"] = environment
    response = await stack.http.post(path, json=body)
    details = refused(response, 400, "VALIDATION_ERROR")
    assert details["field"] == ("steps.0." if where == "step" else "") + field
    assert "canary77" not in response.text
    assert "77123" not in response.text


async def test_secret_looking_variables_are_hidden_when_read(stack: Stack) -> None:
    variables = {"API_TOKEN": "canary77", "NODE_ENV": "production"}
    made = await stack.workflow({**E, "environment": variables}, environment=variables)
    read = await stack.call("GET", f"/workflows/{made['id']}")
    assert read["environment"] == {"API_TOKEN": "***", "NODE_ENV": "production"}
    assert "canary77" not in json.dumps([made, read, await stack.call("GET", "/workflows")])


async def test_a_change_that_leaves_the_environment_out_keeps_its_secrets(stack: Stack) -> None:
    made = await stack.workflow("say hi", environment={"API_TOKEN": "canary77"})
    await stack.call("PUT", f"/workflows/{made['id']}", {"config": {"maxRetries": 1}})
    of_it = select(DefinitionRow).where(DefinitionRow.workflow_id == made["id"])
    rows = await stack.store.fetch(
        lambda s: s.exec(of_it.order_by(col(DefinitionRow.version))).all()
    )
    kept = [row.definition["environment"] for row in rows]
    assert kept == [{"API_TOKEN": "canary77"}] * 2


async def test_a_department_of_another_session_is_refused(stack: Stack, refused: Refusal) -> None:
    one, other = (await stack.session())["id"], (await stack.session())["id"]
    department = await stack.call(
        "POST", "/departments", {"sessionId": other, "name": "a", "domain": "d"}
    )
    body = {"sessionId": one, "name": "w", "steps": [E], "departmentId": department["id"]}
    details = refused(await stack.http.post("/workflows", json=body), 400, "VALIDATION_ERROR")
    assert details["field"] == "departmentId"
    assert one in details["issue"]


@pytest.mark.parametrize("wish", [{"domain": "d"}, {"requires": ["react"]}, {"requires": []}])
async def test_a_department_excludes_saying_what_it_must_be_like(
    stack: Stack, refused: Refusal, wish: Data
) -> None:
    session_id = (await stack.session())["id"]
    department = await stack.call(
        "POST", "/departments", {"sessionId": session_id, "name": "a", "domain": "d"}
    )
    named = {"departmentId": department["id"]}
    bodies = {
        "departmentId": {"steps": [E], **named, **wish},
        "steps.1.departmentId": {"steps": [E, {**E, **named, **wish}]},
    }
    for field, body in bodies.items():
        full = {"sessionId": session_id, "name": "w", **body}
        details = refused(await stack.http.post("/workflows", json=full), 400, "VALIDATION_ERROR")
        assert details["field"] == field
        assert next(iter(wish)) in details["issue"]

    made = await stack.workflow({**E, **wish}, session_id=session_id, **named)
    path = f"/workflows/{made['id']}"
    refused(await stack.http.put(path, json=wish), 400, "VALIDATION_ERROR")
    changed = await stack.call("PUT", path, {"departmentId": None, **wish})
    shown = {key: changed[key] for key in ("departmentId", "domain", "requires")}
    assert shown == {"departmentId": None, "domain": None, "requires": None, **wish}


async def test_a_workflow_whose_department_is_gone_says_so_at_the_start(
    stack: Stack, refused: Refusal
) -> None:
    session_id = (await stack.session())["id"]
    department = await stack.call(
        "POST", "/departments", {"sessionId": session_id, "name": "a", "domain": "d"}
    )
    made = await stack.workflow("say hi", session_id=session_id, departmentId=department["id"])
    await stack.call("DELETE", f"/departments/{department['id']}")
    details = refused(await stack.http.post(f"/workflows/{made['id']}/start"), 409, "CONFLICT")
    assert details["field"] == "departmentId"


async def test_500_steps_are_taken(stack: Stack) -> None:
    made = await stack.workflow(*["say hi"] * 500)
    assert made["steps"][499]["command"] == "say hi"
    status = await stack.call("GET", f"/workflows/{made['id']}/status")
    assert (status["status"], status["totalSteps"]) == ("created", 500)


async def test_a_new_version_leaves_a_running_run_its_own(stack: Stack) -> None:
    made = await stack.workflow("wait versions", "say old")
    await stack.start(made["id"])
    await stack.until(made["id"], "running")

    changed = await stack.call("PUT", f"/workflows/{made['id']}", {"steps": [E, E, E]})
    stack.gates.open("versions")
    run = await stack.ended(made["id"])

    assert (made["version"], changed["version"]) == (1, 2)
    assert (run["definitionVersion"], run["totalSteps"]) == (1, 2)
    assert run["steps"][1]["result"]["stdout"] == "old\n"
    await stack.start(made["id"])
    again = await stack.ended(made["id"])
    assert (again["definitionVersion"], again["totalSteps"]) == (2, 3)


async def test_a_change_of_the_name_is_no_new_version(stack: Stack) -> None:
    made = await stack.workflow("say hi", description="x", environment={"A": "b"})
    changed = await stack.call(
        "PATCH", f"/workflows/{made['id']}", {"name": "n", "description": None}
    )
    assert (changed["name"], changed["description"], changed["version"]) == ("n", None, 1)
    assert changed["environment"] == {"A": "b"}


async def test_a_change_of_the_config_is_merged_by_key(stack: Stack) -> None:
    made = await stack.workflow("say hi", config={"timeout": 5000, "maxRetries": 2})
    path = f"/workflows/{made['id']}"
    changed = await stack.call("PUT", path, {"config": {"maxRetries": 1}})
    assert changed["config"] == {"timeout": 5000, "maxRetries": 1}
    cleared = await stack.call("PUT", path, {"config": {"timeout": None}})
    assert (cleared["config"]["maxRetries"], cleared["config"]["timeout"]) == (1, 86_400_000)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"steps": None}, "steps"),
        ({"steps": []}, "steps"),
        ({"name": None}, "name"),
        ({"steps": [{"type": "verify", "criteria": "tests pass"}]}, "steps.0"),
        ({"steps": [{**E, "timeOut": 1}]}, "steps.0.timeOut"),
        ({"sessionId": "ses_1"}, "sessionId"),
        ({"workspace": {"archiveId": "arc_1"}}, "workspace.archiveId"),
        ({"config": {"maxRetries": "1"}}, "config.maxRetries"),
    ],
)
async def test_a_wrong_change_is_a_400_and_changes_nothing(
    stack: Stack, refused: Refusal, body: Data, field: str
) -> None:
    made = await stack.workflow("say hi")
    response = await stack.http.put(f"/workflows/{made['id']}", json=body)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == field
    assert await stack.call("GET", f"/workflows/{made['id']}") == made


async def test_null_clears_the_parts_that_can_be_absent(stack: Stack) -> None:
    made = await stack.workflow(
        "say hi", environment={"A": "b"}, workspace={"files": {"a.txt": "x"}}
    )
    cleared = await stack.call(
        "PUT", f"/workflows/{made['id']}", {"environment": None, "workspace": None}
    )
    assert (cleared["environment"], cleared["workspace"], cleared["version"]) == ({}, None, 2)


async def test_a_running_workflow_cannot_be_deleted_and_an_ended_one_can(
    stack: Stack, refused: Refusal
) -> None:
    made = await stack.workflow("wait delete")
    path = f"/workflows/{made['id']}"
    run = await stack.start(made["id"])

    details = refused(await stack.http.delete(path), 409, "CONFLICT")
    assert details["runId"] == run["runId"]
    stack.gates.open("delete")
    await stack.ended(made["id"])

    assert await stack.call("DELETE", path) == {"id": made["id"], "deleted": True}
    for suffix in ("", "/status", "/runs", f"/runs/{run['runId']}"):
        refused(await stack.http.get(path + suffix), 404, "NOT_FOUND")
    for suffix in ("/start", "/cancel", "/pause", "/resume", "/signals/x"):
        refused(await stack.http.post(path + suffix), 404, "NOT_FOUND")


async def test_a_write_on_an_old_version_is_a_412(stack: Stack, refused: Refusal) -> None:
    made = await stack.workflow("say hi")
    path = f"/workflows/{made['id']}"
    old = (await stack.http.get(path)).headers["etag"]
    await stack.call("PUT", path, {"name": "changed"})
    for method, body in (("PUT", {"name": "late"}), ("DELETE", None)):
        late = await stack.http.request(method, path, json=body, headers={"If-Match": old})
        refused(late, 412, "PRECONDITION_FAILED")


async def test_list_filters_combine(stack: Stack) -> None:
    one, other = (await stack.session())["id"], (await stack.session())["id"]
    done = (await stack.run("say hi", session_id=one))["workflowId"]
    failed = (await stack.run("fail 1", session_id=one))["workflowId"]
    fresh = (await stack.workflow("say hi", session_id=one))["id"]
    await stack.run("say hi", session_id=other)

    async def ids(query: str) -> list[str]:
        return [row["id"] for row in await stack.call("GET", f"/workflows?{query}")]

    assert await ids(f"sessionId={one}&status=completed") == [done]
    assert await ids(f"sessionId={one}&status=failed") == [failed]
    assert await ids(f"sessionId={one}&status=created") == [fresh]
    assert await ids(f"sessionId={one}&status=running") == []
    assert await ids(f"sessionId={one}") == [fresh, failed, done]
    assert await ids(f"sessionId={one}&colour=red&session_id=x") == [fresh, failed, done]


async def test_an_unknown_status_is_a_400_that_lists_the_valid_ones(
    stack: Stack, refused: Refusal
) -> None:
    details = refused(await stack.http.get("/workflows?status=runing"), 400, "VALIDATION_ERROR")
    for status in ("created", "queued", "running", "paused", "cancelling", "timed_out"):
        assert f"'{status}'" in details["issue"]


async def test_a_cursor_walks_through_all_without_gap_while_some_are_added(stack: Stack) -> None:
    session_id = (await stack.session())["id"]
    made = [(await stack.workflow("say hi", session_id=session_id))["id"] for _ in range(7)]
    seen: list[str] = []
    query = f"sessionId={session_id}&limit=3"
    while True:
        body = (await stack.http.get(f"/workflows?{query}")).json()
        seen += [row["id"] for row in body["data"]]
        pagination = body["metadata"]["pagination"]
        if not pagination["hasMore"]:
            break
        await stack.workflow("say later", session_id=session_id)
        query = f"sessionId={session_id}&limit=3&cursor={pagination['nextCursor']}"
    assert seen == made[::-1]
    assert pagination["total"] == 7, "as it was for the first page"
    assert (await stack.http.get(f"/workflows?cursor={seen[0]}&limit=1")).is_success, "an id is one"


async def test_more_attempts_than_a_run_can_have_are_refused(stack: Stack) -> None:
    session = await stack.session()
    steps = [{"type": "execute", "command": "x"}] * 60
    body = {"sessionId": session["id"], "name": "w", "steps": steps, "config": {"maxRetries": 99}}

    response = await stack.http.post("/workflows", json=body)

    assert response.status_code == 400
    assert response.json()["error"]["details"]["field"] == "steps"
    assert "6000 attempts" in response.json()["error"]["message"]
