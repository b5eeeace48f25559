"""The runs of a workflow through HTTP: start, look, steer, read the output."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, event
from support.alone import DONE, PROGRESS, alone
from support.stack import Data, Stack
from support.waiting import until_so

from director.api.hub import Hub
from director.blobs.store import LocalBlobs
from director.domain.users import Role
from director.store import outputs, users
from director.store.engine import Store
from director.store.tables import OutputRow

Refusal = Callable[[httpx.Response, int, str], Data]


async def test_a_start_is_a_202_that_says_where_the_run_is(stack: Stack) -> None:
    workflow = await stack.workflow("say hi")
    started = await stack.http.post(f"/workflows/{workflow['id']}/start")
    run = started.json()["data"]

    assert started.status_code == 202
    assert run["status"] == "queued"
    assert started.headers["location"] == f"/v1/workflows/{workflow['id']}/runs/{run['runId']}"
    seen = await stack.http.get(
        started.headers["location"].removeprefix("/v1"), params={"wait": 30}
    )
    assert (seen.json()["data"]["status"], seen.json()["data"]["runId"]) == (
        "completed",
        run["runId"],
    )


@pytest.mark.parametrize("content", [b"", b"null", b"{}", b" \n{}"])
async def test_a_start_needs_no_body(stack: Stack, content: bytes) -> None:
    workflow = await stack.workflow("say hi")
    headers = {"Content-Type": "application/json"}
    path = f"/workflows/{workflow['id']}/start?wait=30"
    response = await stack.http.post(path, content=content, headers=headers)
    assert (response.status_code, response.json()["data"]["status"]) == (202, "completed")


@pytest.mark.parametrize(
    ("config", "body", "priority"),
    [({}, {}, 3), ({"priority": 2}, {}, 2), ({"priority": 2}, {"priority": 5}, 5)],
)
async def test_the_priority_of_the_start_wins_over_the_workflows_and_is_temporals(
    stack: Stack, config: Data, body: Data, priority: int
) -> None:
    workflow = await stack.workflow("say hi", config=config)
    run = await stack.start(workflow["id"], body)
    await stack.ended(workflow["id"])

    history = await stack.temporal.get_workflow_handle(run["runId"]).fetch_history()
    started = history.events[0].workflow_execution_started_event_attributes
    assert (run["priority"], started.priority.priority_key) == (priority, priority)
    assert started.priority.fairness_key == workflow["ownerId"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"environment": None}, "environment"),
        ({"enviroment": {}}, "enviroment"),
        ({"context": []}, "context"),
        ({"context": None}, "context"),
        ({"priority": 9}, "priority"),
        ({"priority": "1"}, "priority"),
        ([], "body"),
        ("x", "body"),
    ],
)
async def test_a_wrong_start_is_a_400_and_starts_nothing(
    stack: Stack, refused: Refusal, body: Data, field: str
) -> None:
    workflow = await stack.workflow("say hi")
    response = await stack.http.post(f"/workflows/{workflow['id']}/start", json=body)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == field
    assert await stack.call("GET", f"/workflows/{workflow['id']}/runs") == []


async def test_a_second_start_is_a_409_while_one_runs_and_a_new_run_after(
    stack: Stack, refused: Refusal
) -> None:
    workflow = await stack.workflow("wait twice")
    path = f"/workflows/{workflow['id']}/start"
    answers = await asyncio.gather(*(stack.http.post(path) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]
    (first,) = [answer.json()["data"] for answer in answers if answer.status_code == 202]
    for answer in answers:
        if answer.status_code == 409:
            assert refused(answer, 409, "CONFLICT")["runId"] == first["runId"]

    stack.gates.open("twice")
    await stack.ended(workflow["id"])
    second = await stack.call("POST", f"{path}?wait=30")
    assert second["runId"] != first["runId"]
    runs = await stack.call("GET", f"/workflows/{workflow['id']}/runs")
    assert [run["runId"] for run in runs] == [second["runId"], first["runId"]]


async def test_a_wait_that_is_over_answers_how_far_the_run_is(stack: Stack) -> None:
    workflow = await stack.workflow("wait patience")
    started = await stack.call("POST", f"/workflows/{workflow['id']}/start?wait=1")
    assert started["status"] == "running"
    assert (started["step"], started["progress"]) == (0, 0)
    assert (started["currentStep"]["type"], started["currentStep"]["status"]) == (
        "execute",
        "running",
    )
    stack.gates.open("patience")
    assert (await stack.ended(workflow["id"]))["status"] == "completed"


async def test_a_change_between_the_look_and_the_wait_is_not_missed(store: Store, url: str) -> None:
    hub, other = Hub(store), Store(url)
    async with asyncio.timeout(60), hub.running():
        mark = hub.mark()
        await other.run(lambda session: users.create_user(session, "ada", "x", Role.VIEWER))
        while hub.mark() is mark:
            await asyncio.sleep(0.01)
        await hub.changed(mark, 3600)
    other.close()


@pytest.mark.parametrize("wait", ["61", "-1", "x", "1.5", "", "1_0"])
async def test_a_wait_out_of_range_is_a_400_and_starts_nothing(
    stack: Stack, refused: Refusal, wait: str
) -> None:
    workflow = await stack.workflow("say hi")
    response = await stack.http.post(f"/workflows/{workflow['id']}/start?wait={wait}")
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == "wait"
    assert await stack.call("GET", f"/workflows/{workflow['id']}/runs") == []


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "signals/go", "signals/progress"])
async def test_what_does_not_run_cannot_be_steered(
    stack: Stack, refused: Refusal, verb: str
) -> None:
    workflow = await stack.workflow("say hi")
    path = f"/workflows/{workflow['id']}"
    details = refused(await stack.http.post(f"{path}/{verb}"), 409, "CONFLICT")
    assert "never started" in details["message"]

    run = await stack.call("POST", f"{path}/start?wait=30")
    details = refused(await stack.http.post(f"{path}/{verb}"), 409, "CONFLICT")
    assert (details["runId"], details["status"]) == (run["runId"], "completed")


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("progress", {"step": "1"}, "step"),
        ("progress", {"step": True}, "step"),
        ("progress", {"percent": "50"}, "percent"),
        ("progress", {"percent": True}, "percent"),
        ("progress", {"percent": 101}, "percent"),
        ("progress", {"percnt": 1}, "percnt"),
        ("progress", {"message": 5}, "message"),
        ("progress", {"message": "x" * 501}, "message"),
        ("progress", [], "body"),
        ("go", [1], "body"),
        ("go", "x", "body"),
        ("go", {"x": "y" * 70_000}, "body"),
        ("Go", {}, "name"),
        ("go on", {}, "name"),
        ("__temporal", {}, "name"),
        ("x" * 65, {}, "name"),
        ("pause", {}, "name"),
        ("resume", {}, "name"),
        ("cancel", {}, "name"),
        ("granted", {}, "name"),
    ],
)
async def test_a_wrong_signal_is_a_400_that_names_what_is_wrong(
    stack: Stack, refused: Refusal, name: str, body: Data, field: str
) -> None:
    workflow = await stack.workflow("say hi")
    response = await stack.http.post(f"/workflows/{workflow['id']}/signals/{name}", json=body)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == field


async def test_the_status_before_the_first_start_is_created(stack: Stack) -> None:
    workflow = await stack.workflow("say hi", {"type": "verify", "criteria": "no errors"})
    status = await stack.call("GET", f"/workflows/{workflow['id']}/status?wait=5")
    assert (status["status"], status["runId"], status["temporal"]) == ("created", None, None)
    assert (status["step"], status["totalSteps"], status["progress"]) == (0, 2, 0)
    assert status["steps"] == []


async def test_the_workflow_itself_can_be_asked_how_far_it_is(
    stack: Stack, refused: Refusal
) -> None:
    workflow = await stack.workflow("say hi", "wait live")
    path = f"/workflows/{workflow['id']}/status"
    await stack.start(workflow["id"])

    async def waits() -> Data | None:
        status = dict(await stack.call("GET", f"{path}?source=temporal"))
        live = status["live"]
        return status if (live["step"], live["currentStep"]) == (1, 1) else None

    status = await until_so(waits, "it waits in its second step")
    assert (status["live"]["status"], status["live"]["totalSteps"]) == ("running", 2)
    assert status["temporal"]["workflowId"] == status["runId"]
    assert (await stack.call("GET", path))["live"] is None

    details = refused(await stack.http.get(f"{path}?source=x"), 400, "VALIDATION_ERROR")
    assert (details["field"], details["issue"]) == ("source", "must be 'store' or 'temporal'")
    stack.gates.open("live")
    await stack.ended(workflow["id"])


async def test_a_run_of_another_workflow_is_a_404(stack: Stack, refused: Refusal) -> None:
    run, other = await stack.run("say hi"), await stack.workflow("say hi")
    for path in (f"runs/{run['runId']}", f"runs/{run['runId']}/steps/1/output", "runs/run_1"):
        refused(await stack.http.get(f"/workflows/{other['id']}/{path}"), 404, "NOT_FOUND")


async def test_the_runs_are_listed_in_pages(stack: Stack) -> None:
    workflow = await stack.workflow("say hi")
    for _ in range(3):
        await stack.call("POST", f"/workflows/{workflow['id']}/start?wait=30")
    path = f"/workflows/{workflow['id']}/runs"
    first = (await stack.http.get(f"{path}?limit=2")).json()
    cursor = first["metadata"]["pagination"]["nextCursor"]
    second = (await stack.http.get(f"{path}?limit=2&cursor={cursor}")).json()
    ids = [run["runId"] for run in first["data"] + second["data"]]
    assert (len(ids), ids) == (3, sorted(ids, reverse=True))
    assert first["metadata"]["pagination"]["total"] == 3
    assert second["metadata"]["pagination"]["hasMore"] is False


async def output(stack: Stack, run: Data, step: str, query: str = "") -> bytes:
    """The output of a step."""
    path = f"/workflows/{run['workflowId']}/runs/{run['runId']}/steps/{step}/output?{query}"
    response = await stack.http.get(path)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["x-content-type-options"] == "nosniff"
    return response.content


async def test_the_output_is_found_by_id_and_by_number_and_stream(stack: Stack) -> None:
    run = await stack.run(
        {"type": "execute", "command": "say hello; complain oops", "id": "greet"}, "say two"
    )
    assert await output(stack, run, "greet") == await output(stack, run, "1")
    assert sorted((await output(stack, run, "1")).split()) == [b"hello", b"oops"]
    assert await output(stack, run, "1", "stream=stdout") == b"hello\n"
    assert await output(stack, run, "1", "stream=stderr") == b"oops\n"
    assert await output(stack, run, "2", "stream=both") == b"two\n"
    assert await output(stack, run, "step-2", "stream=stderr") == b""


async def test_every_attempt_keeps_its_own_output(stack: Stack, refused: Refusal) -> None:
    run = await stack.run(
        {
            "type": "execute",
            "command": "say again; fail 1",
            "retry": {"maxAttempts": 2, "backoff": 0},
        }
    )
    assert run["steps"][0]["attempt"] == 2
    assert await output(stack, run, "1", "attempt=1") == b"again\n"
    path = f"/workflows/{run['workflowId']}/runs/{run['runId']}/steps/1/output"
    latest = await stack.http.get(path)
    assert latest.headers["x-director-attempt"] == "2"
    refused(await stack.http.get(f"{path}?attempt=3"), 404, "NOT_FOUND")
    refused(await stack.http.get(f"{path}?attempt=0"), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("step", ["0", "2", "nope", "-1", "0000011", "1000000001", "1.0", "١"])
async def test_a_step_that_is_not_there_is_a_404(
    stack: Stack, refused: Refusal, finished: Data, step: str
) -> None:
    path = f"/workflows/{finished['workflowId']}/runs/{finished['runId']}/steps/{step}/output"
    details = refused(await stack.http.get(path), 404, "NOT_FOUND")
    assert details["resource"] == "step"


@pytest.mark.parametrize("query", ["stream=out", "follow=perhaps", "attempt=x", "attempt=1.0"])
async def test_a_wrong_question_for_output_is_a_400(
    stack: Stack, refused: Refusal, finished: Data, query: str
) -> None:
    path = f"/workflows/{finished['workflowId']}/runs/{finished['runId']}/steps/1/output?{query}"
    details = refused(await stack.http.get(path), 400, "VALIDATION_ERROR")
    assert details["field"] == query.partition("=")[0]


@pytest.fixture(scope="module")
async def finished(stack: Stack) -> Data:
    """A run that has ended."""
    return await stack.run("say hi")


@pytest.mark.parametrize("follow", ["follow", "follow=true", "follow=1"])
async def test_following_streams_until_the_step_has_ended(stack: Stack, follow: str) -> None:
    workflow = await stack.workflow(f"say begun; wait {follow}")
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    path = f"/workflows/{workflow['id']}/runs/{run['runId']}/steps/1/output?{follow}"

    async with stack.http.stream("GET", path) as response:
        chunks = response.aiter_bytes()
        stack.gates.open(follow)
        content = b"".join([chunk async for chunk in chunks])

    assert content == b"begun\n"
    assert (await stack.ended(workflow["id"]))["status"] == "completed"


async def test_every_byte_of_an_output_comes_back(stack: Stack) -> None:
    run = await stack.run("say caf\u00e9 \U0001f600")
    recorded = await output(stack, run, "1")
    raw = bytes(range(256)) * 300
    row = OutputRow(
        run_id=run["runId"],
        step=0,
        attempt=1,
        stream="stdout",
        offset=len(recorded),
        size=len(raw),
        hash=LocalBlobs(stack.settings.home / "blobs").put(raw),
    )
    await stack.store.run(lambda session: outputs.append(session, row))

    assert recorded == "caf\u00e9 \U0001f600\n".encode()
    assert await output(stack, run, "1", "stream=stdout") == recorded + raw


async def test_who_waits_reads_the_run_once_and_is_woken_by_its_end_alone(tmp_path: Path) -> None:
    looks: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        if " ".join(statement.split()).startswith("SELECT runs.status FROM runs WHERE"):
            looks.append(statement)

    async with alone(tmp_path) as api:
        session = (await api.http.post("/sessions", json={"type": "a", "name": "x"})).json()["data"]
        steps = [{"type": "execute", "command": "true"}]
        body = {"sessionId": session["id"], "name": "w", "steps": steps}
        workflow = (await api.http.post("/workflows", json=body)).json()["data"]
        path = f"/workflows/{workflow['id']}"
        run_id = (await api.http.post(f"{path}/start")).json()["data"]["runId"]
        event.listen(Engine, "before_cursor_execute", note)
        try:
            waiting = asyncio.create_task(api.http.get(f"{path}/status?wait=60"))
            await until_so(lambda: looks, "it has looked")
            for number in range(10):
                await api.tell(f"run_other{number}", [PROGRESS, DONE])
                newest = await api.tell(run_id, [PROGRESS])
            await until_so(lambda: api.hub.position == newest, "all was told")
            assert (waiting.done(), len(looks)) == (False, 1)

            await api.tell(run_id, [DONE])

            assert (await asyncio.wait_for(waiting, 40)).status_code == 200
            assert len(looks) == 1
        finally:
            event.remove(Engine, "before_cursor_execute", note)
