"""Output through the WebSocket, beside the events of the connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from support.following import Told, Whole
from support.stack import Data, Stack
from support.waiting import until_so
from support.writing import BINARY, TEXT, Step, begun
from websockets.asyncio.client import ClientConnection

from director.api.hub import Hub
from director.api.listeners import SlowError
from director.api.outputs import Parts
from director.api.ws_outputs import MOST, OutputSubscriptions, SubscribeOutputFrame
from director.blobs.store import LocalBlobs
from director.domain.base import Json
from director.domain.users import Principal, Role

ADMIN = Principal(user_id="usr_1", username="a", role=Role.ADMIN, login_id="lgn_1")


class Subscriber:
    """A client that follows outputs and takes no notice of events."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.whole = Whole()

    async def subscribe(self, step: Step, **more: Any) -> None:
        """Follow the step of a run."""
        frame = {"type": "subscribe_output", "runId": step.run["runId"], "step": 1}
        await self.socket.send(json.dumps(frame | more))

    async def next(self) -> Data:
        """The next frame that is of an output or an error."""
        while True:
            frame: Data = json.loads(await asyncio.wait_for(self.socket.recv(), 60))
            if frame["type"] == "error":
                return frame
            if frame["type"].startswith("step_output"):
                kind = frame["type"].removeprefix("step_").removeprefix("output_")
                self.whole.add(Told(kind, frame["data"], frame["data"]["cursor"]))
                return frame

    async def rest(self) -> Whole:
        """All that comes until the end of the output."""
        while not self.whole.ended:
            assert (await self.next())["type"] != "error"
        return self.whole


@pytest.fixture
async def step(stack: Stack) -> AsyncIterator[Step]:
    step = await begun(stack)
    yield step
    await step.end()


@pytest.fixture
async def subscriber(stack: Stack) -> AsyncIterator[Subscriber]:
    async with stack.listening() as socket:
        yield Subscriber(socket)


async def test_a_subscriber_gets_each_piece_as_it_comes_and_the_end(
    step: Step, subscriber: Subscriber
) -> None:
    await subscriber.subscribe(step)
    for content, stream in ((TEXT, "stdout"), (BINARY, "stderr"), (b"more\r", "stdout")):
        await step.write(content, stream)
        frame = await subscriber.next()
        assert frame["type"] == "step_output"
        data = frame["data"]
        assert (data["stream"], data["runId"]) == (stream, step.run["runId"])
        assert (data["step"], data["stepId"], data["attempt"]) == (1, "step-1", 1)
        assert data["workflowId"] == step.workflow["id"]
    await step.end()
    end = await subscriber.next()

    assert end["type"] == "step_output_end"
    assert (end["data"]["status"], end["data"]["exitCode"]) == ("completed", 0)
    assert subscriber.whole.of("stdout") == TEXT + b"more\r"
    assert subscriber.whole.of("stderr") == BINARY


async def test_a_subscriber_resumes_at_a_cursor_and_may_ask_by_workflow_and_step_id(
    step: Step, subscriber: Subscriber, stack: Stack
) -> None:
    await step.write(b"one\n")
    await subscriber.subscribe(step)
    cursor = (await subscriber.next())["data"]["cursor"]
    await step.write(b"two\n")
    await step.end()
    asked = {"workflowId": step.workflow["id"], "step": "step-1", "cursor": cursor}
    async with stack.listening() as socket:
        again = Subscriber(socket)
        again.whole.add(subscriber.whole.told[0])
        await socket.send(json.dumps({"type": "subscribe_output", **asked}))
        frame = await again.next()

    assert (frame["data"]["text"], frame["data"]["offset"]) == ("two\n", 4)


async def test_a_subscriber_is_told_when_the_command_runs_again(
    step: Step, subscriber: Subscriber
) -> None:
    await step.write(b"first\n")
    await subscriber.subscribe(step)
    await subscriber.next()
    await step.forget()
    await step.write(b"second\n")

    assert (await subscriber.next())["type"] == "step_output_restart"
    await step.end()
    assert (await subscriber.rest()).of("stdout") == b"second\n"


async def test_who_unsubscribes_hears_no_more_of_it_and_of_others_still(
    stack: Stack, step: Step, subscriber: Subscriber
) -> None:
    other = await begun(stack)
    await subscriber.subscribe(step)
    await subscriber.subscribe(other)
    await step.write(b"one\n")
    assert (await subscriber.next())["data"]["runId"] == step.run["runId"]
    ended = {"type": "unsubscribe_output", "runId": step.run["runId"], "step": "step-1"}
    await subscriber.socket.send(json.dumps(ended))
    await subscriber.subscribe(step, runId="run_none")  # refused after what was sent before it
    assert (await subscriber.next())["type"] == "error"
    await step.write(b"two\n")
    await other.write(b"y", "stderr")
    assert (await subscriber.next())["data"]["text"] == "y"
    await other.end()


async def test_more_outputs_than_a_connection_follows_are_refused(
    stack: Stack, subscriber: Subscriber, step: Step
) -> None:
    steps = [f"wait {step.run['runId']}" for _ in range(MOST + 1)]
    workflow = await stack.workflow(*steps)
    run = await stack.start(workflow["id"])
    for number in range(1, MOST + 2):
        frame = {"type": "subscribe_output", "runId": run["runId"], "step": number}
        await subscriber.socket.send(json.dumps(frame))
    refused = await subscriber.next()
    await stack.call("POST", f"/workflows/{workflow['id']}/cancel?wait=30")

    assert refused["type"] == "error"
    assert "at most: end one with unsubscribe_output" in refused["data"]["message"]


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        ({"runId": "run_none", "step": 1}, "run 'run_none' does not exist"),
        ({"step": 1}, "runId: is required"),
        ({"step": 2}, "step '2' does not exist"),
        ({"step": 1, "attempt": 9}, "attempt '9' does not exist"),
        ({"step": 1, "cursor": "x"}, "cursor"),
        ({"step": 1, "stream": "both"}, "stream"),
    ],
)
async def test_a_wrong_wish_is_told_and_the_connection_goes_on(
    step: Step, subscriber: Subscriber, frame: Data, told: str
) -> None:
    mine = {} if "is required" in told else {"runId": step.run["runId"]}
    await subscriber.socket.send(json.dumps({"type": "subscribe_output"} | mine | frame))
    error = await subscriber.next()
    assert error["type"] == "error"
    assert told in error["data"]["message"]

    await step.write(b"hi")
    await subscriber.subscribe(step)
    assert (await subscriber.next())["data"]["text"] == "hi"


async def test_nobody_subscribes_to_the_output_of_others(
    stack: Stack, step: Step, operator: httpx.AsyncClient
) -> None:
    token = operator.headers["Authorization"].removeprefix("Bearer ")
    async with stack.listening(token=token) as socket:
        other = Subscriber(socket)
        await other.subscribe(step)
        error = await other.next()
        await other.subscribe(step, workflowId=step.workflow["id"])
        again = await other.next()

    assert error["data"]["message"] == f"run {step.run['runId']!r} does not exist"
    assert again == error


async def test_a_client_that_takes_nothing_is_read_for_no_further_and_given_up(
    step: Step,
) -> None:
    stack, taken, failed = step.stack, [], []
    for _ in range(20):
        await step.write(b"x" * 100_000)

    async def send(kind: str, data: Json) -> None:
        taken.append(data["offset"])
        await asyncio.sleep(3600)

    hub = Hub(stack.store)
    async with hub.running():
        parts = Parts(stack.store, LocalBlobs(stack.settings.home / "blobs"), hub)
        outputs = OutputSubscriptions(parts, None, send, 0.2, failed.append)
        frame = {"type": "subscribe_output", "runId": step.run["runId"], "step": 1}
        await outputs.take(SubscribeOutputFrame.model_validate(frame), ADMIN)
        await until_so(lambda: failed, "it is given up")
        await outputs.close()

    assert taken == [0]
    assert [type(error) for error in failed] == [SlowError]
