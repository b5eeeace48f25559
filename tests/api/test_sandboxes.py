"""`/sandboxes`: made, used, held, stopped and deleted, on a real Temporal with scripted ones."""

import asyncio
import base64
import io
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.alone import alone
from support.stack import Data, Stack
from support.waiting import until_so
from temporalio.client import Client, WorkflowExecutionStatus

from director.store.tables import ExecutionRow

Refusal = Callable[[httpx.Response, int, str], Data]

CREATE = {
    "name": "Code Execution Sandbox",
    "image": "node:22-alpine",
    "command": ["node", "app.js"],
    "environment": {"NODE_ENV": "production", "API_KEY": "secure_key"},
    "resourceLimits": {
        "cpu": 2.0,
        "memory": 256,
        "disk": 2048,
        "network": False,
        "maxDuration": 300000,
    },
    "securityPolicy": {
        "allowFilesystem": True,
        "allowNetwork": False,
        "allowExec": True,
        "allowedPaths": ["/app"],
        "blockedPaths": ["/etc", "/root"],
        "readOnlyRoot": True,
        "noPrivileges": True,
    },
    "networkMode": "isolated",
}


async def made(stack: Stack, **fields: Any) -> Data:
    body = {"resourceLimits": {"memory": 64}, **fields}
    return dict(await stack.call("POST", "/sandboxes", body))


async def execute(stack: Stack, sandbox: Data, command: Any, **fields: Any) -> Data:
    path = f"/sandboxes/{sandbox['id']}/execute"
    return dict(await stack.call("POST", path, {"command": command, **fields}))


async def until(stack: Stack, id: str, status: str) -> Data:
    async def reached() -> Data | None:
        found = dict(await stack.call("GET", f"/sandboxes/{id}"))
        return found if found["status"] == status else None

    return dict(await until_so(reached, f"sandbox {id} is {status}"))


async def gone(stack: Stack, id: str) -> None:
    for _ in range(400):
        if id not in {one.id for one in stack.runtime.sandboxes()}:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the sandbox is still there")


async def test_the_document_s_sandbox_is_made_used_measured_stopped_and_deleted(
    stack: Stack, refused: Refusal
) -> None:
    response = await stack.http.post("/sandboxes", json=CREATE)
    assert response.status_code == 201, response.text
    sandbox = response.json()["data"]
    assert response.headers["location"] == f"/v1/sandboxes/{sandbox['id']}"
    assert (sandbox["status"], sandbox["image"]) == ("running", "node:22-alpine")
    assert sandbox["resolvedImage"] == "node:22-alpine@scripted"
    assert sandbox["environment"] == {"NODE_ENV": "production", "API_KEY": "***"}
    assert sandbox["effectivePolicy"]["networkMode"] == "none"
    assert sandbox["expiresAt"] > sandbox["startedAt"]

    body = {
        "command": ["node", "-e", "console.log('Hello World')"],
        "timeout": 30000,
        "environment": {"TASK_ID": "task_123"},
    }
    response = await stack.http.post(f"/sandboxes/{sandbox['id']}/execute", json=body)
    assert response.status_code == 200
    ran = response.json()["data"]
    assert (ran["exitCode"], ran["timedOut"], ran["truncated"]) == (0, False, False)
    assert "Hello World" in ran["stdout"]
    command = next(c for s, c in stack.runtime.ran if c.id == ran["executionId"])
    assert command.environment["TASK_ID"] == "task_123"
    assert command.environment["API_KEY"] == "secure_key"

    path = f"/sandboxes/{sandbox['id']}"
    metrics = await stack.call("GET", f"{path}/metrics")
    assert {"cpu", "memory", "disk", "network", "pids", "uptimeMs", "timestamp"} == set(metrics)
    listed = await stack.call("GET", "/sandboxes?status=running&limit=100")
    assert sandbox["id"] in {one["id"] for one in listed}
    shown = await stack.call("GET", path)
    assert shown["mainProcess"]["status"] == "completed"
    assert shown["mainProcess"]["exitCode"] == 0
    assert (await stack.call("POST", f"{path}/stop"))["status"] == "stopped"
    assert (await stack.call("POST", f"{path}/stop"))["status"] == "stopped"
    refused(await stack.http.post(f"{path}/execute", json=body), 409, "CONFLICT")
    refused(await stack.http.get(f"{path}/metrics"), 409, "CONFLICT")
    deleted = await stack.call("DELETE", path)
    assert deleted == {"id": sandbox["id"], "deleted": True}
    refused(await stack.http.delete(path), 404, "NOT_FOUND")
    await gone(stack, sandbox["id"])
    handle = stack.temporal.get_workflow_handle(sandbox["id"])
    assert (await handle.result())["status"] == "deleted"


async def test_its_secrets_are_nowhere_in_temporal_or_in_events(stack: Stack) -> None:
    canary = "canary-sandbox-7731"
    sandbox = await made(stack, environment={"API_KEY": canary}, command="say a")
    ran = await execute(stack, sandbox, f"say {canary}", environment={"TOKEN": canary})
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")
    history = await stack.temporal.get_workflow_handle(sandbox["id"]).fetch_history()
    assert canary not in history.to_json()
    described = await stack.temporal.get_activity_handle(ran["executionId"]).describe()
    assert canary not in str(described)
    events = (await stack.http.get("/events?after=0&limit=1000&types=sandbox_event")).text
    assert sandbox["id"] in events
    assert canary not in events


async def test_its_events_tell_its_life_as_the_document_has_them(stack: Stack) -> None:
    async with stack.listening() as socket:
        sandbox = await made(stack)
        path = f"/sandboxes/{sandbox['id']}"
        assert (await stack.call("POST", f"{path}/pause"))["status"] == "paused"
        assert (await stack.call("POST", f"{path}/resume"))["status"] == "running"
        await stack.call("DELETE", path)
        told = []
        while len(told) < 5:
            frame = json.loads(await asyncio.wait_for(socket.recv(), 60))
            if frame["type"] == "sandbox_event" and frame["data"]["sandboxId"] == sandbox["id"]:
                told.append(frame["data"])
    assert [one["event"] for one in told] == ["created", "started", "paused", "resumed", "deleted"]
    statuses = ["creating", "running", "paused", "running", "deleted"]
    assert [one["status"] for one in told] == statuses
    idle, measured = {"cpu": 0.0, "memory": 0.0}, {"cpu": 1.5, "memory": 12.0}
    usage = [one["resourceUsage"] for one in told]
    assert usage == [idle, measured, measured, measured, idle]


async def test_how_a_command_ends_is_told_and_a_failing_one_is_a_200(stack: Stack) -> None:
    sandbox = await made(stack)
    failed = await execute(stack, sandbox, "say out; complain err; fail 3")
    assert (failed["exitCode"], failed["stdout"], failed["stderr"]) == (3, "out\n", "err\n")
    assert (failed["status"], failed["cause"], failed["encoding"]) == ("completed", "exit", "utf-8")
    late = await execute(stack, sandbox, "say early; wait never-opened", timeout=200)
    assert (late["timedOut"], late["status"], late["stdout"]) == (True, "timed_out", "early\n")
    again = await stack.call(
        "GET", f"/sandboxes/{sandbox['id']}/executions/{failed['executionId']}"
    )
    assert again == failed
    listed = await stack.call("GET", f"/sandboxes/{sandbox['id']}/executions")
    assert [one["executionId"] for one in listed] == [late["executionId"], failed["executionId"]]
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def test_binary_output_comes_whole_in_base64(stack: Stack) -> None:
    sandbox = await made(stack)
    ran = await execute(stack, sandbox, "binary ff00fe")
    assert ran["encoding"] == "base64"
    assert base64.b64decode(ran["stdout"]) == b"\xff\x00\xfe"
    logs = await stack.http.get(f"/sandboxes/{sandbox['id']}/logs?executionId={ran['executionId']}")
    assert logs.content == b"\xff\x00\xfe"
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def test_a_command_in_the_background_is_followed_by_its_address(stack: Stack) -> None:
    sandbox = await made(stack)
    path = f"/sandboxes/{sandbox['id']}"
    body = {"command": "say begun; wait background", "async": True}
    response = await stack.http.post(f"{path}/execute", json=body)
    assert response.status_code == 202
    where = response.headers["location"].removeprefix("/v1")
    assert (await stack.call("GET", where))["exitCode"] is None
    stack.gates.open("background")
    ended = await stack.call("GET", f"{where}?wait=20")
    assert (ended["status"], ended["stdout"]) == ("completed", "begun\n")
    await stack.call("DELETE", path)


async def test_output_streams_as_it_comes(stack: Stack) -> None:
    sandbox = await made(stack)
    path = f"/sandboxes/{sandbox['id']}/execute"
    headers = {"Accept": "text/event-stream"}
    body = {"command": "say first; wait streamed; fail 2"}
    seen: list[str] = []
    async with stack.http.stream("POST", path, json=body, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        async for line in response.aiter_lines():
            seen.append(line)
            if '"text":"first\\n"' in line.replace(": ", ":"):
                stack.gates.open("streamed")
    end = json.loads(next(line for line in reversed(seen) if line.startswith("data:"))[5:])
    assert (end["exitCode"], end["status"]) == (2, "completed")
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def test_no_command_runs_where_none_may(stack: Stack, refused: Refusal) -> None:
    closed = await made(stack, securityPolicy={"allowExec": False}, command="say own")
    path = f"/sandboxes/{closed['id']}"
    response = await stack.http.post(f"{path}/execute", json={"command": "say x"})
    assert refused(response, 403, "AUTHORIZATION_ERROR")["rule"] == "allowExec"
    for _ in range(200):
        shown = await stack.call("GET", path)
        if shown["mainProcess"]["status"] == "completed":
            break
        await asyncio.sleep(0.05)
    assert shown["mainProcess"]["exitCode"] == 0, "its own command runs"
    await stack.call("POST", f"{path}/pause")
    held = await stack.http.post(f"{path}/execute", json={"command": "say x"})
    refused(held, 403, "AUTHORIZATION_ERROR")
    await stack.call("DELETE", path)
    open_one = await made(stack)
    path = f"/sandboxes/{open_one['id']}"
    await stack.call("POST", f"{path}/pause")
    details = refused(
        await stack.http.post(f"{path}/execute", json={"command": "say x"}), 409, "CONFLICT"
    )
    assert details["status"] == "paused"
    await stack.call("DELETE", path)


async def test_nobody_is_connected_who_forbids_it(stack: Stack) -> None:
    for mode in ("bridge", "net_01h455vb4pex5vsknk084sn02q"):
        forbidden = await made(stack, networkMode=mode, securityPolicy={"allowNetwork": False})
        assert (forbidden["networkMode"], forbidden["networkId"]) == ("none", None)
        assert stack.runtime.spec(forbidden["id"]).network is None


async def test_a_stop_ends_what_runs(stack: Stack) -> None:
    sandbox = await made(stack, command="wait ever")
    path = f"/sandboxes/{sandbox['id']}"
    body = {"command": "wait ever", "async": True}
    going = await stack.call("POST", f"{path}/execute", body)
    stopped = await stack.call("POST", f"{path}/stop")
    assert (stopped["status"], stopped["mainProcess"]["status"]) == ("stopped", "cancelled")
    shown = await stack.call("GET", f"{path}/executions/{going['executionId']}?wait=20")
    assert shown["status"] == "cancelled"
    await stack.call("DELETE", path)


async def test_a_sandbox_expires_when_its_time_is_over(stack: Stack) -> None:
    sandbox = await made(
        stack, command="wait ever", resourceLimits={"memory": 64, "maxDuration": 700}
    )
    ended = await until(stack, sandbox["id"], "expired")
    assert ended["mainProcess"]["status"] == "cancelled"
    await gone(stack, sandbox["id"])


@pytest.mark.both
async def test_one_key_makes_one_sandbox_and_runs_one_command(stack: Stack) -> None:
    headers = {"Idempotency-Key": "sandbox-one"}
    first = await stack.http.post("/sandboxes", json={"name": "one"}, headers=headers)
    second = await stack.http.post("/sandboxes", json={"name": "one"}, headers=headers)
    assert second.headers["idempotency-replayed"] == "true"
    assert first.json()["data"]["id"] == second.json()["data"]["id"]
    path = f"/sandboxes/{first.json()['data']['id']}"
    ran = [
        await stack.http.post(f"{path}/execute", json={"command": "say x"}, headers=headers)
        for _ in range(2)
    ]
    assert ran[0].json()["data"] == ran[1].json()["data"]
    await stack.call("DELETE", path)


async def test_an_image_that_cannot_be_had_is_told(stack: Stack) -> None:
    stack.runtime._missing = ["not:here"]
    failed = await made(stack, image="not:here")
    failed = await until(stack, failed["id"], "failed")
    assert failed["error"]["code"] == "SANDBOX_FAILED"
    assert "not:here" in failed["error"]["message"]


async def test_a_sandbox_whose_workflow_is_terminated_is_settled(stack: Stack) -> None:
    sandbox = await made(stack, command="wait ever")
    await stack.temporal.get_workflow_handle(sandbox["id"]).terminate()
    ended = await until(stack, sandbox["id"], "failed")
    assert ended["mainProcess"]["status"] == "cancelled"
    await gone(stack, sandbox["id"])


async def test_a_command_whose_activity_is_terminated_is_killed(stack: Stack) -> None:
    sandbox = await made(stack)
    body = {"command": "wait ever", "async": True}
    going = await stack.call("POST", f"/sandboxes/{sandbox['id']}/execute", body)
    await stack.temporal.get_activity_handle(going["executionId"]).terminate()
    where = f"/sandboxes/{sandbox['id']}/executions/{going['executionId']}?wait=30"
    ended = await stack.call("GET", where)
    assert (ended["status"], ended["cause"]) == ("cancelled", "killed")
    assert ended["error"]["code"] == "TERMINATED"
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def closed(client: Client, id: str) -> WorkflowExecutionStatus | None:
    return (await client.get_workflow_handle(id).describe()).status


async def test_a_workflow_cancelled_in_temporal_leaves_nothing(stack: Stack) -> None:
    sandbox = await made(stack)
    await stack.temporal.get_workflow_handle(sandbox["id"]).cancel()
    await until(stack, sandbox["id"], "failed")
    await gone(stack, sandbox["id"])
    for _ in range(100):
        if await closed(stack.temporal, sandbox["id"]) is WorkflowExecutionStatus.CANCELED:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the workflow is not cancelled")


@pytest.mark.both
async def test_many_at_once_leave_nothing(stack: Stack) -> None:
    sandboxes = await asyncio.gather(
        *(stack.call("POST", "/sandboxes?wait=0", {"command": "wait ever"}) for _ in range(20))
    )
    await asyncio.gather(*(stack.call("DELETE", f"/sandboxes/{one['id']}") for one in sandboxes))
    for one in sandboxes:
        await gone(stack, one["id"])
        result = await stack.temporal.get_workflow_handle(one["id"]).result()
        assert result["status"] == "deleted"


async def test_files_come_in_and_out_as_they_are(stack: Stack, refused: Refusal) -> None:
    sandbox = await made(stack)
    url, content = f"/sandboxes/{sandbox['id']}/files", bytes(range(256)) * 5000
    small = {"a": b"a", "b": b"b", "/workspace/empty": b""}
    for path, body in {"data/all.bin": content, **small}.items():
        response = await stack.http.put(f"{url}?path={path}", content=body)
        assert response.json()["data"] == {"files": 1, "bytes": len(body)}, response.text
        assert (await stack.http.get(f"{url}?path={path}")).content == body
    folder = await stack.http.get(f"{url}?path=/workspace")
    assert folder.headers["content-type"] == "application/x-tar"
    with tarfile.open(fileobj=io.BytesIO(folder.content)) as tar:
        assert sorted(tar.getnames()) == ["a", "b", "data", "data/all.bin", "empty"]
        assert tar.extractfile("data/all.bin").read() == content  # type: ignore[union-attr]
    kind = {"Content-Type": "application/x-tar"}
    again = await stack.http.put(f"{url}?path=copy", content=folder.content, headers=kind)
    assert again.json()["data"]["files"] == 4
    assert (await stack.http.get(f"{url}?path=copy/data/all.bin")).content == content
    refused(await stack.http.get(f"{url}?path=nothing"), 404, "NOT_FOUND")
    for wrong in ("/etc/passwd", "../../etc/passwd", "/workspaces/x"):
        refused(await stack.http.get(f"{url}?path={wrong}"), 400, "VALIDATION_ERROR")
        refused(await stack.http.put(f"{url}?path={wrong}", content=b"x"), 400, "VALIDATION_ERROR")
    refused(await stack.http.put(f"{url}?path=data", content=b"x"), 409, "CONFLICT")
    secret = stack.settings.home / "secret"
    secret.write_text("host")
    (Path(stack.runtime.workspace(sandbox["id"]).path()) / "link").symlink_to(secret)
    refused(await stack.http.get(f"{url}?path=link"), 404, "NOT_FOUND")
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")
    refused(await stack.http.get(f"{url}?path=empty"), 404, "NOT_FOUND")


async def test_a_folder_is_read_without_what_lies_beside_it(stack: Stack) -> None:
    sandbox = await made(stack)
    url = f"/sandboxes/{sandbox['id']}/files"
    for path in ("deep/er/a.txt", "deep/er/most/b.txt", "deeper.txt"):
        await stack.http.put(f"{url}?path={path}", content=path.encode())
    root = Path(stack.runtime.workspace(sandbox["id"]).path())
    with (root / "endless").open("wb") as file:
        file.truncate(100 * 1024**3)
    folder = await stack.http.get(f"{url}?path=deep/er")
    with tarfile.open(fileobj=io.BytesIO(folder.content)) as tar:
        assert sorted(tar.getnames()) == ["a.txt", "most", "most/b.txt"]
    whole = await stack.http.get(f"{url}?path=")
    assert whole.status_code == 413, "all of it is more than can be read"
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def test_a_command_reads_what_is_sent_along(stack: Stack, refused: Refusal) -> None:
    sandbox = await made(stack)
    raw = bytes(range(256))
    for fields, expected in (
        ({"stdin": "zwölf\n"}, "zwölf\n".encode()),
        ({"stdin": base64.b64encode(raw).decode(), "encoding": "base64"}, raw),
        ({"stdin": ""}, b""),
        ({"user": "sandbox"}, None),
    ):
        ran = await execute(stack, sandbox, "say read", **fields)
        command = next(c for _, c in stack.runtime.ran if c.id == ran["executionId"])
        assert command.stdin == expected
        with stack.store.read() as session:
            row = session.get_one(ExecutionRow, ran["executionId"])
            assert row.stdin is None, "what it has read is not kept"
    path = f"/sandboxes/{sandbox['id']}/execute"
    for fields, field, why in (
        ({"stdin": "no base64!", "encoding": "base64"}, "stdin", "is not base64"),
        ({"stdin": "x", "encoding": "utf-16"}, "encoding", "base64"),
        ({"user": "root"}, "user", "must be sandbox, the only user"),
        ({"user": "0:0"}, "user", "no sandbox has"),
    ):
        response = await stack.http.post(path, json={"command": "say x", **fields})
        details = refused(response, 400, "VALIDATION_ERROR")
        assert details["field"] == field, details
        assert why in details["issue"]
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


async def test_a_snapshot_fills_other_sandboxes_and_workflows(
    stack: Stack, refused: Refusal
) -> None:
    sandbox = await made(stack)
    path = f"/sandboxes/{sandbox['id']}"
    await execute(stack, sandbox, "write src/a.txt first")
    headers = {"Idempotency-Key": "one-snapshot"}
    first, again = [
        await stack.http.post(f"{path}/snapshot", json={"name": "kept"}, headers=headers)
        for _ in range(2)
    ]
    archive = first.json()["data"]
    assert (first.status_code, archive["name"], archive["fileCount"]) == (201, "kept", 1)
    assert again.json()["data"] == archive
    assert first.headers["location"] == f"/v1/archives/{archive['id']}"
    assert (await stack.call("GET", f"/archives/{archive['id']}"))["totalBytes"] == 5
    await stack.call("DELETE", path)
    refused(await stack.http.post(f"{path}/snapshot"), 404, "NOT_FOUND")

    source = {"archiveId": archive["id"], "files": {"b.txt": "second"}}
    other = await made(stack, workspace=source)
    url = f"/sandboxes/{other['id']}/files"
    assert (await stack.http.get(f"{url}?path=src/a.txt")).text == "first"
    assert (await stack.http.get(f"{url}?path=b.txt")).text == "second"
    await stack.call("DELETE", f"/sandboxes/{other['id']}")
    run = await stack.run(
        "say x",
        {"type": "verify", "criteria": "file exists src/a.txt"},
        workspace={"archiveId": archive["id"]},
    )
    assert run["status"] == "completed"
    wrong = await stack.http.post("/sandboxes", json={"workspace": {"archiveId": "arc_none"}})
    assert refused(wrong, 400, "VALIDATION_ERROR")["field"] == "workspace.archiveId"


async def test_that_an_image_is_fetched_is_seen(stack: Stack) -> None:
    stack.runtime.pulls["slow:1"] = fetched = threading.Event()
    sandbox = await stack.call("POST", "/sandboxes?wait=0", {"image": "slow:1"})
    await until(stack, sandbox["id"], "pulling")
    fetched.set()
    await until(stack, sandbox["id"], "running")
    await stack.call("DELETE", f"/sandboxes/{sandbox['id']}")


@pytest.mark.both
async def test_the_sandboxes_of_a_session_go_with_it_by_force_while_they_run(
    stack: Stack, refused: Refusal
) -> None:
    session = await stack.session()
    path = f"/sessions/{session['id']}"
    running = await made(stack, sessionId=session["id"], command="wait never-session")
    stopped = await made(stack, sessionId=session["id"])
    await stack.call("POST", f"/sandboxes/{stopped['id']}/stop")
    details = refused(await stack.http.delete(path), 409, "CONFLICT")
    assert (details["sandboxIds"], details["runIds"]) == ([running["id"]], [])
    assert (await stack.call("DELETE", f"{path}?force=true"))["deleted"] is True
    for one in (running, stopped):
        refused(await stack.http.get(f"/sandboxes/{one['id']}"), 404, "NOT_FOUND")
        await gone(stack, one["id"])


async def test_a_session_whose_sandboxes_are_stopped_is_deleted_with_them(stack: Stack) -> None:
    session = await stack.session()
    sandbox = await made(stack, sessionId=session["id"])
    await stack.call("POST", f"/sandboxes/{sandbox['id']}/stop")
    assert (await stack.call("DELETE", f"/sessions/{session['id']}"))["deleted"] is True
    await gone(stack, sandbox["id"])


async def test_more_sandboxes_than_the_quota_and_other_images_than_allowed_are_refused(
    tmp_path: Path, refused: Refusal
) -> None:
    settings = {"DIRECTOR_SANDBOX_QUOTA": "1", "DIRECTOR_ALLOWED_IMAGES": "node:*, python:3.12"}
    async with alone(tmp_path, **settings) as api:
        body = {"image": "node:22-alpine"}
        assert (await api.http.post("/sandboxes?wait=0", json=body)).status_code == 202
        details = refused(await api.http.post("/sandboxes?wait=0", json=body), 409, "CONFLICT")
        assert (details["quota"], details["limit"]) == ("sandboxes", 1)
        wrong = await api.http.post("/sandboxes?wait=0", json={"image": "python:3.13"})
        details = refused(wrong, 400, "VALIDATION_ERROR")
        assert details["field"] == "image"
        assert "DIRECTOR_ALLOWED_IMAGES" in details["message"]
        made = await api.http.post("/sessions", json={"type": "director", "name": "s"})
        workflow = {
            "sessionId": made.json()["data"]["id"],
            "name": "w",
            "steps": [{"type": "execute", "command": "x"}],
            "config": {"sandbox": {"image": "evil:1"}},
        }
        details = refused(await api.http.post("/workflows", json=workflow), 400, "VALIDATION_ERROR")
        assert details["field"] == "config.sandbox.image"


async def test_runs_count_in_the_quotas_while_they_are_queued_and_where_they_keep_sandboxes(
    tmp_path: Path, refused: Refusal
) -> None:
    async with alone(tmp_path, DIRECTOR_SANDBOX_QUOTA="1", DIRECTOR_RUN_QUOTA="2") as api:
        session = await api.http.post("/sessions", json={"type": "director", "name": "s"})
        step = {"type": "execute", "command": "x"}
        body = {"sessionId": session.json()["data"]["id"], "name": "w", "steps": [step]}
        starts = []
        for _ in range(2):
            keeps = {**body, "config": {"keepSandbox": True}}
            workflow = (await api.http.post("/workflows", json=keeps)).json()["data"]["id"]
            starts.append(await api.http.post(f"/workflows/{workflow}/start"))
        assert starts[0].status_code == 202
        details = refused(starts[1], 409, "CONFLICT")
        assert (details["quota"], details["limit"]) == ("sandboxes", 1)
        refused(await api.http.post("/sandboxes?wait=0", json={}), 409, "CONFLICT")
        for _ in range(2):
            plain = (await api.http.post("/workflows", json=body)).json()["data"]["id"]
            starts.append(await api.http.post(f"/workflows/{plain}/start"))
        assert starts[2].status_code == 202
        details = refused(starts[3], 409, "CONFLICT")
        assert (details["quota"], details["limit"]) == ("runs", 2)
