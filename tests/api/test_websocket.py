"""The WebSocket as its own client meets it."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from support.alone import DONE, PROGRESS, Alone, alone
from support.stack import ADMIN_PASSWORD, Data, Stack, logged_in
from support.waiting import until_so
from websockets.asyncio.client import ClientConnection, connect
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin
from websockets.uri import parse_uri

from director.api.frames import Frame
from director.api.listeners import Timing, pump
from director.api.ws import MAX_FRAME
from director.domain.events import Wanted
from director.domain.times import utc_now
from director.store import events

Frames = list[Data]


def token_of(http: httpx.AsyncClient) -> str:
    """The access token that a client sends."""
    return http.headers["Authorization"].removeprefix("Bearer ")


async def read(socket: ClientConnection) -> Data:
    """The next frame."""
    return dict(json.loads(await asyncio.wait_for(socket.recv(), 60)))


async def send(socket: ClientConnection, **frame: Any) -> None:
    """Send a frame."""
    await socket.send(json.dumps(frame))


async def closed(socket: ClientConnection) -> int:
    """Read until the server closes; gives the code."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await asyncio.wait_for(socket.recv(), 60)
    assert socket.close_code is not None
    return socket.close_code


def opened(url: str) -> Any:
    """Connect without a word."""
    return connect(url.replace("http", "ws") + "/v1/ws", max_size=None)


@asynccontextmanager
async def listening(stack: Stack, http: httpx.AsyncClient) -> AsyncIterator[ClientConnection]:
    """Connect as somebody."""
    async with opened(stack.url) as socket:
        await send(socket, type="auth", token=token_of(http))
        assert (await read(socket))["type"] == "auth_ok"
        yield socket


async def until(socket: ClientConnection, workflow_id: str, event: str) -> Frames:
    """All frames of a workflow up to an event."""
    frames: Frames = []
    while not frames or frames[-1]["event"] != event:
        frame = await read(socket)
        if frame["data"].get("workflowId") == workflow_id:
            frames.append(frame)
    return frames


async def test_a_good_token_is_answered_with_the_connection_and_the_cursor(stack: Stack) -> None:
    async with opened(stack.url) as socket:
        await send(socket, type="auth", token=token_of(stack.http))
        frame = await read(socket)
    assert frame["type"] == "auth_ok"
    assert frame["data"]["connectionId"].startswith("con_")
    assert isinstance(frame["data"]["cursor"], int)


@pytest.mark.parametrize("token", ["garbage", "", "a.b.c"])
async def test_a_wrong_token_is_told_and_closed_with_4401(stack: Stack, token: str) -> None:
    async with opened(stack.url) as socket:
        await send(socket, type="auth", token=token)
        frame = await read(socket)
        assert (frame["type"], bool(frame["data"]["message"])) == ("auth_error", True)
        assert await closed(socket) == 4401


@pytest.mark.parametrize(
    "frame", ['{"type": "subscribe"}', "garbage", "[]", '{"type": "auth"}', "", b"\x00\xff"]
)
async def test_another_first_frame_is_told_and_closed_with_4401(
    stack: Stack, frame: str | bytes
) -> None:
    async with opened(stack.url) as socket:
        await socket.send(frame)
        assert (await read(socket))["type"] == "auth_error"
        assert await closed(socket) == 4401


async def test_a_refresh_token_is_no_access_token(stack: Stack) -> None:
    body = {"username": "admin", "password": ADMIN_PASSWORD}
    pair = await stack.call("POST", "/auth/login", body)
    async with opened(stack.url) as socket:
        await send(socket, type="auth", token=pair["refreshToken"])
        assert (await read(socket))["type"] == "auth_error"
        assert await closed(socket) == 4401


@pytest.fixture(scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Alone]:
    """An API that waits for nobody."""
    folder: Path = tmp_path_factory.mktemp("impatient")
    timing = Timing(auth_seconds=0.1, send_seconds=0.2, quiet_seconds=0.1)
    async with alone(folder, timing) as running:
        yield running


async def test_who_says_nothing_in_time_is_closed_with_4408(impatient: Alone) -> None:
    async with opened(impatient.url) as socket:
        assert await closed(socket) == 4408


async def test_a_revoked_login_closes_its_socket_and_no_other(impatient: Alone) -> None:
    leaving = await logged_in(impatient.url, "admin")
    async with opened(impatient.url) as staying, opened(impatient.url) as socket:
        for each, http in ((staying, impatient.http), (socket, leaving)):
            await send(each, type="auth", token=token_of(http))
            assert (await read(each))["type"] == "auth_ok"

        assert (await leaving.post("/auth/logout")).status_code == 200

        assert await closed(socket) == 4401
        await impatient.http.post("/sessions", json={"type": "a", "name": "x"})
        assert (await read(staying))["type"] == "session_update"
    await leaving.aclose()


async def test_another_users_token_on_an_open_socket_is_closed_with_4403(
    stack: Stack, operator: httpx.AsyncClient
) -> None:
    async with stack.listening() as socket:
        await send(socket, type="auth", token=token_of(operator))
        assert await closed(socket) == 4403


async def test_a_fresh_token_of_the_same_user_is_taken(stack: Stack) -> None:
    await stack.session()
    fresh = await logged_in(stack.url, "admin")
    async with stack.listening() as socket:
        await send(socket, type="auth", token=token_of(fresh))
        while (frame := await read(socket))["type"] != "auth_ok":
            pass
        assert frame["data"]["cursor"] > 0, "from where to go on after a break"
    await fresh.aclose()


async def test_a_runs_frames_tell_its_story_in_order(stack: Stack) -> None:
    workflow = await stack.workflow("say one", {"type": "verify", "criteria": "no errors"})
    async with stack.listening() as socket:
        run = await stack.start(workflow["id"])
        frames = await until(socket, workflow["id"], "workflow.completed")

    assert {frame["type"] for frame in frames} == {"workflow_progress"}
    assert [frame["event"] for frame in frames] == [
        "workflow.queued",
        "workflow.started",
        "step.started",
        "step.ended",
        "step.started",
        "step.ended",
        "workflow.completed",
    ]
    for frame in frames:
        assert frame["data"]["runId"] == run["runId"]
        assert frame["data"]["sessionId"] == workflow["sessionId"]
        assert frame["data"]["totalSteps"] == 2
        assert frame["timestamp"].endswith("Z")
    data = [frame["data"] for frame in frames]
    assert [each["step"] for each in data] == [0, 0, 0, 1, 1, 2, 2]
    assert [each["progress"] for each in data] == [0, 0, 0, 50, 50, 99, 100]
    assert [each["status"] for each in data] == ["queued", *["running"] * 5, "completed"]
    began = data[1]["currentStep"]
    assert (began["type"], began["status"]) == ("execute", "running")
    assert began["startTime"].endswith("Z")
    assert data[4]["currentStep"]["type"] == "verify"
    assert data[6]["result"]["success"] is True


async def test_ids_ascend_and_the_seq_of_a_run_has_no_gap(stack: Stack) -> None:
    workflow = await stack.workflow("say one", "say two", "say three")
    async with stack.listening() as socket:
        await stack.start(workflow["id"])
        frames = await until(socket, workflow["id"], "workflow.completed")
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    ids = [frame["id"] for frame in frames]
    assert ids == sorted(set(ids))


async def test_a_session_is_told_with_its_metrics(stack: Stack) -> None:
    async with stack.listening() as socket:
        session = await stack.session()
        body = {"sessionId": session["id"], "name": "a", "domain": "d"}
        await stack.call("POST", "/departments", body)
        await stack.call("PUT", f"/sessions/{session['id']}", {"status": "paused"})
        await stack.call("DELETE", f"/sessions/{session['id']}")
        frames: Frames = []
        while len(frames) < 4:
            frame = await read(socket)
            if frame["data"].get("sessionId") == session["id"]:
                frames.append(frame)

    assert {frame["type"] for frame in frames} == {"session_update"}
    told = [(frame["event"], frame["data"]["status"]) for frame in frames]
    assert told == [
        ("session.created", "active"),
        ("session.metrics", "active"),
        ("session.updated", "paused"),
        ("session.deleted", "deleted"),
    ]
    assert frames[1]["data"]["metrics"]["activeDepartments"] == 1
    assert frames[1]["data"]["metrics"]["totalTasks"] == 0


async def test_nobody_hears_of_what_is_not_theirs(
    stack: Stack, operator: httpx.AsyncClient
) -> None:
    async with listening(stack, operator) as theirs, stack.listening() as admins:
        await stack.session(name="the admin's")
        mine = (await operator.post("/sessions", json={"type": "a", "name": "x"})).json()["data"]
        first = await read(theirs)
        assert first["data"]["sessionId"] == mine["id"], "the admin's came before it"
        while (frame := await read(admins))["data"]["sessionId"] != mine["id"]:
            pass
        assert frame["type"] == "session_update", "admins see all"


async def test_a_subscription_narrows_and_an_empty_one_widens_again(stack: Stack) -> None:
    one, other = await stack.session(), await stack.session()

    async def change(session: Data) -> None:
        await stack.call("PUT", f"/sessions/{session['id']}", {"description": "x"})

    async with stack.listening() as socket:
        await send(socket, type="subscribe", sessionId=one["id"])
        await heard(socket)
        await change(other)
        await change(one)
        assert (await read(socket))["data"]["sessionId"] == one["id"]

        await send(socket, type="subscribe", types=["workflow_progress"])
        await heard(socket)
        await change(one)
        workflow = await stack.workflow("say hi", session_id=one["id"])
        await stack.start(workflow["id"])
        frames = await until(socket, workflow["id"], "workflow.completed")
        assert frames[0]["event"] == "workflow.queued"

        second = await stack.workflow("say hi", session_id=one["id"])
        await send(socket, type="subscribe", workflowId=second["id"])
        await heard(socket)
        await change(one)
        await stack.call("POST", f"/workflows/{workflow['id']}/start?wait=30")
        await stack.start(second["id"])
        assert (await read(socket))["data"]["workflowId"] == second["id"]

        await send(socket, type="subscribe")
        await heard(socket)
        await change(other)
        while (await read(socket))["data"].get("sessionId") != other["id"]:
            pass


async def heard(socket: ClientConnection) -> None:
    """Wait until the frames before were read: an answer to a wrong one comes after them."""
    await socket.send("{}")
    while (await read(socket))["type"] != "error":
        pass


async def test_a_replay_from_a_cursor_has_no_gap_and_nothing_twice(stack: Stack) -> None:
    workflow = await stack.workflow("say one", "say two", "wait replay", "say three")
    async with stack.listening() as socket:
        await stack.start(workflow["id"])
        before = await until(socket, workflow["id"], "workflow.started")

    await stack.until(workflow["id"], "running")
    async with stack.listening(cursor=before[-1]["id"]) as socket:
        stack.gates.open("replay")
        after = await until(socket, workflow["id"], "workflow.completed")

    frames = before + after
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    async with stack.listening(cursor=0) as socket:
        whole = await until(socket, workflow["id"], "workflow.completed")
    assert whole == frames


async def test_listeners_that_come_while_much_happens_miss_nothing(stack: Stack) -> None:
    session = await stack.session()
    path = f"/sessions/{session['id']}"

    async def listen(cursor: int) -> list[int]:
        seen: list[int] = []
        async with stack.listening(cursor=cursor) as socket:
            while not seen or seen[-1] < 41:
                frame = await read(socket)
                if frame["data"].get("sessionId") == session["id"]:
                    seen.append(frame["seq"])
        return seen

    async with opened(stack.url) as socket:
        await send(socket, type="auth", token=token_of(stack.http))
        cursor = (await read(socket))["data"]["cursor"]
    listeners: list[asyncio.Task[list[int]]] = []
    for number in range(40):
        await stack.call("PUT", path, {"name": f"number {number}"})
        if number % 10 == 0:
            listeners.append(asyncio.create_task(listen(cursor)))

    for seen in await asyncio.gather(*listeners):
        assert seen in (list(range(1, 42)), list(range(2, 42)))


async def test_a_cursor_that_was_never_given_asks_for_a_new_beginning(stack: Stack) -> None:
    async with stack.listening(cursor=10**15) as socket:
        frame = await read(socket)
        assert (frame["type"], isinstance(frame["data"]["cursor"], int)) == (
            "resync_required",
            True,
        )
        session = await stack.session()
        while (frame := await read(socket))["data"].get("sessionId") != session["id"]:
            pass
        assert frame["type"] == "session_update", "it goes on with what is new"


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ("garbage", "body"),
        ("[]", "body"),
        ("null", "body"),
        ("{}", "type"),
        ('{"type": "publish"}', "type"),
        ('{"type": "subscribe", "types": "workflow_progress"}', "types"),
        ('{"type": "subscribe", "types": ["workflow_progres"]}', "types.0"),
        ('{"type": "subscribe", "sessionID": "x"}', "sessionID"),
        ('{"type": "subscribe", "workflowId": 5}', "workflowId"),
        ('{"type": "auth", "token": "x", "cursor": "5"}', "cursor"),
        ('{"type": "auth", "token": "x", "cursor": -1}', "cursor"),
        ('{"type": "subscribe", "sessionId": NaN}', "body"),
        ('{"type": "subscribe", "sessionId": "\\ud800"}', "body"),
        ("[" * 100, "body"),
        (b"\x00\xff", "body"),
        ("", "body"),
    ],
)
async def test_a_wrong_frame_is_answered_and_survived(
    stack: Stack, frame: str | bytes, field: str
) -> None:
    async with stack.listening() as socket:
        await socket.send(frame)
        while (answer := await read(socket))["type"] != "error":
            pass
        assert answer["data"]["details"]["field"] == field
        assert field in answer["data"]["message"] or field == "body"
        session = await stack.session()
        while (await read(socket))["data"].get("sessionId") != session["id"]:
            pass


async def test_a_binary_frame_is_read_like_text(stack: Stack) -> None:
    async with opened(stack.url) as socket:
        await socket.send(json.dumps({"type": "auth", "token": token_of(stack.http)}).encode())
        assert (await read(socket))["type"] == "auth_ok"


async def test_a_frame_of_half_a_mebibyte_is_refused_and_survived(stack: Stack) -> None:
    async with stack.listening() as socket:
        await send(socket, type="subscribe", sessionId="x" * (512 * 1024))
        while (answer := await read(socket))["type"] != "error":
            pass
        assert str(MAX_FRAME) in answer["data"]["message"]
        await stack.session()
        assert (await read(socket))["type"] in ("session_update", "workflow_progress")


async def test_the_value_of_a_wrong_token_is_never_echoed(stack: Stack) -> None:
    async with stack.listening() as socket:
        await send(socket, type="auth", token=["canary77"])
        while (answer := await read(socket))["type"] != "error":
            pass
        assert "canary77" not in json.dumps(answer)


async def authenticated(running: Alone, socket: ClientConnection, **auth: Any) -> Data:
    """Log in on a socket; gives what it is greeted with."""
    await send(socket, type="auth", token=running.token, **auth)
    frame = await read(socket)
    assert frame["type"] == "auth_ok"
    return dict(frame["data"])


async def taken(socket: ClientConnection, last: int) -> Frames:
    """The frames of events, up to the one with an id."""
    frames: Frames = []
    while not frames or frames[-1].get("id") != last:
        frames.append(await read(socket))
    return frames


async def test_a_listener_that_takes_nothing_is_closed_with_4008_and_its_cursor(
    impatient: Alone,
) -> None:
    await impatient.unheard()
    async with connect(
        impatient.url.replace("http", "ws") + "/v1/ws", max_size=None, max_queue=1
    ) as socket:
        await authenticated(impatient, socket)
        for _ in range(8):
            newest = await impatient.tell("run_large", [DONE] * 50, size=40_000)
        await impatient.unheard()
        frames = []
        with contextlib.suppress(ConnectionClosed):
            while True:
                frames.append(await read(socket))

    assert socket.close_code == 4008
    reason = json.loads(socket.close_reason or "")
    assert reason == {"reason": "too slow", "cursor": frames[-1]["id"]}
    assert frames[-1]["id"] < newest
    async with opened(impatient.url) as socket:
        await authenticated(impatient, socket, cursor=reason["cursor"])
        frames += await taken(socket, newest)
    assert [frame["seq"] for frame in frames] == list(range(1, 401))


async def test_a_listener_that_falls_far_behind_gets_the_newest_progress_and_every_end(
    tmp_path: Path,
) -> None:
    subjects = [f"run_{number}" for number in range(5)]
    async with alone(tmp_path, Timing(send_seconds=60)) as running:
        address = running.url.replace("http", "ws") + "/v1/ws"
        async with connect(address, max_size=None, max_queue=1) as socket:
            await authenticated(running, socket)
            for number in range(6):
                for subject in subjects:
                    kinds = [PROGRESS] * 79 + [DONE]
                    newest = await running.tell(subject, kinds, size=8_000)
                await until_so(lambda: running.hub.position == newest, f"round {number}")  # noqa: B023
            frames = await taken(socket, newest)

    assert len(frames) < 5 * 6 * 80, "some were coalesced"
    for subject in subjects:
        seen = [frame for frame in frames if frame["data"]["runId"] == subject]
        counted = 0
        for frame in seen:
            assert frame["seq"] - frame.get("coalesced", 0) == counted + 1
            counted = frame["seq"]
            assert "coalesced" not in frame or frame["event"] == "workflow.progress"
        assert counted == 480
        assert sum(frame["event"] == "workflow.completed" for frame in seen) == 6


async def test_what_is_pushed_and_what_must_wait_come_once_and_in_order(impatient: Alone) -> None:
    sent: list[bytes] = []
    free = True

    def push(message: bytes) -> bool:
        if free:
            sent.append(message)
        return free

    async def write(frame: Frame) -> None:
        sent.append(frame.message)

    login = jwt.decode(impatient.token, options={"verify_signature": False})["sid"]
    with impatient.hub.listening(login, Wanted(types=frozenset({DONE})), None) as listener:
        listener.push = push
        pumping = asyncio.create_task(pump(listener, write, 5))
        for number in range(40):
            free = number % 3 != 0
            newest = await impatient.tell("run_mixed", [DONE, PROGRESS, DONE][: 1 + number % 3])
            if number % 4 == 0:
                await until_so(lambda: listener.cursor == newest, "it has all")  # noqa: B023
        await until_so(lambda: listener.cursor == newest, "it has all")
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)

    stored = await impatient.store.fetch(lambda s: events.after(s, 0, 1000))
    wanted = [each.id for each in stored if (each.subject, each.type) == ("run_mixed", DONE)]
    assert [int(id) for id in re.findall(rb'"id":(\d+),"seq"', b"".join(sent))] == wanted


async def test_a_listener_that_cannot_be_pushed_to_keeps_nobody_from_hearing(
    impatient: Alone,
) -> None:
    def broken(_: bytes) -> bool:
        raise RuntimeError("unable to perform operation on a closed transport")

    async with opened(impatient.url) as socket:
        login = jwt.decode(impatient.token, options={"verify_signature": False})["sid"]
        with impatient.hub.listening(login, Wanted(), None) as listener:
            listener.push = broken
            handed_out = asyncio.create_task(listener.next())
            await authenticated(impatient, socket)
            last = await impatient.tell("run_broken", [DONE])
            heard_by = await taken(socket, last)
            frames = await asyncio.wait_for(handed_out, 60)
    assert [frame["id"] for frame in heard_by] == [frame.cursor for frame in frames] == [last]


async def test_a_peer_that_is_gone_without_a_word_is_let_go(tmp_path: Path) -> None:
    async with alone(tmp_path, ping_seconds=0.2) as running:
        uri = parse_uri(running.url.replace("http", "ws") + "/v1/ws")
        protocol = ClientProtocol(uri)
        reader, writer = await asyncio.open_connection(uri.host, uri.port)
        protocol.send_request(protocol.connect())
        writer.writelines(protocol.data_to_send())
        protocol.receive_data(await reader.readuntil(b"\r\n\r\n"))
        protocol.send_text(json.dumps({"type": "auth", "token": running.token}).encode())
        writer.writelines(protocol.data_to_send())
        await until_so(lambda: running.hub.count == 1, "it listens")

        await running.unheard()  # no ping was answered

        writer.close()


@pytest.mark.parametrize(
    ("back", "seqs"), [(0, []), (1, [5]), (3, [3, 4, 5]), (5, [1, 2, 3, 4, 5])]
)
async def test_a_cursor_is_the_exact_place_to_go_on_from(
    impatient: Alone, back: int, seqs: list[int]
) -> None:
    subject = f"run_boundary{back}"
    newest = await impatient.tell(subject, [DONE] * 5)
    await until_so(lambda: impatient.hub.position == newest, "it was read")
    async with opened(impatient.url) as socket:
        greeting = await authenticated(impatient, socket, cursor=newest - back)
        last = await impatient.tell(subject, [DONE])
        frames = await taken(socket, last)
    assert greeting["cursor"] == newest - back
    assert [frame["seq"] for frame in frames] == [*seqs, 6]


@pytest.mark.parametrize("forgotten", [1, 3])
async def test_who_comes_back_from_before_what_is_kept_must_begin_anew(
    tmp_path: Path, forgotten: int
) -> None:
    async with alone(tmp_path) as running:
        await running.tell("run_a", [DONE] * 5)
    async with alone(tmp_path) as running:
        await running.store.run(lambda s: events.purge(s, utc_now(), forgotten))
        async with opened(running.url) as socket:
            await authenticated(running, socket, cursor=forgotten)
            kept = await taken(socket, 5)
        async with opened(running.url) as socket:
            await authenticated(running, socket, cursor=forgotten - 1)
            frame = await read(socket)
            last = await running.tell("run_a", [DONE])
            (following,) = await taken(socket, last)
    assert [frame["id"] for frame in kept] == list(range(forgotten + 1, 6))
    assert frame == {"type": "resync_required", "data": {"cursor": 5, "oldest": forgotten}}
    assert following["seq"] == 6, "it goes on with what is new"


async def test_a_page_of_another_origin_is_closed_with_4403(tmp_path: Path) -> None:
    async with alone(tmp_path, DIRECTOR_CORS_ORIGINS="https://app.example.com") as running:
        address = running.url.replace("http", "ws") + "/v1/ws"
        async with connect(address, origin=Origin("https://evil.example.com")) as socket:
            assert await closed(socket) == 4403
            assert "DIRECTOR_CORS_ORIGINS" in (socket.close_reason or "")
        for origin in (Origin("https://app.example.com"), None):
            async with connect(address, origin=origin) as socket:
                await authenticated(running, socket)


async def test_any_origin_may_connect_where_none_is_configured(impatient: Alone) -> None:
    address = impatient.url.replace("http", "ws") + "/v1/ws"
    async with connect(address, origin=Origin("https://app.example.com")) as socket:
        await authenticated(impatient, socket)


async def test_a_subscription_to_events_gets_those_only(impatient: Alone) -> None:
    async with opened(impatient.url) as socket:
        await authenticated(impatient, socket)
        await send(socket, type="subscribe", types=["workflow.completed", "session_update"])
        await heard(socket)
        last = await impatient.tell("run_narrow", [PROGRESS, DONE, PROGRESS, DONE])
        frames = await taken(socket, last)
    assert [frame["event"] for frame in frames] == ["workflow.completed"] * 2
