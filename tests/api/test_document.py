"""The API document's own requests, sent as printed; only ids and tokens are ours."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from support.stack import ADMIN_PASSWORD, Data, Stack

SESSION = {
    "type": "director",
    "name": "Main Director Session",
    "description": "Primary director session for orchestration",
    "config": {"maxDepartments": 10, "timeout": 3600000},
}
DEPARTMENT = {
    "name": "Code Generation Department",
    "domain": "code-generation",
    "config": {"maxConcurrentTasks": 5, "resourceLimits": {"memory": 512, "cpu": 1.0}},
    "capabilities": ["javascript", "typescript", "react"],
}
WORKFLOW: Data = {
    "name": "Code Review Workflow",
    "description": "Automated code review process",
    "steps": [
        {"type": "execute", "command": "npm test", "timeout": 300000},
        {"type": "verify", "criteria": "tests pass", "timeout": 60000},
        {
            "type": "checkpoint",
            "name": "code-review-checkpoint",
            "description": "Checkpoint after code review",
        },
    ],
    "config": {"timeout": 1800000, "maxRetries": 3},
}
CONTEXT: Data = {
    "name": "Project Context",
    "items": [
        {
            "type": "text",
            "content": "This is a project overview...",
            "metadata": {"source": "project-overview", "priority": "high"},
        }
    ],
    "config": {
        "maxSize": 100,
        "retentionPolicy": {"maxAge": 86400000, "importanceThreshold": 0.5},
    },
}
ITEM = {
    "type": "file",
    "content": "file://path/to/document.pdf",
    "metadata": {"title": "Project Requirements", "tags": ["requirements", "specification"]},
}
START = {"environment": {"NODE_ENV": "production"}, "context": {"reviewer": "ai-assistant"}}
COMMAND = "say '1..3'; say 'ok 1 - a'; say 'ok 2 - b'; say 'ok 3 - c'"
"""Stands for `npm test`, which the scripted sandboxes do not know."""


@pytest.fixture(scope="module")
async def client(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """A client that has logged in with the document's own call."""
    async with httpx.AsyncClient(base_url=f"{stack.url}/v1", timeout=70, verify=False) as http:
        body = {"username": "admin", "password": ADMIN_PASSWORD}
        login = await http.post("/auth/login", json=body)
        http.headers["Authorization"] = f"Bearer {login.json()['data']['token']}"
        yield http


@pytest.fixture(scope="module")
async def session(client: httpx.AsyncClient) -> Data:
    return dict((await client.post("/sessions", json=SESSION)).json()["data"])


def succeeded(response: httpx.Response, status: int) -> Any:
    """Check the document's envelope of a success; gives the data."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"success", "data", "metadata"}
    assert body["success"] is True
    assert set(body["metadata"]) >= {"timestamp", "requestId", "version"}
    assert body["metadata"]["version"] == "1.0.0"
    assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", body["metadata"]["timestamp"])
    return body["data"]


async def test_a_login_and_a_refresh(stack: Stack, client: httpx.AsyncClient) -> None:
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    pair = succeeded(await client.post("/auth/login", json=body), 200)
    bearer = {"Authorization": f"Bearer {pair['refreshToken']}"}
    fresh = succeeded(await client.post("/auth/refresh", headers=bearer), 200)
    me = await client.get("/auth/me", headers={"Authorization": f"Bearer {fresh['token']}"})
    assert succeeded(me, 200)["username"] == "admin"


async def test_create_session(client: httpx.AsyncClient) -> None:
    response = await client.post("/sessions", json=SESSION)
    data = succeeded(response, 201)
    assert response.headers["location"] == f"/v1/sessions/{data['id']}"
    assert data["id"].startswith("ses_")
    printed = {key: data[key] for key in ("type", "name", "status", "config")}
    assert printed == {
        "type": "director",
        "name": "Main Director Session",
        "status": "active",
        "config": {"maxDepartments": 10, "timeout": 3600000},
    }
    assert data["createdAt"] == data["updatedAt"]
    assert data["createdAt"].endswith("Z")


async def test_get_list_update_and_delete_session(client: httpx.AsyncClient) -> None:
    made = succeeded(await client.post("/sessions", json=SESSION), 201)
    assert succeeded(await client.get(f"/sessions/{made['id']}"), 200) == made
    listed = await client.get("/sessions?limit=10&offset=0&status=active")
    assert made["id"] in [each["id"] for each in succeeded(listed, 200)]
    assert set(listed.json()["metadata"]["pagination"]) == {
        "total",
        "limit",
        "offset",
        "hasMore",
        "nextCursor",
    }
    change = {"name": "Updated Session Name", "config": {"maxDepartments": 15}}
    changed = succeeded(await client.put(f"/sessions/{made['id']}", json=change), 200)
    assert changed["name"] == "Updated Session Name"
    assert changed["config"] == {"maxDepartments": 15, "timeout": 3600000}
    gone = succeeded(await client.delete(f"/sessions/{made['id']}"), 200)
    assert gone == {"id": made["id"], "deleted": True}


async def test_departments(client: httpx.AsyncClient, session: Data) -> None:
    response = await client.post("/departments", json={"sessionId": session["id"], **DEPARTMENT})
    made = succeeded(response, 201)
    assert response.headers["location"] == f"/v1/departments/{made['id']}"
    assert made["id"].startswith("dep_")
    assert {key: made[key] for key in DEPARTMENT} == DEPARTMENT
    assert succeeded(await client.get(f"/departments/{made['id']}"), 200) == made
    query = f"sessionId={session['id']}&domain=code-generation"
    assert succeeded(await client.get(f"/departments?{query}"), 200) == [made]
    metrics = succeeded(await client.get(f"/departments/{made['id']}/metrics"), 200)
    assert set(metrics) == {
        "activeTasks",
        "queuedTasks",
        "completedTasks",
        "failedTasks",
        "avgDurationMs",
        "p95DurationMs",
        "utilization",
        "lastActivityAt",
    }


async def test_departments_in_parallel(client: httpx.AsyncClient, session: Data) -> None:
    departments: list[Data] = [
        {"name": "Frontend", "domain": "frontend", "capabilities": ["react", "vue"]},
        {"name": "Backend", "domain": "backend", "capabilities": ["node", "python"]},
        {"name": "DevOps", "domain": "devops", "capabilities": ["docker", "k8s"]},
    ]
    responses = await asyncio.gather(
        *(
            client.post("/departments", json={"sessionId": session["id"], **each})
            for each in departments
        )
    )
    made = [succeeded(response, 201) for response in responses]
    assert [each["name"] for each in made] == ["Frontend", "Backend", "DevOps"]
    assert len({each["id"] for each in made}) == 3


async def test_context(client: httpx.AsyncClient, session: Data) -> None:
    response = await client.post("/context", json={"sessionId": session["id"], **CONTEXT})
    made = succeeded(response, 201)
    assert response.headers["location"] == f"/v1/context/{made['id']}"
    assert made["id"].startswith("ctx_")
    assert {key: made[key] for key in ("name", "config")} == {
        key: CONTEXT[key] for key in ("name", "config")
    }
    (first,) = made["items"]
    assert first.items() >= CONTEXT["items"][0].items()
    assert (first["importance"], first["expiresAt"]) == (0.9, None)

    response = await client.post(f"/context/{made['id']}/items", json=ITEM)
    added = succeeded(response, 201)
    assert response.headers["location"] == f"/v1/context/{made['id']}/items/{added['id']}"
    assert added["id"].startswith("itm_")
    assert added.items() >= ITEM.items()
    assert added["evicted"] == []

    whole = succeeded(await client.get(f"/context/{made['id']}"), 200)
    assert (whole["itemCount"], whole["sessionId"]) == (2, session["id"])
    listed = await client.get(f"/context/{made['id']}/items?limit=20&offset=0")
    assert succeeded(listed, 200) == whole["items"]
    assert [each["id"] for each in whole["items"]] == [added["id"], first["id"]]
    assert listed.json()["metadata"]["pagination"]["total"] == 2


async def test_create_workflow(client: httpx.AsyncClient, session: Data) -> None:
    response = await client.post("/workflows", json={"sessionId": session["id"], **WORKFLOW})
    made = succeeded(response, 201)
    assert response.headers["location"] == f"/v1/workflows/{made['id']}"
    assert made["id"].startswith("wf_")
    assert (made["status"], made["version"]) == ("created", 1)
    for key in ("name", "description", "config"):
        assert made[key] == WORKFLOW[key]
    for shown, sent in zip(made["steps"], WORKFLOW["steps"], strict=True):
        assert shown.items() >= dict(sent).items()


async def test_start_workflow_status_and_lists(client: httpx.AsyncClient, session: Data) -> None:
    steps = [{"type": "execute", "command": COMMAND, "timeout": 300000}, *WORKFLOW["steps"][1:]]
    body = {"sessionId": session["id"], **WORKFLOW, "steps": steps}
    workflow = succeeded(await client.post("/workflows", json=body), 201)

    response = await client.post(f"/workflows/{workflow['id']}/start", json=START)
    started = succeeded(response, 202)
    path = f"/v1/workflows/{workflow['id']}/runs/{started['runId']}"
    assert response.headers["location"] == path
    assert started["status"] == "queued"

    waited = await client.get(f"/workflows/{workflow['id']}/status?wait=60")
    status = succeeded(waited, 200)
    assert status["status"] == "completed", status["error"]
    assert (status["step"], status["totalSteps"], status["progress"]) == (3, 3, 100)
    assert status["result"]["success"] is True
    assert status["steps"][1]["result"]["counts"]["passed"] == 3
    assert status.keys() >= {
        "workflowId",
        "runId",
        "sessionId",
        "currentStep",
        "error",
        "startedAt",
        "completedAt",
    }
    assert set(status["temporal"]) == {"workflowId", "runId"}

    query = f"sessionId={session['id']}"
    done = succeeded(await client.get(f"/workflows?{query}&status=completed"), 200)
    assert workflow["id"] in [each["id"] for each in done]
    assert succeeded(await client.get(f"/workflows?{query}&status=running"), 200) == []
    checkpoints = succeeded(await client.get(f"/checkpoints?{query}&limit=10"), 200)
    assert [each["name"] for each in checkpoints] == ["code-review-checkpoint"]


async def test_the_complete_workflow_example(client: httpx.AsyncClient) -> None:
    body: Data = {"type": "director", "name": "Development Session"}
    session = succeeded(await client.post("/sessions", json=body), 201)
    body = {
        "sessionId": session["id"],
        "name": "Code Review Department",
        "domain": "code-review",
        "capabilities": ["javascript", "typescript"],
    }
    succeeded(await client.post("/departments", json=body), 201)
    body = {
        "sessionId": session["id"],
        "name": "Automated Code Review",
        "steps": [
            {"type": "execute", "command": COMMAND, "timeout": 300000},
            {"type": "verify", "criteria": "tests pass"},
        ],
    }
    workflow = succeeded(await client.post("/workflows", json=body), 201)
    headers = {"Content-Type": "application/json"}

    started = await client.post(f"/workflows/{workflow['id']}/start", headers=headers)

    assert succeeded(started, 202)["workflowId"] == workflow["id"]
    status = await client.get(f"/workflows/{workflow['id']}/status?wait=60")
    assert succeeded(status, 200)["status"] == "completed"
