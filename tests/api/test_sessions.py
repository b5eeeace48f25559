"""Sessions through HTTP, as somebody sees them who has read the document only."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from support.stack import Data, Stack

from director.store.tables import SessionRow

Refusal = Callable[[httpx.Response, int, str], Data]


async def test_a_change_keeps_what_is_absent_and_merges_the_config(stack: Stack) -> None:
    made = await stack.session(
        description="first", config={"maxDepartments": 10, "timeout": 3_600_000}
    )

    changed = await stack.call(
        "PUT", f"/sessions/{made['id']}", {"name": "Renamed", "config": {"maxDepartments": 15}}
    )

    assert (changed["name"], changed["description"]) == ("Renamed", "first")
    assert changed["config"] == {"maxDepartments": 15, "timeout": 3_600_000}
    assert changed["updatedAt"] > made["updatedAt"]
    assert (changed["type"], changed["createdAt"]) == (made["type"], made["createdAt"])


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_null_clears_a_description_and_a_key_of_the_config(stack: Stack, method: str) -> None:
    made = await stack.session(description="x", config={"maxDepartments": 1, "timeout": 60_000})
    path = f"/sessions/{made['id']}"

    changed = await stack.call(method, path, {"description": None, "config": {"timeout": None}})

    assert changed["description"] is None
    assert changed["config"] == {"maxDepartments": 1}
    assert changed["expiresAt"] is None
    cleared = await stack.call(method, path, {"config": None})
    assert cleared["config"] == {}


@pytest.mark.parametrize("field", ["name", "status"])
async def test_what_a_session_needs_cannot_be_cleared(
    stack: Stack, refused: Refusal, field: str
) -> None:
    made = await stack.session()
    response = await stack.http.put(f"/sessions/{made['id']}", json={field: None})
    details = refused(response, 400, "VALIDATION_ERROR")
    assert (details["field"], "null" in details["issue"]) == (field, True)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x"}, "type"),
        ({"type": "director"}, "name"),
        ({"type": "Director"}, "type"),
        ({"type": "1st"}, "type"),
        ({"type": "a b"}, "type"),
        ({"type": ""}, "type"),
        ({"type": "a" * 65}, "type"),
        ({"type": "director\n"}, "type"),
        ({"type": 5}, "type"),
        ({"name": ""}, "name"),
        ({"name": 5}, "name"),
        ({"name": None}, "name"),
        ({"name": ["x"]}, "name"),
        ({"name": "a\0b"}, "name"),
        ({"name": "a" * 201}, "name"),
        ({"description": "a" * 10_001}, "description"),
        ({"description": 1.5}, "description"),
        ({"confg": {}}, "confg"),
        ({"status": "active"}, "status"),
        ({"config": []}, "config"),
        ({"config": "x"}, "config"),
        ({"config": {"timeOut": 1000}}, "config.timeOut"),
        ({"config": {"timeout": "1000"}}, "config.timeout"),
        ({"config": {"timeout": 1000.0}}, "config.timeout"),
        ({"config": {"timeout": 0}}, "config.timeout"),
        ({"config": {"timeout": -1}}, "config.timeout"),
        ({"config": {"timeout": 10**30}}, "config.timeout"),
        ({"config": {"maxDepartments": True}}, "config.maxDepartments"),
        ({"config": {"maxDepartments": "5"}}, "config.maxDepartments"),
        ({"config": {"maxDepartments": -1}}, "config.maxDepartments"),
    ],
)
async def test_a_wrong_session_is_a_400_that_names_the_field(
    stack: Stack, refused: Refusal, body: Data, field: str
) -> None:
    full = body if body.keys() & {"type", "name"} else {"type": "director", "name": "x", **body}
    if "name" in body and body["name"] != "x":
        full = {"type": "director", **full}
    details = refused(await stack.http.post("/sessions", json=full), 400, "VALIDATION_ERROR")
    assert field in [problem["field"] for problem in details["errors"]]
    assert details["field"] in details["message"]


@pytest.mark.parametrize("name", ["😀 emoji", "שלום עולם", "naïve — “quoted”", "a" * 200, "x\ty"])
async def test_a_name_in_any_script_survives(stack: Stack, name: str) -> None:
    made = await stack.session(name=name)
    assert (await stack.call("GET", f"/sessions/{made['id']}"))["name"] == name


async def test_the_metrics_count_departments_and_runs(stack: Stack) -> None:
    session = await stack.session()
    await stack.call(
        "POST", "/departments", {"sessionId": session["id"], "name": "a", "domain": "d"}
    )
    await stack.run("say hi", session_id=session["id"])

    metrics = (await stack.call("GET", f"/sessions/{session['id']}"))["metrics"]

    assert metrics == {"activeDepartments": 1, "totalTasks": 1, "runningTasks": 0}


async def test_a_delete_says_so_once_and_hides_what_was_inside(
    stack: Stack, refused: Refusal
) -> None:
    workflow = await stack.workflow("say hi")
    session_id = workflow["sessionId"]
    path = f"/sessions/{session_id}"

    assert await stack.call("DELETE", path) == {"id": session_id, "deleted": True}

    for method, body in (("DELETE", None), ("GET", None), ("PUT", {"name": "x"})):
        refused(await stack.http.request(method, path, json=body), 404, "NOT_FOUND")
    refused(await stack.http.get(f"/workflows/{workflow['id']}"), 404, "NOT_FOUND")


async def test_a_session_with_running_work_is_deleted_by_force_only(
    stack: Stack, refused: Refusal
) -> None:
    workflow = await stack.workflow("wait never-session")
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    path = f"/sessions/{workflow['sessionId']}"

    details = refused(await stack.http.delete(path), 409, "CONFLICT")
    assert details["runIds"] == [run["runId"]]
    assert "force=true" in details["message"]
    refused(await stack.http.delete(f"{path}?force=perhaps"), 400, "VALIDATION_ERROR")

    async with stack.listening() as socket:
        assert (await stack.call("DELETE", f"{path}?force"))["deleted"] is True
        seen: list[Any] = []
        while not seen or seen[-1]["event"] != "workflow.cancelled":
            seen.append(await _next(socket, workflow["sessionId"]))
        after = await _next(socket, workflow["sessionId"])
    assert after["type"] == "session_update"
    assert after["data"]["status"] == "deleted", "a deleted session must not look active again"


async def _next(socket: Any, session_id: str) -> Any:
    while True:
        frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
        if frame["data"].get("sessionId") == session_id:
            return frame


async def test_an_idle_session_expires_and_takes_no_new_work(
    stack: Stack, refused: Refusal
) -> None:
    session = await stack.session(config={"timeout": 300})
    workflow = await stack.workflow("say hi", session_id=session["id"])
    await _until_expired(stack, session["id"])

    start = await stack.http.post(f"/workflows/{workflow['id']}/start")
    assert refused(start, 409, "CONFLICT")["status"] == "expired"
    body = {"sessionId": session["id"], "name": "a", "domain": "d"}
    refused(await stack.http.post("/departments", json=body), 409, "CONFLICT")
    assert session["id"] in await _ids(stack, "status=expired")
    assert session["id"] not in await _ids(stack, "status=active")


async def test_an_expired_session_is_revived_only_on_purpose(stack: Stack) -> None:
    session = await stack.session(config={"timeout": 1})
    path = f"/sessions/{session['id']}"
    await _until_expired(stack, session["id"])

    renamed = await stack.call("PUT", path, {"name": "x", "config": {"timeout": 60_000}})
    assert renamed["status"] == "expired"
    revived = await stack.call("PUT", path, {"status": "active"})
    assert (revived["status"], revived["name"]) == ("active", "x")


async def test_running_work_keeps_a_session_alive(stack: Stack) -> None:
    session = await stack.session(config={"timeout": 100})
    workflow = None
    while workflow is None:  # the short idle time may be over before the first write
        await stack.call("PUT", f"/sessions/{session['id']}", {"status": "active"})
        response = await stack.http.post(
            "/workflows",
            json={
                "sessionId": session["id"],
                "name": "w",
                "steps": [{"type": "execute", "command": "wait alive"}],
            },
        )
        workflow = response.json()["data"] if response.is_success else None
    started = None
    while started is None:
        await stack.call("PUT", f"/sessions/{session['id']}", {"status": "active"})
        response = await stack.http.post(f"/workflows/{workflow['id']}/start")
        started = response.json()["data"] if response.is_success else None
    await stack.until(workflow["id"], "running")
    await _until_past(stack, session["id"])

    assert (await stack.call("GET", f"/sessions/{session['id']}"))["status"] == "active"
    stack.gates.open("alive")
    assert (await stack.ended(workflow["id"]))["status"] == "completed"
    await _until_expired(stack, session["id"])


async def _until_past(stack: Stack, session_id: str) -> None:
    while True:
        session = await stack.call("GET", f"/sessions/{session_id}")
        if datetime.fromisoformat(session["expiresAt"]) < datetime.now(UTC):
            return
        await asyncio.sleep(0.02)


async def _until_expired(stack: Stack, session_id: str) -> Data:
    for _ in range(500):
        session = await stack.call("GET", f"/sessions/{session_id}")
        if session["status"] == "expired":
            return dict(session)
        await asyncio.sleep(0.02)
    raise AssertionError("the session does not expire")


async def _ids(stack: Stack, query: str) -> list[str]:
    return [row["id"] for row in await stack.call("GET", f"/sessions?limit=100&{query}")]


@pytest.mark.parametrize("status", ["paused", "completed"])
async def test_a_session_that_is_not_active_takes_no_new_work(
    stack: Stack, refused: Refusal, status: str
) -> None:
    session = await stack.session()
    await stack.call("PUT", f"/sessions/{session['id']}", {"status": status})
    body = {"sessionId": session["id"], "name": "a", "domain": "d"}
    details = refused(await stack.http.post("/departments", json=body), 409, "CONFLICT")
    assert status in details["message"]
    assert session["id"] in await _ids(stack, f"status={status}")


@pytest.mark.parametrize("status", ["bogus", "", "ACTIVE", "deleted"])
async def test_an_unknown_status_is_a_400_that_lists_the_valid_ones(
    stack: Stack, refused: Refusal, status: str
) -> None:
    response = await stack.http.get(f"/sessions?status={status}")
    details = refused(response, 400, "VALIDATION_ERROR")
    assert details["field"] == "status"
    for known in ("active", "paused", "completed", "expired", "restoring"):
        assert known in details["issue"]


async def test_expired_and_restoring_cannot_be_set(stack: Stack, refused: Refusal) -> None:
    session = await stack.session()
    for status in ("expired", "restoring", "bogus"):
        response = await stack.http.put(f"/sessions/{session['id']}", json={"status": status})
        assert "'paused'" in refused(response, 400, "VALIDATION_ERROR")["issue"]


async def test_a_write_on_an_old_version_is_a_412_that_names_the_present(
    stack: Stack, refused: Refusal
) -> None:
    created = await stack.http.post("/sessions", json={"type": "director", "name": "x"})
    path = f"/sessions/{created.json()['data']['id']}"
    old = created.headers["etag"]
    assert (await stack.http.get(path)).headers["etag"] == old

    changed = await stack.http.put(path, json={"name": "y"}, headers={"If-Match": old})
    assert changed.status_code == 200

    for method, body in (("PUT", {"name": "z"}), ("DELETE", None)):
        late = await stack.http.request(method, path, json=body, headers={"If-Match": old})
        details = refused(late, 412, "PRECONDITION_FAILED")
        assert details["etag"] == changed.headers["etag"] != old
    assert (await stack.call("GET", path))["name"] == "y"
    listed = {"If-Match": f'"x", {changed.headers["etag"]}'}
    assert (await stack.http.delete(path, headers=listed)).status_code == 200


async def test_pages_stay_stable_while_sessions_are_added(stack: Stack) -> None:
    made = [(await stack.session())["id"] for _ in range(5)]
    first = (await stack.http.get("/sessions?limit=2")).json()
    assert [row["id"] for row in first["data"]] == made[:2:-1]
    assert first["metadata"]["pagination"]["hasMore"] is True
    await stack.session()

    cursor = first["metadata"]["pagination"]["nextCursor"]
    second = (await stack.http.get(f"/sessions?limit=3&cursor={cursor}")).json()

    assert [row["id"] for row in second["data"]] == made[2::-1], "no gap, and none twice"
    offset = await stack.call("GET", "/sessions?limit=2&offset=1")
    assert [row["id"] for row in offset] == made[:2:-1], "one was added before them"


async def test_the_last_page_says_that_it_is_the_last(stack: Stack) -> None:
    body = (await stack.http.get("/sessions?limit=1&offset=100000")).json()
    pagination = body["metadata"]["pagination"]
    assert body["data"] == []
    assert (pagination["hasMore"], pagination["nextCursor"]) == (False, None)
    assert pagination["total"] > 0


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=5.0",
        "limit=1_0",
        "limit=%2B5",
        "limit=%205",
        "limit=٥",
        "offset=-1",
        "offset=1e3",
        "cursor=zzz",
        "cursor=ses_1",
        "cursor=ses_01m879x682f8fjkxpqa3jx3jgp.",
        "cursor=ses_01m879x682f8fjkxpqa3jx3jgp.-1",
        "cursor=%00",
    ],
)
async def test_a_page_that_cannot_be_is_a_400_that_names_the_parameter(
    stack: Stack, refused: Refusal, query: str
) -> None:
    details = refused(await stack.http.get(f"/sessions?{query}"), 400, "VALIDATION_ERROR")
    assert details["field"] == query.partition("=")[0]


@pytest.mark.parametrize("id", ["ses_123", "x", "%00", "%F0%9F%98%80", "a%2Fb", "a" * 500, "ses_"])
async def test_an_id_that_cannot_be_ours_is_a_404(stack: Stack, refused: Refusal, id: str) -> None:
    refused(await stack.http.get(f"/sessions/{id}"), 404, "NOT_FOUND")
    assert await stack.call("GET", f"/departments?sessionId={id}") == []


async def test_that_a_session_expired_is_written_and_told_although_nobody_reads(
    stack: Stack,
) -> None:
    async with stack.listening() as socket:
        session = await stack.session(config={"timeout": 200})
        told = []
        async with asyncio.timeout(60):
            while "session.expired" not in told:
                frame = json.loads(await socket.recv())
                if frame["data"].get("sessionId") == session["id"]:
                    told.append(frame["event"])

    with stack.store.read() as database:
        assert database.get_one(SessionRow, session["id"]).status == "expired"
    refused = await stack.http.post(
        "/departments", json={"sessionId": session["id"], "name": "d", "domain": "d"}
    )
    assert refused.status_code == 409
