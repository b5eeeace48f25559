"""`/events`: the same log as long-poll and as server-sent events; and what all events tell."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter
from support.alone import DONE, PROGRESS, Alone, alone
from support.server import free_port
from support.stack import ADMIN_PASSWORD, Data, Stack, logged_in
from support.waiting import until_so
from websockets.asyncio.client import connect

from director.activities.networks import tell_blocked
from director.api.frames import EventFrame
from director.api.listeners import Timing
from director.domain.events import CATALOGUE, EventType
from director.domain.networks import Direction
from director.domain.times import utc_now
from director.networks.blocked import Attempt
from director.networks.rules import Ground
from director.store import events

Refusal = Callable[[httpx.Response, int, str], Data]


@pytest.fixture(scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Alone]:
    """An API whose streams say something every tenth of a second."""
    async with alone(tmp_path_factory.mktemp("api"), Timing(quiet_seconds=0.1)) as running:
        yield running


async def polled(http: httpx.AsyncClient, **params: Any) -> tuple[list[Data], Data]:
    """Frames and pagination of one long-poll."""
    response = await http.get("/events", params=params)
    assert response.status_code == 200, response.text
    body = response.json()
    assert set(body) == {"success", "data", "metadata"}
    assert body["metadata"]["requestId"] == response.headers["x-request-id"]
    return body["data"], body["metadata"]["pagination"]


class Stream:
    """What comes of an event stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.last_id = ""
        self.retry = ""

    async def block(self) -> Data:
        """The fields of the next block, comments as `:`."""
        fields: Data = {}
        async for line in self._lines:
            if not line:
                break
            name, _, value = line.partition(":")
            fields[name or ":"] = value.removeprefix(" ")
        self.last_id = fields.get("id", self.last_id)
        return fields

    async def next(self) -> tuple[str, Data]:
        """The next event, as a browser would dispatch it."""
        async with asyncio.timeout(60):
            while "data" not in (fields := await self.block()):
                assert fields, "the stream has ended"
        return fields["event"], json.loads(fields["data"])


@asynccontextmanager
async def streamed(
    http: httpx.AsyncClient, last_id: int | str | None = None, **params: Any
) -> AsyncIterator[Stream]:
    """Listen to the event stream."""
    headers = {} if last_id is None else {"Last-Event-ID": str(last_id)}
    async with http.stream("GET", "/events/stream", params=params, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        yield Stream(response)


@asynccontextmanager
async def socketed(running: Alone, cursor: int) -> AsyncIterator[Any]:
    """Listen to the WebSocket."""
    async with connect(running.url.replace("http", "ws") + "/v1/ws", proxy=None) as socket:
        auth = {"type": "auth", "token": running.token, "cursor": cursor}
        await socket.send(json.dumps(auth))
        assert json.loads(await socket.recv())["type"] == "auth_ok"
        yield socket


async def test_all_three_ways_tell_the_same_frames(api: Alone) -> None:
    last = await api.tell("run_same", [DONE, PROGRESS, DONE])
    frames, _ = await polled(api.http, after=last - 3, wait=5)
    async with streamed(api.http, after=last - 3) as stream:
        events_ = [await stream.next() for _ in range(3)]
        assert stream.last_id == str(last)
    async with socketed(api, last - 3) as socket:
        told = [json.loads(await socket.recv()) for _ in range(3)]

    assert frames == told
    assert events_ == [(frame["type"], frame) for frame in told]
    assert [frame["seq"] for frame in told] == [1, 2, 3]


@pytest.mark.parametrize(("back", "seqs"), [(0, []), (1, [4]), (4, [1, 2, 3, 4])])
async def test_a_cursor_is_the_exact_place_to_go_on_from(
    api: Alone, back: int, seqs: list[int]
) -> None:
    subject = f"run_exact{back}"
    newest = await api.tell(subject, [DONE] * 4)
    await until_so(lambda: api.hub.position == newest, "it was read")
    frames, pagination = await polled(api.http, after=newest - back)
    async with streamed(api.http, after=newest - back) as stream:
        last = await api.tell(subject, [DONE])
        seen = [(await stream.next())[1]["seq"]]
        while seen[-1] != 5:
            seen.append((await stream.next())[1]["seq"])

    assert [frame["seq"] for frame in frames] == seqs
    assert pagination == {"limit": 20, "hasMore": False, "nextCursor": newest}
    assert (seen, stream.last_id) == ([*seqs, 5], str(last))


async def test_the_whole_log_comes_in_pages_without_gap_or_double(api: Alone) -> None:
    newest = await api.tell("run_pages", [DONE] * 45)
    await until_so(lambda: api.hub.position == newest, "it was read")
    frames, cursor, more = [], 0, True
    while more:
        page, pagination = await polled(api.http, after=cursor, limit=10)
        assert len(page) <= 10
        frames += page
        cursor, more = pagination["nextCursor"], pagination["hasMore"]
    ids = [frame["id"] for frame in frames]
    assert ids == list(range(1, newest + 1))
    assert cursor == newest


async def test_a_long_poll_without_a_cursor_begins_now_and_answers_when_something_comes(
    api: Alone,
) -> None:
    none, pagination = await polled(api.http)
    await api.unheard()
    listening = asyncio.create_task(polled(api.http, wait=30))
    await until_so(lambda: api.hub.count == 1, "it waits")
    began = time.monotonic()
    last = await api.tell("run_wait", [DONE])
    frames, _ = await listening
    assert time.monotonic() - began < 20
    assert none == []
    assert [frame["id"] for frame in frames] == [last]
    assert await polled(api.http, after=pagination["nextCursor"]) == (frames, {**_, "limit": 20})


async def test_a_long_poll_to_which_nothing_comes_is_answered_in_its_time(api: Alone) -> None:
    began = time.monotonic()
    frames, _ = await polled(api.http, wait=1)
    assert frames == []
    assert 0.9 < time.monotonic() - began < 20


async def test_the_cursor_goes_on_over_what_is_not_wanted(api: Alone) -> None:
    _, start = await polled(api.http)
    await api.tell("run_other", [DONE, PROGRESS])
    wanted = await api.tell("run_mine", [PROGRESS, DONE])
    newest = await api.tell("run_other", [PROGRESS])
    await until_so(lambda: api.hub.position == newest, "it was read")
    ways: list[Data] = [
        {"sessionId": "ses_run_mine"},
        {"workflowId": "wf_run_mine"},
        {"types": "workflow.completed", "sessionId": "ses_run_mine"},
        {"types": "session_update,workflow_progress", "workflowId": "wf_run_mine"},
        {"types": ["session_update", "workflow_progress"], "workflowId": "wf_run_mine"},
    ]
    for way in ways:
        frames, pagination = await polled(api.http, after=start["nextCursor"], **way)
        some = [wanted] if way.get("types") == "workflow.completed" else [wanted - 1, wanted]
        assert [frame["id"] for frame in frames] == some
        assert pagination["nextCursor"] == newest
    frames, pagination = await polled(api.http, after=wanted, sessionId="ses_run_mine")
    assert (frames, pagination["nextCursor"]) == ([], newest)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("wait=61", "wait"),
        ("wait=-1", "wait"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("after=-1", "after"),
        ("after=x", "after"),
        ("types=workflow.finished", "types"),
    ],
)
async def test_a_wrong_parameter_is_a_400_that_names_it(
    api: Alone, refused: Refusal, query: str, field: str
) -> None:
    details = refused(await api.http.get(f"/events?{query}"), 400, "VALIDATION_ERROR")
    assert details["field"] == field


@pytest.mark.parametrize("sent", ["x", "-1", "1.5", "٣", "9" * 40])
async def test_a_wrong_last_event_id_is_a_400(api: Alone, refused: Refusal, sent: str) -> None:
    headers = {"Last-Event-ID": sent.encode()}
    response = await api.http.get("/events/stream", headers=headers)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == "Last-Event-ID"


async def test_the_last_event_id_wins_over_the_address(api: Alone) -> None:
    last = await api.tell("run_wins", [DONE] * 3)
    async with streamed(api.http, last_id=last - 1, after=last - 3) as stream:
        assert (await stream.next())[1]["id"] == last


async def test_a_quiet_stream_says_where_to_go_on_from(api: Alone) -> None:
    async with streamed(api.http, workflowId="wf_none") as stream:
        first = await stream.block()
        assert int(first["id"]) == api.hub.position
        assert first["retry"] == "2000"
        newest = await api.tell("run_unwanted", [DONE])
        async with asyncio.timeout(60):
            while (block := await stream.block())["id"] != str(newest):
                assert set(block) == {":", "id"}, "a comment, and no event"
    assert stream.response.headers["content-type"].startswith("text/event-stream")
    assert stream.response.headers["cache-control"] == "no-store"
    assert stream.response.headers["x-request-id"].startswith("req_")


async def test_a_revoked_login_ends_its_stream_and_its_long_poll(
    api: Alone, refused: Refusal
) -> None:
    leaving = await logged_in(api.url, "admin")
    await api.unheard()
    async with streamed(leaving) as stream:
        await stream.block()
        polling = asyncio.create_task(leaving.get("/events?wait=60"))
        await until_so(lambda: api.hub.count == 2, "it waits")
        assert (await leaving.post("/auth/logout")).status_code == 200
        async with asyncio.timeout(60):
            while await stream.block():
                pass
        refused(await polling, 401, "AUTHENTICATION_ERROR")
    await leaving.aclose()


async def test_a_stream_that_its_client_leaves_is_let_go(api: Alone) -> None:
    await api.unheard()
    async with streamed(api.http) as stream:
        await stream.block()
        assert api.hub.count == 1
    await api.unheard()


async def test_a_cursor_that_leads_nowhere_asks_for_a_new_beginning(tmp_path: Path) -> None:
    async with alone(tmp_path) as running:
        await running.tell("run_a", [DONE] * 5)
    async with alone(tmp_path, Timing(quiet_seconds=0.1)) as running:
        await running.store.run(lambda s: events.purge(s, utc_now(), 3))
        kept, _ = await polled(running.http, after=3)
        for cursor in (0, 2, 10**15 - 1):
            frames, pagination = await polled(running.http, after=cursor, wait=10)
            resync = {"type": "resync_required", "data": {"cursor": 5, "oldest": 3}}
            assert frames == [resync]
            assert pagination["nextCursor"] == 5
            async with streamed(running.http, last_id=cursor) as stream:
                assert await stream.next() == ("resync_required", resync)
                assert stream.last_id == "5"
    assert [frame["id"] for frame in kept] == [4, 5]


async def test_a_cursor_of_another_process_that_is_ahead_is_waited_for(api: Alone) -> None:
    newest = await api.store.run(events.newest)
    await until_so(lambda: api.hub.position == newest, "it was read")
    position = api.hub.position
    api.hub.position = position - 1  # as if this process had not read the last event yet
    try:
        frames, _ = await polled(api.http, after=newest)
    finally:
        api.hub.position = position
    assert frames == []


async def test_nobody_hears_of_what_is_not_theirs(
    stack: Stack, operator: httpx.AsyncClient, viewer: httpx.AsyncClient
) -> None:
    _, start = await polled(stack.http)
    await stack.session(name="the admin's")
    mine = (await operator.post("/sessions", json={"type": "a", "name": "x"})).json()["data"]
    theirs, _ = await polled(operator, after=start["nextCursor"], wait=10)
    admins, _ = await polled(stack.http, after=start["nextCursor"])
    viewers, _ = await polled(viewer, after=start["nextCursor"])
    assert [frame["data"]["sessionId"] for frame in theirs] == [mine["id"]]
    assert len(admins) >= 2
    assert viewers == []


@pytest.fixture
def process(tmp_path: Path, url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The API as a process of its own."""
    port = free_port()
    environ = {
        **os.environ,
        "DIRECTOR_HOME": str(tmp_path),
        "DIRECTOR_DATABASE_URL": url,
        "DIRECTOR_PORT": str(port),
        "DIRECTOR_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "DIRECTOR_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
    }
    with (tmp_path / "api.log").open("wb") as log:
        command = [sys.executable, "-m", "director.api"]
        started = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    api = f"http://127.0.0.1:{port}"
    for _ in range(400):
        with suppress(httpx.TransportError):
            httpx.get(f"{api}/healthz", verify=False)
            break
        time.sleep(0.05)
    yield started, api
    started.kill()
    started.wait()


async def test_a_sigterm_ends_all_that_listen_at_once(
    process: tuple[subprocess.Popen[bytes], str],
) -> None:
    api, url = process
    http = await logged_in(url, "admin")
    session = (await http.post("/sessions", json={"type": "a", "name": "x"})).json()["data"]
    steps = [{"type": "execute", "command": "x"}]
    body = {"sessionId": session["id"], "name": "w", "steps": steps}
    workflow = (await http.post("/workflows", json=body)).json()["data"]
    await http.post(f"/workflows/{workflow['id']}/start")
    while len((await polled(http, after=0))[0]) < 3:
        await asyncio.sleep(0.05)
    token = http.headers["Authorization"].removeprefix("Bearer ")
    async with AsyncExitStack() as all_of_them:
        sockets, streams = [], []
        for _ in range(20):
            socket = await all_of_them.enter_async_context(
                connect(url.replace("http", "ws") + "/v1/ws", proxy=None)
            )
            await socket.send(json.dumps({"type": "auth", "token": token}))
            await socket.recv()
            sockets.append(socket)
            stream = await all_of_them.enter_async_context(streamed(http))
            await stream.block()
            streams.append(stream)
        polls = [asyncio.create_task(polled(http, wait=60)) for _ in range(10)]
        status = asyncio.create_task(http.get(f"/workflows/{workflow['id']}/status?wait=60"))
        await asyncio.sleep(0.3)  # nothing tells from outside that a long-poll waits

        api.send_signal(signal.SIGTERM)
        began = time.monotonic()
        await asyncio.to_thread(api.wait, 20)
        took = time.monotonic() - began

        for poll in polls:
            frames, pagination = await poll
            assert (frames, pagination["hasMore"]) == ([], False)
        assert (await status).json()["data"]["status"] == "queued"
        for stream in streams:
            assert await stream.block() == {}, "it ends as a whole"
        for socket in sockets:
            await socket.wait_closed()
            assert socket.close_code == 1012
    await http.aclose()
    assert took < 15


NOT_HERE = {
    EventType.WORKFLOW_SANDBOX_LOST,
    EventType.SANDBOX_OOM,
    EventType.SECURITY_ALERT,
}
"""The first takes two hosts: `tests/store/test_events.py`; the second a real engine:
`tests/e2e/test_sandboxes.py`; the third a round of reconcile: `tests/api/test_security.py`."""


async def department(stack: Stack, session_id: str) -> str:
    """A department with one slot."""
    config = {"maxConcurrentTasks": 1}
    body = {"sessionId": session_id, "name": "a", "domain": "d", "config": config}
    return str((await stack.call("POST", "/departments", body))["id"])


async def sandboxes(stack: Stack) -> None:
    """Let everything happen that happens to sandboxes which people make."""
    small: Data = {"memory": 64}
    made = await stack.call("POST", "/sandboxes", {"resourceLimits": small})
    for verb in ("pause", "resume", "stop"):
        await stack.call("POST", f"/sandboxes/{made['id']}/{verb}")
    await stack.call("DELETE", f"/sandboxes/{made['id']}")
    short = await stack.call("POST", "/sandboxes", {"resourceLimits": {**small, "maxDuration": 50}})
    huge = await stack.call("POST", "/sandboxes", {"resourceLimits": {"memory": 1024 * 1024}})
    for id, status in ((short["id"], "expired"), (huge["id"], "failed")):
        while (await stack.call("GET", f"/sandboxes/{id}"))["status"] != status:
            await asyncio.sleep(0.05)


async def networked(stack: Stack) -> None:
    """The whole life of a network, in which a connection is refused."""
    network = await stack.call("POST", "/networks", {"name": "told"})
    path = f"/networks/{network['id']}"
    await stack.call("POST", f"{path}/policies", {"name": "p"})
    await stack.call("POST", f"{path}/isolate")
    ground = Ground(network["id"], "isolated", Direction.OUTBOUND)
    attempt = Attempt(ground, "10.213.0.2", "8.8.8.8", "icmp", None)
    await stack.store.run(lambda s: tell_blocked(s, attempt, 1))
    await stack.call("DELETE", path)


async def remembered(stack: Stack, session_id: str) -> None:
    """What is said in a session, and a window that has an item and goes."""
    said = {"role": "user", "content": "x"}
    await stack.call("POST", f"/sessions/{session_id}/messages", said)
    window = await stack.call("POST", "/context", {"sessionId": session_id, "name": "w"})
    await stack.call("POST", f"/context/{window['id']}/items", {"type": "text", "content": "x"})
    await stack.call("DELETE", f"/context/{window['id']}")


async def everything(stack: Stack) -> None:
    """Let everything happen that the catalogue knows, as far as one host can."""
    await sandboxes(stack)
    session = await stack.session()
    path = f"/sessions/{session['id']}"
    pool = await department(stack, session["id"])
    first = await stack.workflow("wait told", session_id=session["id"], departmentId=pool)
    second = await stack.workflow("say b", "fail 3", session_id=session["id"], departmentId=pool)
    await stack.start(first["id"])
    await stack.until(first["id"], "running")
    await stack.start(second["id"])
    signals = f"/workflows/{first['id']}/signals"
    told = {"message": "half", "percent": 50, "step": 0}
    await stack.call("POST", f"{signals}/progress", told)
    await stack.call("POST", f"{signals}/look", {"at": ["this", {"and": 1.5}]})
    await stack.until(second["id"], "queued")
    stack.gates.open("told")
    await stack.ended(second["id"])

    approved = {"type": "verify", "criteria": "approved"}
    third = await stack.workflow(approved, {"type": "checkpoint"}, session_id=session["id"])
    await stack.start(third["id"])
    await stack.until(third["id"], "waiting")
    await stack.call("POST", f"/workflows/{third['id']}/signals/approve", {"approved": True})
    await stack.ended(third["id"])

    fourth = await stack.workflow("wait held", "wait never", session_id=session["id"])
    await stack.start(fourth["id"])
    await stack.until(fourth["id"], "running")
    await stack.call("POST", f"/workflows/{fourth['id']}/pause")
    stack.gates.open("held")
    await stack.until(fourth["id"], "paused")
    await stack.call("POST", f"/workflows/{fourth['id']}/resume?wait=20")
    await stack.call("POST", f"/workflows/{fourth['id']}/cancel")
    await stack.ended(fourth["id"])
    await stack.run("wait never", session_id=session["id"], config={"timeout": 700})

    await networked(stack)
    await remembered(stack, session["id"])
    await stack.call("PUT", path, {"description": "x"})
    await stack.call("DELETE", path)
    brief = await stack.session(config={"timeout": 1})
    for _ in range(600):
        told_of, _ = await polled(stack.http, after=0, sessionId=brief["id"], limit=100)
        if told_of and told_of[-1]["event"] == "session.expired":
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the session does not expire")


async def test_what_is_told_is_what_the_catalogue_says(stack: Stack) -> None:
    await everything(stack)
    told: set[str] = set()
    cursor = 0
    frame_of: TypeAdapter[Any] = TypeAdapter(EventFrame)

    async def all_told() -> bool:
        nonlocal cursor
        frames, pagination = await polled(stack.http, after=cursor, limit=1000)
        cursor = pagination["nextCursor"]
        for frame in frames:
            event, data = EventType(frame["event"]), frame["data"]
            shape = CATALOGUE[event].data
            assert shape.model_validate(data).model_dump(mode="json", exclude_unset=True) == data
            checked = frame_of.validate_python(frame)
            assert checked.model_dump(mode="json", exclude_unset=True) == frame
            told.add(event)
        return told >= set(EventType) - NOT_HERE and not pagination["hasMore"]

    await until_so(all_told, "each event was told")


def test_the_description_has_the_frames_of_all_events_and_of_the_socket(api: Alone) -> None:
    schemas = api.server.config.app.openapi()["components"]["schemas"]
    shown = {schemas[name]["properties"]["event"]["const"] for name in _frames(schemas)}
    assert shown == set(EventType)
    assert {"AuthFrame", "SubscribeFrame", "AuthOkFrame", "ErrorFrame", "ResyncFrame"} <= set(
        schemas
    )


def _frames(schemas: Data) -> list[str]:
    return [each["$ref"].rpartition("/")[2] for each in schemas["EventFrame"]["oneOf"]]
