"""`Idempotency-Key`: sent once or fifty times, with crashes in between, it is done once."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlmodel import col, func, select
from support.described import SCHEMA
from support.postgres import NewDatabase
from support.server import TemporalServer
from support.stack import ADMIN_PASSWORD, Data, Stack, logged_in, running_stack

from director.api.gateway import Gateway
from director.api.once import Desk
from director.domain.events import EventType
from director.domain.times import utc_now
from director.store.tables import EventRow, IdempotencyRow, RunRow, SessionRow
from director.store.users import UserRow

Refusal = Callable[[httpx.Response, int, str], Data]

CREATES = ["sessions", "departments", "workflows", "users", "archives"]
SESSION = {"type": "director", "name": "A session"}


def keyed(key: str | None = None) -> dict[str, str]:
    """The header with a key, by default one that was never used."""
    return {"Idempotency-Key": key or str(uuid4())}


def is_replay(response: httpx.Response) -> bool:
    return response.headers.get("idempotency-replayed") == "true"


def same(one: httpx.Response, other: httpx.Response) -> bool:
    """Whether two responses give the same answer, byte for byte."""
    return (one.status_code, one.content, told(one)) == (
        other.status_code,
        other.content,
        told(other),
    )


def told(response: httpx.Response) -> list[str | None]:
    names = ("location", "etag", "content-type")
    return [response.headers.get(name) for name in names]


def packed(content: bytes = b"hi") -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("a.txt")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


async def body_of(stack: Stack, kind: str) -> dict[str, Any]:
    """What to send to create one of a kind, as options of a request."""
    match kind:
        case "sessions":
            return {"json": SESSION}
        case "departments":
            session_id = (await stack.session())["id"]
            return {"json": {"sessionId": session_id, "name": "D", "domain": "frontend"}}
        case "workflows":
            session_id = (await stack.session())["id"]
            steps = [{"type": "execute", "command": "say hi"}]
            return {"json": {"sessionId": session_id, "name": "W", "steps": steps}}
        case "users":
            name = f"user-{uuid4()}"
            return {"json": {"username": name, "password": ADMIN_PASSWORD}}
    return {"content": packed(), "params": {"name": "An archive"}}


async def row_of(stack: Stack, key: str) -> IdempotencyRow:
    """The only row of a key."""
    wanted = select(IdempotencyRow).where(IdempotencyRow.key == key)
    return await stack.store.fetch(lambda s: s.exec(wanted).one())


async def change(stack: Stack, key: str, **fields: Any) -> None:
    """Make a key's row what a crash, or time, would have made of it."""

    def write(session: Any) -> None:
        row = session.exec(select(IdempotencyRow).where(IdempotencyRow.key == key)).one()
        for name, value in fields.items():
            setattr(row, name, value)
        session.add(row)

    await stack.store.run(write)


async def count(stack: Stack, kind: Any, *conditions: Any) -> int:
    counted = select(func.count()).select_from(kind).where(*conditions)
    return int(await stack.store.fetch(lambda s: s.exec(counted).one()))


async def runs_of(stack: Stack, workflow_id: str) -> list[str]:
    return [run["runId"] for run in await stack.call("GET", f"/workflows/{workflow_id}/runs")]


async def waiting(stack: Stack) -> tuple[str, str]:
    """A workflow whose run has begun and goes on until its gate opens, and the gate."""
    gate = str(uuid4())
    workflow = await stack.workflow(f"wait {gate}", "say done")
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    return workflow["id"], gate


def test_every_post_but_those_of_auth_takes_a_key_and_says_so() -> None:
    posts = {
        path: operations["post"]
        for path, operations in SCHEMA["paths"].items()
        if "post" in operations
    }
    taking = set()
    for path, operation in posts.items():
        for parameter in operation.get("parameters", []):
            if parameter["name"] == "Idempotency-Key":
                assert (parameter["in"], parameter["required"]) == ("header", False)
                assert "24 hours" in parameter["description"]
                taking.add(path)
    assert taking == {path for path in posts if not path.startswith("/v1/auth/")}
    for path in taking:
        responses = posts[path]["responses"]
        assert "409" in responses
        successes = [told for status, told in responses.items() if status < "3"]
        assert successes
        for success in successes:
            assert "Idempotency-Replayed" in success["headers"]
            assert "schema" in success["content"]["application/json"]


@pytest.mark.parametrize("kind", CREATES)
async def test_a_create_that_is_sent_again_makes_nothing_and_answers_the_same_bytes(
    stack: Stack, kind: str
) -> None:
    sent, headers = await body_of(stack, kind), keyed()
    first = await stack.http.post(f"/{kind}", **sent, headers=headers)
    second = await stack.http.post(f"/{kind}", **sent, headers=headers)
    other = await stack.http.post(f"/{kind}", **sent, headers=keyed())

    assert first.status_code == 201, first.text
    assert same(first, second)
    assert (is_replay(first), is_replay(second), is_replay(other)) == (False, True, False)
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert first.json()["metadata"]["requestId"] == first.headers["x-request-id"]
    if kind == "users":
        assert other.status_code == 409
    else:
        assert other.json()["data"]["id"] != first.json()["data"]["id"]


@pytest.mark.parametrize("kind", CREATES)
async def test_an_answer_with_a_key_is_as_one_without(stack: Stack, kind: str) -> None:
    with_key = await stack.http.post(f"/{kind}", **await body_of(stack, kind), headers=keyed())
    without = await stack.http.post(f"/{kind}", **await body_of(stack, kind))

    assert with_key.status_code == without.status_code == 201
    assert list(with_key.json()) == list(without.json()) == ["success", "data", "metadata"]
    assert list(with_key.json()["data"]) == list(without.json()["data"])
    assert with_key.headers.keys() == without.headers.keys()
    seen = await stack.http.get(with_key.headers["location"].removeprefix("/v1"))
    assert seen.json()["data"] == with_key.json()["data"]


@pytest.mark.parametrize("key", ["", "a b", "ä", "a\tb", "x" * 256])
async def test_a_key_that_is_none_is_a_400(stack: Stack, refused: Refusal, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode()}
    response = await stack.http.post("/sessions", json=SESSION, headers=headers)  # type: ignore[arg-type]
    details = refused(response, 400, "VALIDATION_ERROR")
    assert (details["field"], "255 visible ASCII" in details["issue"]) == ("Idempotency-Key", True)


@pytest.mark.parametrize("key", ["x", "!~", "x" * 255, '"quoted"', "a,b;c=d"])
async def test_any_visible_ascii_is_a_key(stack: Stack, key: str) -> None:
    first = await stack.http.post("/sessions", json=SESSION, headers=keyed(key))
    again = await stack.http.post("/sessions", json=SESSION, headers=keyed(key))
    assert (first.status_code, same(first, again)) == (201, True)


async def test_other_parameters_under_the_same_key_are_a_409_that_says_so(
    stack: Stack, refused: Refusal
) -> None:
    headers, before = keyed(), await count(stack, SessionRow)
    first = await stack.http.post("/sessions", json=SESSION, headers=headers)
    for body in ({**SESSION, "name": "Another"}, {**SESSION, "name": 1}, {}):
        response = await stack.http.post("/sessions", json=body, headers=headers)
        details = refused(response, 409, "CONFLICT")
        assert "other parameters" in details["message"]
        assert details["idempotencyKey"] == headers["Idempotency-Key"]
    assert same(first, await stack.http.post("/sessions", json=SESSION, headers=headers))
    assert await count(stack, SessionRow) == before + 1


async def test_another_path_query_or_archive_is_another_request(
    stack: Stack, refused: Refusal
) -> None:
    headers = keyed()
    one, other = await stack.workflow("say a"), await stack.workflow("say a")
    await stack.call("POST", f"/workflows/{one['id']}/start", headers=headers)
    refused(
        await stack.http.post(f"/workflows/{other['id']}/start", headers=headers), 409, "CONFLICT"
    )
    assert await runs_of(stack, other["id"]) == []

    named = {"content": packed(), "params": {"name": "a"}}
    assert (await stack.http.post("/archives", **named, headers=headers)).status_code == 201
    for sent in ({**named, "params": {"name": "b"}}, {**named, "content": packed(b"ho")}):
        refused(await stack.http.post("/archives", **sent, headers=headers), 409, "CONFLICT")


async def test_the_same_json_written_otherwise_is_the_same_request(stack: Stack) -> None:
    headers = {**keyed(), "Content-Type": "application/json"}
    bodies = ['{"type":"a","name":"b"}', '{ "name": "b",\n "type": "\\u0061" }']
    first, second = [
        await stack.http.post("/sessions", content=body, headers=headers) for body in bodies
    ]
    assert (same(first, second), is_replay(second)) == (True, True)


@pytest.mark.parametrize("content", [b"", b"{}", b"null"])
async def test_a_start_without_a_body_is_the_same_as_with_an_empty_one(
    stack: Stack, content: bytes
) -> None:
    workflow, headers = await stack.workflow("say a"), keyed()
    path = f"/workflows/{workflow['id']}/start"
    first = await stack.http.post(path, json={}, headers=headers)
    headers["Content-Type"] = "application/json"
    assert same(first, await stack.http.post(path, content=content, headers=headers))


async def test_a_key_is_ones_own_and_one_routes(stack: Stack, operator: httpx.AsyncClient) -> None:
    headers, before = keyed(), await count(stack, SessionRow)
    mine = await stack.http.post("/sessions", json=SESSION, headers=headers)
    theirs = await operator.post("/sessions", json=SESSION, headers=headers)
    sent = await body_of(stack, "workflows")
    workflow = await stack.http.post("/workflows", **sent, headers=headers)

    assert {r.status_code for r in (mine, theirs, workflow)} == {201}
    assert await count(stack, SessionRow) == before + 3, "two with the key, one of the workflow"


async def test_bad_input_is_kept_and_replayed(stack: Stack, refused: Refusal) -> None:
    headers = keyed()
    first = await stack.http.post("/sessions", json={"type": "a"}, headers=headers)
    again = await stack.http.post("/sessions", json={"type": "a"}, headers=headers)
    assert refused(first, 400, "VALIDATION_ERROR")["field"] == "name"
    assert (same(first, again), is_replay(first), is_replay(again)) == (True, False, True)

    mended = await stack.http.post("/sessions", json=SESSION, headers=headers)
    assert "other parameters" in refused(mended, 409, "CONFLICT")["message"]


async def test_a_refused_archive_is_kept_and_replayed(stack: Stack, refused: Refusal) -> None:
    headers = keyed()
    first, again = [
        await stack.http.post("/archives", content=b"no archive", headers=headers) for _ in range(2)
    ]
    assert refused(first, 400, "VALIDATION_ERROR")["field"] == "body"
    assert (same(first, again), is_replay(again)) == (True, True)


async def test_a_refusal_is_replayed_although_it_would_go_now(
    stack: Stack, refused: Refusal
) -> None:
    workflow, headers = await stack.workflow("say a"), keyed()
    path = f"/workflows/{workflow['id']}/cancel"
    first = await stack.http.post(path, headers=headers)
    assert "never started" in refused(first, 409, "CONFLICT")["message"]
    await stack.start(workflow["id"])
    again = await stack.http.post(path, headers=headers)

    assert (same(first, again), is_replay(again)) == (True, True)
    assert (await stack.ended(workflow["id"]))["status"] == "completed"


async def test_a_404_is_replayed(stack: Stack, refused: Refusal) -> None:
    headers = keyed()
    first, again = [
        await stack.http.post("/workflows/wf_nothing/start", headers=headers) for _ in range(2)
    ]
    refused(first, 404, "NOT_FOUND")
    assert (same(first, again), is_replay(again)) == (True, True)


async def test_a_body_that_cannot_be_read_leaves_the_key_unused(
    stack: Stack, refused: Refusal
) -> None:
    headers, kind = keyed(), {"Content-Type": "application/json"}
    for content, status in ((b"{broken", 400), (b"{}".ljust(1024 * 1024 + 1), 413)):
        response = await stack.http.post("/sessions", content=content, headers={**headers, **kind})
        assert response.status_code == status
    assert (await stack.http.post("/sessions", json=SESSION, headers=headers)).status_code == 201


async def test_who_may_not_uses_no_key_and_gets_no_replay(stack: Stack, refused: Refusal) -> None:
    headers = keyed()
    viewer = await stack.user("walter", "viewer")
    refused(
        await viewer.post("/sessions", json=SESSION, headers=headers), 403, "AUTHORIZATION_ERROR"
    )
    users = await stack.call("GET", "/users?limit=100")
    (walter,) = (user["id"] for user in users if user["username"] == "walter")
    await stack.call("PATCH", f"/users/{walter}", {"role": "operator"})
    refused(
        await viewer.post("/sessions", json=SESSION, headers=headers), 401, "AUTHENTICATION_ERROR"
    )
    operator = await logged_in(stack.url, "walter")
    assert (await operator.post("/sessions", json=SESSION, headers=headers)).status_code == 201
    await stack.call("PATCH", f"/users/{walter}", {"role": "viewer"})
    demoted = await logged_in(stack.url, "walter")
    refused(
        await demoted.post("/sessions", json=SESSION, headers=headers), 403, "AUTHORIZATION_ERROR"
    )
    for http in (viewer, operator, demoted):
        await http.aclose()


async def test_after_a_day_a_key_is_as_unknown(stack: Stack) -> None:
    headers = keyed()
    first = await stack.http.post("/sessions", json=SESSION, headers=headers)
    kept_for = (await row_of(stack, headers["Idempotency-Key"])).expires_at - utc_now()
    assert timedelta(hours=23, minutes=59) < kept_for <= timedelta(hours=24)

    await change(stack, headers["Idempotency-Key"], expires_at=utc_now())
    again = await stack.http.post("/sessions", json={**SESSION, "name": "B"}, headers=headers)
    assert (again.status_code, is_replay(again)) == (201, False)
    assert again.json()["data"]["id"] != first.json()["data"]["id"]


async def test_a_start_that_is_sent_again_starts_nothing_also_after_the_end(stack: Stack) -> None:
    workflow, headers = await stack.workflow("say once"), keyed()
    path = f"/workflows/{workflow['id']}/start"
    first = await stack.http.post(path, headers=headers)
    await stack.ended(workflow["id"])
    again = await stack.http.post(path, headers=headers)

    assert (first.status_code, same(first, again), is_replay(again)) == (202, True, True)
    assert await runs_of(stack, workflow["id"]) == [first.json()["data"]["runId"]]
    anew = await stack.http.post(path, headers=keyed())
    assert len(await runs_of(stack, workflow["id"])) == 2
    assert anew.json()["data"]["runId"] != first.json()["data"]["runId"]


async def test_the_same_start_may_wait_longer_or_not_at_all(stack: Stack) -> None:
    workflow, headers = await stack.workflow("say once"), keyed()
    path = f"/workflows/{workflow['id']}/start"
    first = await stack.http.post(f"{path}?wait=30", headers=headers)
    assert first.json()["data"]["status"] == "completed"
    for query in ("", "?wait=5"):
        assert same(first, await stack.http.post(path + query, headers=headers))


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel"])
async def test_a_run_is_steered_once(stack: Stack, verb: str) -> None:
    workflow_id, gate = await waiting(stack)
    headers, path = keyed(), f"/workflows/{workflow_id}/{verb}"
    first = await stack.http.post(path, headers=headers)
    again = await stack.http.post(path, headers=headers)
    assert (first.status_code, same(first, again), is_replay(again)) == (202, True, True)

    stack.gates.open(gate)
    if verb == "pause":
        await stack.until(workflow_id, "paused")
        await stack.call("POST", f"/workflows/{workflow_id}/resume")
    end = await stack.ended(workflow_id)
    assert end["status"] == ("cancelled" if verb == "cancel" else "completed")
    late = await stack.http.post(path, headers=headers)
    assert same(first, late), "the first answer, although the run has ended"


@pytest.mark.parametrize("name", ["go", "progress"])
async def test_a_signal_that_is_sent_again_is_neither_counted_nor_told_nor_taken_twice(
    stack: Stack, name: str
) -> None:
    workflow_id, gate = await waiting(stack)
    headers, path = keyed(), f"/workflows/{workflow_id}/signals/{name}"
    body = {"message": "half"} if name == "progress" else {"any": "thing"}
    first = await stack.http.post(path, json=body, headers=headers)
    assert first.status_code == 200, first.text
    assert same(first, await stack.http.post(path, json=body, headers=headers))

    lost = {"lease_until": utc_now()}  # the answer and the signal's sending may have been lost
    await change(stack, headers["Idempotency-Key"], **lost)
    again = await stack.http.post(path, json=body, headers=headers)
    assert (same(first, again), is_replay(again)) == (True, True)

    status = f"/workflows/{workflow_id}/status?source=temporal"
    live = (await stack.call("GET", status))["live"]
    said = [one for one in live["progress"] if one["source"] == "agent"]  # a step says it, too
    assert (len(said), live["signals"]) == ((1, []) if name == "progress" else (0, [name]))
    run_id = first.json()["data"]["runId"]
    counted = await stack.store.fetch(lambda s: s.get_one(RunRow, run_id).signal_count)
    events = (EventRow.subject == run_id, EventRow.type == EventType.WORKFLOW_SIGNALLED)
    assert counted == 1
    assert await count(stack, EventRow, *events) == (0 if name == "progress" else 1)
    stack.gates.open(gate)
    await stack.ended(workflow_id)


async def at_once(times: int, send: Callable[[], Awaitable[httpx.Response]]) -> set[bytes]:
    """Send so often at once; each must be the one answer, and one only no replay of it."""
    answers = await asyncio.gather(*(send() for _ in range(times)))
    assert {answer.status_code for answer in answers} <= {201, 202}, [a.text for a in answers][:3]
    assert sum(not is_replay(answer) for answer in answers) == 1
    return {answer.content for answer in answers}


async def test_fifty_equal_creates_at_once_make_one_session(stack: Stack) -> None:
    headers, before = keyed(), await count(stack, SessionRow)
    answers = await at_once(50, lambda: stack.http.post("/sessions", json=SESSION, headers=headers))
    assert len(answers) == 1
    assert await count(stack, SessionRow) == before + 1


async def test_fifty_equal_starts_at_once_start_one_run(stack: Stack) -> None:
    workflow, headers = await stack.workflow("say once"), keyed()
    path = f"/workflows/{workflow['id']}/start"
    answers = await at_once(50, lambda: stack.http.post(path, headers=headers))
    assert len(answers) == 1
    assert len(await runs_of(stack, workflow["id"])) == 1
    assert (await stack.ended(workflow["id"]))["status"] == "completed"


async def test_while_the_first_is_at_work_an_equal_request_is_told_to_come_back(
    stack: Stack, refused: Refusal
) -> None:
    gate, headers = str(uuid4()), keyed()
    workflow = await stack.workflow(f"wait {gate}")
    path = f"/workflows/{workflow['id']}/start?wait=60"
    first = asyncio.create_task(stack.http.post(path, headers=headers))
    await stack.until(workflow["id"], "running")

    early = await stack.http.post(path.removesuffix("?wait=60"), headers=headers)
    details = refused(early, 409, "CONFLICT")
    assert "still at work" in details["message"]
    assert details["retryAfter"] == int(early.headers["retry-after"])
    patient = asyncio.create_task(stack.http.post(path, headers=headers))
    await asyncio.sleep(0)
    stack.gates.open(gate)

    assert (await first).json()["data"]["status"] == "completed"
    assert (same(await first, await patient), is_replay(await patient)) == (True, True)
    assert len(await runs_of(stack, workflow["id"])) == 1


async def test_a_key_whose_request_died_while_it_waited_is_taken_up_after_its_lease(
    stack: Stack, refused: Refusal
) -> None:
    workflow, headers = await stack.workflow("say once"), keyed()
    path, key = f"/workflows/{workflow['id']}/start", headers["Idempotency-Key"]
    first = await stack.http.post(f"{path}?wait=30", headers=headers)
    died: Data = {"status": None, "body": None, "headers": {}}
    await change(stack, key, **died, lease_until=utc_now() + timedelta(seconds=40))
    early = await stack.http.post(path, headers=headers)
    assert refused(early, 409, "CONFLICT")["retryAfter"] == 5

    await change(stack, key, lease_until=utc_now() + timedelta(seconds=1))
    taken = await stack.http.post(f"{path}?wait=30", headers=headers)
    assert (taken.status_code, is_replay(taken)) == (202, False)
    assert taken.json()["data"] == first.json()["data"]
    assert same(taken, await stack.http.post(path, headers=headers))
    assert len(await runs_of(stack, workflow["id"])) == 1


async def test_a_pause_that_is_taken_up_late_does_not_undo_a_resume(stack: Stack) -> None:
    workflow_id, gate = await waiting(stack)
    headers, path = keyed(), f"/workflows/{workflow_id}/pause"
    first = await stack.http.post(path, headers=headers)
    await stack.call("POST", f"/workflows/{workflow_id}/resume")
    await change(stack, headers["Idempotency-Key"], lease_until=utc_now())
    again = await stack.http.post(path, headers=headers)

    assert (same(first, again), is_replay(again)) == (True, True)
    live = await stack.call("GET", f"/workflows/{workflow_id}/status?source=temporal")
    assert (live["live"]["paused"], live["pauseRequested"]) == (False, False)
    stack.gates.open(gate)
    assert (await stack.ended(workflow_id))["status"] == "completed"


class Faulty(Gateway):
    """A way to Temporal that breaks once at each call that a test names, and counts the others."""

    broken: set[str] = set()
    sent: list[str] = []

    def _count(self, call: str) -> None:
        if call in self.broken:
            self.broken.discard(call)
            raise RuntimeError(f"{call} breaks")
        self.sent.append(call)

    async def start(self, *args: Any, **options: Any) -> None:
        self._count("start")
        await super().start(*args, **options)

    async def cancel(self, *args: Any, **options: Any) -> None:
        self._count("cancel")
        await super().cancel(*args, **options)

    async def signal(self, *args: Any, **options: Any) -> None:
        self._count("signal")
        await super().signal(*args, **options)


@pytest.fixture(scope="module")
async def faulty(
    temporal_server: TemporalServer,
    database: str,
    new_database: NewDatabase,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Stack]:
    """A Director whose API breaks between its commit and its word to Temporal."""
    folder, namespace = tmp_path_factory.mktemp("faulty"), f"faulty-{database}"
    with new_database(folder) as url:
        starting = running_stack(folder, temporal_server.address, namespace, Faulty, url=url)
        async with starting as running:
            yield running


def breaks(call: str) -> None:
    """Let the next call break, and count from now on."""
    Faulty.broken = {call}
    Faulty.sent.clear()


async def test_a_start_that_broke_after_its_commit_is_gone_on_with(
    faulty: Stack, refused: Refusal
) -> None:
    workflow, headers = await faulty.workflow("say once"), keyed()
    path = f"/workflows/{workflow['id']}/start"
    breaks("start")
    refused(await faulty.http.post(path, headers=headers), 500, "INTERNAL_ERROR")
    (run_id,) = await runs_of(faulty, workflow["id"])
    again = await faulty.http.post(f"{path}?wait=30", headers=headers)

    assert (again.json()["data"]["runId"], Faulty.sent) == (run_id, ["start"])
    assert (await faulty.ended(workflow["id"]))["status"] == "completed"
    assert await runs_of(faulty, workflow["id"]) == [run_id]
    assert same(again, await faulty.http.post(path, headers=headers))
    assert Faulty.sent == ["start"], "a replay sends nothing"


async def test_a_cancel_that_broke_after_its_commit_is_gone_on_with(
    faulty: Stack, refused: Refusal
) -> None:
    workflow_id, _ = await waiting(faulty)
    headers, path = keyed(), f"/workflows/{workflow_id}/cancel"
    breaks("cancel")
    refused(await faulty.http.post(path, headers=headers), 500, "INTERNAL_ERROR")
    assert (await faulty.http.post(path, headers=headers)).status_code == 202
    assert Faulty.sent == ["cancel"]
    end = await faulty.ended(workflow_id)
    told = (EventRow.subject == end["runId"], EventRow.type == EventType.WORKFLOW_CANCELLING)
    assert (end["status"], await count(faulty, EventRow, *told)) == ("cancelled", 1)


async def test_a_signal_that_broke_after_its_commit_is_sent_and_not_counted_again(
    faulty: Stack, refused: Refusal
) -> None:
    workflow_id, gate = await waiting(faulty)
    headers, path = keyed(), f"/workflows/{workflow_id}/signals/go"
    breaks("signal")
    refused(await faulty.http.post(path, headers=headers), 500, "INTERNAL_ERROR")
    answer = await faulty.http.post(path, headers=headers)
    assert answer.status_code == 200

    seen = await faulty.call("GET", f"/workflows/{workflow_id}/status?source=temporal")
    run_id = seen["runId"]
    assert seen["live"]["signals"] == ["go"]
    assert await faulty.store.fetch(lambda s: s.get_one(RunRow, run_id).signal_count) == 1
    faulty.gates.open(gate)
    await faulty.ended(workflow_id)


async def test_a_signal_of_a_run_that_has_ended_meanwhile_has_its_answer(faulty: Stack) -> None:
    workflow_id, gate = await waiting(faulty)
    headers, path = keyed(), f"/workflows/{workflow_id}/signals/go"
    breaks("signal")
    assert (await faulty.http.post(path, headers=headers)).status_code == 500
    faulty.gates.open(gate)
    await faulty.ended(workflow_id)
    assert (await faulty.http.post(path, headers=headers)).status_code == 200


async def test_the_row_of_a_key_tells_nothing_of_the_body(stack: Stack) -> None:
    headers, secret = keyed(), f"canary-{uuid4()}"
    body = {"username": f"user-{uuid4()}", "password": secret}
    assert (await stack.http.post("/users", json=body, headers=headers)).status_code == 201
    workflow = await stack.workflow("say hi")
    start = {"environment": {"PLAIN": secret}, "context": {"a": secret}}
    await stack.call("POST", f"/workflows/{workflow['id']}/start", start, headers=headers)

    rows = await stack.store.fetch(
        lambda s: s.exec(
            select(IdempotencyRow).where(IdempotencyRow.key == headers["Idempotency-Key"])
        ).all()
    )
    assert len(rows) == 2
    for row in rows:
        assert secret not in repr(row.model_dump())
    made = col(UserRow.username) == body["username"]
    assert await count(stack, UserRow, made) == 1


def test_a_fingerprint_still_fits_after_the_secret_was_changed() -> None:
    old, rotated, other = Desk(["old"]), Desk(["new", "old"]), Desk(["new"])
    made = old.fingerprint(b"content")

    assert rotated.fits(made, b"content")
    assert not rotated.fits(made, b"other content")
    assert not other.fits(made, b"content"), "only who has the secret can tell"
    assert rotated.fingerprint(b"content") == other.fingerprint(b"content") != made
