"""A request that is sent again after a crash, or fifty times at once, is done once."""

import asyncio
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from e2e.installation import Installation
from support.waiting import until
from temporalio.service import RPCError, RPCStatusCode

from director.temporal.client import connect

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.kills]

DYING_API = [sys.executable, str(Path(__file__).parents[1] / "support" / "dying_api.py")]


@pytest.fixture
def dying(whole: Installation) -> Iterator[Installation]:
    """One whose API dies at the next start, between its commit and its word to Temporal; there
    is no worker, so that nothing else starts the run."""
    whole.end("worker")
    whole.end("api")
    whole.stack.commands["api"] = DYING_API
    begin_api(whole)
    del whole.stack.commands["api"]
    yield whole
    whole.heal()


def begin_api(director: Installation) -> None:
    """Start the API alone and wait until it serves."""
    director.stack.begin("api")
    until(lambda: serves(director.stack.api), "the API serves")
    director.user.token()


def serves(api: str) -> bool:
    try:
        return httpx.get(f"{api}/healthz", timeout=5, verify=False).status_code == 200
    except httpx.TransportError:
        return False


def started_in_temporal(director: Installation, run_id: str) -> bool:
    """Whether Temporal itself has an execution of a run."""

    async def asked() -> bool:
        address = f"127.0.0.1:{director.stack.ports.temporal}"
        client = await connect(address, director.stack.namespace, lazy=False)
        try:
            await client.get_workflow_handle(run_id).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    return asyncio.run(asked())


def test_a_start_whose_api_is_killed_after_the_commit_is_gone_on_with_and_runs_once(
    dying: Installation,
) -> None:
    workflow_id = dying.user.workflow("echo once | tee -a said.txt", "cat said.txt")
    path, headers = f"/workflows/{workflow_id}/start", {"Idempotency-Key": str(uuid4())}
    with pytest.raises(httpx.TransportError):
        dying.user.http.post(path, headers=headers)
    until(lambda: "api" in dying.stack.ended(), "the API has died")
    begin_api(dying)
    (run_id,) = runs_of(dying, workflow_id)
    assert dying.user.status(workflow_id)["status"] == "queued"
    assert not started_in_temporal(dying, run_id), "it died before Temporal heard of it"

    again = dying.user.http.post(path, headers=headers)
    assert (again.status_code, again.json()["data"]["runId"]) == (202, run_id)
    assert started_in_temporal(dying, run_id), "the second request has started the run"
    dying.heal()
    run = dying.user.ended(workflow_id)
    assert (run["runId"], run["status"]) == (run_id, "completed")
    assert dying.user.output(run, 1) == dying.user.output(run, 2) == "once\n"
    assert [step["result"]["repeats"] for step in run["steps"]] == [0, 0]
    assert runs_of(dying, workflow_id) == [run_id]
    replay = dying.user.http.post(path, headers=headers)
    assert (replay.content, replay.headers["idempotency-replayed"]) == (again.content, "true")


def test_a_start_that_waits_while_the_api_is_stopped_is_answered_and_the_next_api_says_the_same(
    whole: Installation,
) -> None:
    workflow_id = whole.user.workflow("sleep 8")
    path, headers = f"/workflows/{workflow_id}/start", {"Idempotency-Key": str(uuid4())}
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(whole.user.http.post, f"{path}?wait=60", headers=headers)
        until(lambda: whole.user.status(workflow_id)["status"] == "running", "the run has begun")
        whole.end("api", signal.SIGTERM)
        answer = first.result()
    assert (answer.status_code, answer.json()["data"]["status"]) == (202, "running")
    begin_api(whole)
    again = whole.user.http.post(f"{path}?wait=60", headers=headers)
    assert (again.content, again.headers["idempotency-replayed"]) == (answer.content, "true")
    run = whole.user.ended(workflow_id)
    assert run["status"] == "completed"
    assert runs_of(whole, workflow_id) == [run["runId"]]


def runs_of(director: Installation, workflow_id: str) -> list[str]:
    return [run["runId"] for run in director.user.call("GET", f"/workflows/{workflow_id}/runs")]


def test_fifty_equal_starts_at_once_run_the_command_once(whole: Installation) -> None:
    workflow_id = whole.user.workflow("echo once | tee -a said.txt", "cat said.txt")
    answers = at_once(whole, f"/workflows/{workflow_id}/start", {})

    assert len({answer.json()["data"]["runId"] for answer in answers}) == 1
    run = whole.user.ended(workflow_id)
    assert runs_of(whole, workflow_id) == [run["runId"]]
    assert whole.user.output(run, 2) == "once\n"


def test_fifty_equal_creates_at_once_make_one_session(whole: Installation) -> None:
    name = str(uuid4())
    answers = at_once(whole, "/sessions", {"type": "director", "name": name})

    assert len({answer.json()["data"]["id"] for answer in answers}) == 1
    sessions = whole.user.call("GET", "/sessions?limit=100")
    assert [session["name"] for session in sessions].count(name) == 1


def at_once(director: Installation, path: str, body: object) -> list[httpx.Response]:
    """Send the same request from fifty threads; one answer is the first, the others its replay."""
    headers = {"Idempotency-Key": str(uuid4()), **director.user.http.headers}
    url = f"{director.stack.api}/v1{path}"

    def send(_: int) -> httpx.Response:
        return httpx.post(url, json=body, headers=headers, timeout=60, verify=False)

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(send, range(50)))
    assert {answer.status_code for answer in answers} <= {201, 202}
    assert len({answer.content for answer in answers}) == 1
    replays = [answer.headers.get("idempotency-replayed") for answer in answers]
    assert sorted(replays, key=str) == [None, *["true"] * 49]
    return answers
