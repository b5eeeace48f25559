"""`/security` through HTTP: profiles, what happened, and policies enforced on sandboxes."""

import uuid
from collections.abc import Callable
from typing import Any

import httpx
from support.stack import Data, Stack
from support.waiting import until_so

from director.domain.security import EnforceBody, ProfileCreate
from director.store import security

Refusal = Callable[[httpx.Response, int, str], Data]


def printed(body: Any) -> Data:
    """The document's example of a body."""
    return dict(body.model_config["json_schema_extra"]["examples"][0])


PRINTED = printed(ProfileCreate)


async def profile(stack: Stack, **fields: Any) -> str:
    body = {"name": "p", "level": "low", **fields}
    return str((await stack.call("POST", "/security/profiles", body))["id"])


async def made(stack: Stack, **fields: Any) -> Data:
    body = {"resourceLimits": {"memory": 64}, **fields}
    return dict(await stack.call("POST", "/sandboxes", body))


async def enforce(stack: Stack, policy_id: str, **body: Any) -> Data:
    return dict(await stack.call("POST", f"/security/policies/{policy_id}/enforce", body))


async def events(stack: Stack, **query: Any) -> list[Data]:
    asked = httpx.QueryParams({"limit": 1000, **query})
    return list(await stack.call("GET", f"/security/events?{asked}"))


async def test_the_document_s_profile_is_made_read_changed_and_deleted(
    stack: Stack, refused: Refusal
) -> None:
    response = await stack.http.post("/security/profiles", json=PRINTED)
    assert response.status_code == 201, response.text
    made = response.json()["data"]
    path = f"/security/profiles/{made['id']}"
    assert response.headers["location"] == f"/v1{path}"
    assert made["id"].startswith("prf_")
    assert {name: made[name] for name in ("name", "description", "level")} == {
        name: PRINTED[name] for name in ("name", "description", "level")
    }
    stated = {name: value for name, value in made["constraints"].items() if value is not None}
    assert stated == PRINTED["constraints"]
    assert made["id"] in {one["id"] for one in await stack.call("GET", "/security/profiles")}

    got = await stack.http.get(path)
    assert got.headers["etag"] == response.headers["etag"]
    match = {"If-Match": got.headers["etag"]}
    put = await stack.http.put(path, json={"level": "critical"}, headers=match)
    assert put.json()["data"]["level"] == "critical"
    assert put.json()["data"]["policy"]["maxProcesses"] == 5, "constraints win over the level"
    again = await stack.http.put(path, json={"level": "low"}, headers=match)
    refused(again, 412, "PRECONDITION_FAILED")
    assert await stack.call("DELETE", path) == {"id": made["id"], "deleted": True}
    refused(await stack.http.get(path), 404, "NOT_FOUND")
    messages = [one["message"] for one in await events(stack, type="policy_changed")]
    for what in ("made", "changed", "deleted"):
        assert f"security profile 'high-security' was {what}" in messages


async def test_a_profile_with_a_mistake_is_refused_by_the_field(
    stack: Stack, refused: Refusal
) -> None:
    for body, field in (
        ({"name": "p"}, "level"),
        ({"name": "p", "level": "extreme"}, "level"),
        ({"constraints": {"maxProcess": 5}}, "constraints.maxProcess"),
        ({"constraints": {"maxProcesses": 0}}, "constraints.maxProcesses"),
        ({"resourceLimits": {"disk": 64}}, "resourceLimits.disk"),
    ):
        whole = body if "name" in body else {"name": "p", "level": "low", **body}
        response = await stack.http.post("/security/profiles", json=whole)
        assert refused(response, 400, "VALIDATION_ERROR")["field"] == field


async def test_a_sandbox_is_made_under_the_strictest_of_all_that_is_said(
    stack: Stack, refused: Refusal
) -> None:
    strict = await profile(stack, level="high", resourceLimits={"memory": 32})
    session = await stack.session(securityProfileId=strict)
    assert session["securityProfileId"] == strict
    own = await profile(stack, constraints={"maxProcesses": 7})
    sandbox = await made(stack, sessionId=session["id"], securityProfileId=own)
    assert sandbox["securityProfileId"] == own
    spec = stack.runtime.spec_of(sandbox["id"])
    assert (spec.memory_mib, spec.max_processes, spec.read_only_root) == (32, 7, True)
    response = await stack.http.delete(f"/security/profiles/{own}")
    assert refused(response, 409, "CONFLICT")["sandboxes"] == [sandbox["id"]]
    unknown = await stack.http.post("/sandboxes", json={"securityProfileId": "prf_123"})
    refused(unknown, 404, "NOT_FOUND")
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def test_a_command_that_the_policy_denies_is_an_event(
    stack: Stack, operator: httpx.AsyncClient, refused: Refusal
) -> None:
    sandbox = await made(stack, securityPolicy={"allowExec": False})
    path = f"/sandboxes/{sandbox['id']}"
    for _ in range(2):
        response = await stack.http.post(f"{path}/execute", json={"command": "say a"})
        refused(response, 403, "AUTHORIZATION_ERROR")
    found = await events(stack, sandboxId=sandbox["id"], severity="medium")
    assert {(one["type"], one["rule"]) for one in found} == {("exec_denied", "allowExec")}
    assert sum(one["count"] for one in found) == 2
    theirs = await operator.get(f"/security/events?sandboxId={sandbox['id']}")
    assert theirs.json()["data"] == []
    summary = await stack.call("GET", "/security/events/summary")
    assert summary["last24h"]["byType"]["exec_denied"] >= 2
    assert {"sandboxId": sandbox["id"], "count": 2} in summary["last7d"]["bySandbox"]
    await stack.call("DELETE", path)


async def test_a_step_that_is_killed_by_its_time_is_an_event_of_its_run(stack: Stack) -> None:
    run = await stack.run({"type": "execute", "command": "last 9", "timeout": 50})
    assert run["steps"][0]["status"] == "timed_out"
    found = await events(stack, runId=run["runId"], type="timeout_kill")
    assert {one["sessionId"] for one in found} == {run["sessionId"]}
    assert {one["details"]["step"] for one in found} == {"step-1"}


async def test_the_document_s_request_for_events_answers_and_a_wrong_filter_is_refused(
    stack: Stack, refused: Refusal
) -> None:
    asked = "/security/events?sandboxId=sbx_123&limit=100&severity=high"
    assert await stack.call("GET", asked) == []
    for query, field in (
        ("severity=bad", "severity"),
        ("type=x", "type"),
        ("limit=1001", "limit"),
        ("since=yesterday", "since"),
        ("until=2026-13-01T00:00:00Z", "until"),
        ("since=2026-01-01T00:00:00", "since"),
    ):
        response = await stack.http.get(f"/security/events?{query}")
        details = refused(response, 400, "VALIDATION_ERROR")
        assert details["field"].endswith(field)
        assert ("such as 2026" in details["issue"]) is (field in ("since", "until"))


async def test_failed_logins_are_seen_by_admins_and_raise_one_alert(
    stack: Stack, operator: httpx.AsyncClient
) -> None:
    name, secret = f"u{uuid.uuid4().hex[:8]}", "wrong-canary-9931"
    await (await stack.user(name, "operator")).aclose()
    for _ in range(6):
        body = {"username": name, "password": secret}
        assert (await stack.http.post("/auth/login", json=body)).status_code == 401
    await stack.http.post("/auth/login", json={"username": secret, "password": "x" * 9})

    failed = await events(stack, type="login_failed")
    mine = [one for one in failed if one["details"]["username"] == name]
    assert sum(one["count"] for one in mine) == 6
    assert secret not in str(failed), "what was typed in is nowhere"
    assert (await operator.get("/security/events?type=login_failed")).json()["data"] == []

    async def alerts() -> list[Data]:
        user_id = mine[0]["details"]["userId"]
        found = await events(stack, type="alert")
        return [one for one in found if user_id in one["message"]]

    (alert,) = await until_so(alerts, "it is alerted")
    assert (alert["rule"], alert["severity"]) == ("REPEATED_FAILED_LOGINS", "high")
    log = "/events?after=0&types=security.alert&limit=1000&wait=5"
    frames = [
        one for one in await stack.call("GET", log) if one["data"]["securityEventId"] == alert["id"]
    ]
    assert [one["type"] for one in frames] == ["security_alert"]
    assert frames[0]["data"]["alert"]["rule"] == "REPEATED_FAILED_LOGINS"


async def test_what_can_be_is_enforced_at_once_and_the_rest_by_a_new_container(
    stack: Stack,
) -> None:
    id = (await made(stack))["id"]
    await stack.call("POST", f"/sandboxes/{id}/execute", {"command": "write kept.txt kept"})
    strict = await profile(
        stack,
        resourceLimits={"memory": 32},
        constraints={"allowExec": True, "maxProcesses": 5, "readOnlyRoot": True},
    )
    first = await enforce(stack, strict, scope={"sandboxId": id})
    assert first == {
        "policyId": strict,
        "scope": {"sessionId": None, "sandboxId": id},
        "applied": [{"sandboxId": id, "fields": ["maxProcesses", "memory"]}],
        "requiresRestart": [{"sandboxId": id, "fields": ["readOnlyRoot"]}],
        "violations": [],
    }
    spec = stack.runtime.spec_of(id)
    assert (spec.memory_mib, spec.max_processes, spec.read_only_root) == (32, 5, False)
    shown = (await stack.call("GET", f"/sandboxes/{id}"))["effectivePolicy"]
    assert shown["resourceLimits"]["memory"] == 32
    assert shown["securityPolicy"]["readOnlyRoot"] is False, "only what holds is shown"
    assert id not in stack.runtime.remade

    second = await enforce(stack, strict, scope={"sandboxId": id}, recreate=True)
    assert second["applied"] == [{"sandboxId": id, "fields": ["readOnlyRoot"]}]
    assert (second["requiresRestart"], stack.runtime.remade.count(id)) == ([], 1)
    assert stack.runtime.spec_of(id).read_only_root is True
    assert stack.runtime.workspace(id).read("kept.txt", 9) == b"kept"
    third = await enforce(stack, strict, scope={"sandboxId": id}, recreate=True)
    assert (third["applied"], stack.runtime.remade.count(id)) == (
        [{"sandboxId": id, "fields": []}],
        1,
    )
    enforced = await events(stack, type="policy_enforced", sandboxId=id)
    assert {one["rule"] for one in enforced} == {strict}

    loose = await profile(stack, resourceLimits={"memory": 4096})
    assert (await enforce(stack, loose, scope={"sandboxId": id}))["applied"][0]["fields"] == []
    assert stack.runtime.spec_of(id).memory_mib == 32
    await stack.call("DELETE", f"/sandboxes/{id}")


async def test_a_session_s_sandboxes_are_enforced_now_and_later(
    stack: Stack, refused: Refusal
) -> None:
    session = await stack.session()
    there = [await made(stack, sessionId=session["id"]) for _ in range(2)]
    held = there[0]["id"]
    await stack.call("POST", f"/sandboxes/{held}/pause")
    strict = await profile(stack, constraints={"allowExec": False, "readOnlyRoot": True})
    answer = await enforce(stack, strict, scope={"sessionId": session["id"]}, recreate=True)
    assert [one["sandboxId"] for one in answer["applied"]] == [there[1]["id"]]
    assert [one["sandboxId"] for one in answer["violations"]] == [held]
    assert "is paused" in answer["violations"][0]["issue"]
    there.append(await made(stack, sessionId=session["id"]))
    for sandbox in there[1:]:
        path = f"/sandboxes/{sandbox['id']}/execute"
        refused(await stack.http.post(path, json={"command": "x"}), 403, "AUTHORIZATION_ERROR")
    for sandbox in there:
        await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def test_what_was_enforced_in_a_session_is_brought_to_a_sandbox_that_was_not_asked(
    stack: Stack,
) -> None:
    session = await stack.session()
    id = (await made(stack, sessionId=session["id"]))["id"]
    strict = await profile(stack, resourceLimits={"memory": 32})
    await stack.store.run(lambda s: security.enforced(s, session["id"], strict))
    await until_so(lambda: stack.runtime.spec_of(id).memory_mib == 32, "it has the limit")
    await stack.call("DELETE", f"/sandboxes/{id}")


async def test_who_enforces_nothing_or_elsewhere_is_told(
    stack: Stack, operator: httpx.AsyncClient, refused: Refusal
) -> None:
    id, session = await profile(stack), await stack.session()
    sandbox = await made(stack)
    path = f"/security/policies/{id}/enforce"
    refused(await stack.http.post(path, json=printed(EnforceBody)), 404, "NOT_FOUND")
    for scope in ({}, {"sandboxId": None}):
        empty = await stack.http.post(path, json={"scope": scope})
        assert refused(empty, 400, "VALIDATION_ERROR")["field"] == "scope"
    both = {"scope": {"sandboxId": sandbox["id"], "sessionId": session["id"]}}
    wrong = await stack.http.post(path, json=both)
    assert refused(wrong, 400, "VALIDATION_ERROR")["field"] == "scope.sandboxId"
    mine = {"scope": {"sandboxId": sandbox["id"]}}
    theirs = (await operator.post("/security/profiles", json=PRINTED)).json()["data"]["id"]
    foreign = await operator.post(f"/security/policies/{theirs}/enforce", json=mine)
    assert refused(foreign, 404, "NOT_FOUND")["resource"] == "sandbox"
    await stack.call("POST", f"/sandboxes/{sandbox['id']}/stop")
    refused(await stack.http.post(path, json=mine), 409, "CONFLICT")
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def test_a_network_s_policy_is_enforced_where_it_can_be(stack: Stack) -> None:
    network = await stack.call("POST", "/networks", {"name": f"n{uuid.uuid4().hex[:8]}"})
    path = f"/networks/{network['id']}"
    policy = await stack.call("POST", f"{path}/policies", {"name": "p"})
    sandbox = await made(stack)
    answer = await enforce(stack, policy["id"], scope={"sandboxId": sandbox["id"]})
    assert answer["applied"] == [{"sandboxId": sandbox["id"], "fields": []}]
    assert answer["violations"] == []
    await stack.call("DELETE", path)
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")
