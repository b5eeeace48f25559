"""Checkpoints through HTTP: made by steps, read here."""

from collections.abc import Callable

import httpx
import pytest
from support.stack import Data, Stack

Refusal = Callable[[httpx.Response, int, str], Data]

CHECKPOINT = {
    "type": "checkpoint",
    "name": "code-review-checkpoint",
    "description": "Checkpoint after code review",
}


@pytest.fixture(scope="module")
async def run(stack: Stack) -> Data:
    """A run with two checkpoints."""
    return await stack.run("write a.txt hi", CHECKPOINT, "write b.txt there", CHECKPOINT)


async def test_a_checkpoint_step_gives_the_id_under_which_it_is_found(
    stack: Stack, run: Data
) -> None:
    id = run["steps"][1]["result"]["checkpointId"]
    checkpoint = await stack.call("GET", f"/checkpoints/{id}")

    assert checkpoint["id"] == id
    assert (checkpoint["name"], checkpoint["description"]) == (
        "code-review-checkpoint",
        "Checkpoint after code review",
    )
    assert (checkpoint["status"], checkpoint["skipped"]) == ("ready", [])
    assert (checkpoint["runId"], checkpoint["workflowId"], checkpoint["sessionId"]) == (
        run["runId"],
        run["workflowId"],
        run["sessionId"],
    )
    assert (checkpoint["step"], checkpoint["createdAt"] <= run["completedAt"]) == ("step-2", True)
    assert checkpoint["manifest"]["filesystem"]["files"] == 1
    assert run["result"]["checkpointIds"] == [
        id,
        run["steps"][3]["result"]["checkpointId"],
    ]


async def test_the_documents_list_gives_the_sessions_checkpoints_newest_first(
    stack: Stack, run: Data
) -> None:
    body = (await stack.http.get(f"/checkpoints?sessionId={run['sessionId']}&limit=10")).json()
    assert [row["id"] for row in body["data"]] == run["result"]["checkpointIds"][::-1]
    assert body["metadata"]["pagination"] == {
        "total": 2,
        "limit": 10,
        "offset": 0,
        "hasMore": False,
        "nextCursor": None,
    }
    one = (await stack.http.get(f"/checkpoints?sessionId={run['sessionId']}&limit=1")).json()
    assert one["metadata"]["pagination"]["nextCursor"] == f"{body['data'][0]['id']}.2"
    assert await stack.call("GET", "/checkpoints?sessionId=ses_123456789") == []


async def test_somebody_elses_checkpoint_is_not_seen(
    stack: Stack, operator: httpx.AsyncClient, refused: Refusal, run: Data
) -> None:
    id = run["result"]["checkpointIds"][0]
    refused(await operator.get(f"/checkpoints/{id}"), 404, "NOT_FOUND")
    mine = await operator.get(f"/checkpoints?sessionId={run['sessionId']}")
    assert mine.json()["data"] == []
    refused(await stack.http.get("/checkpoints/ckp_123"), 404, "NOT_FOUND")
