"""Parts of Director are killed in the middle of a run, and the run reaches its end."""

import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from e2e.installation import Data, Installation, until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

LINES = "".join(f"line {number}\n" for number in range(1, 6))
COUNT = "for n in 1 2 3 4 5; do echo line $n | tee -a lines.txt; sleep 1; done"


@pytest.fixture
def whole(director: Installation) -> Iterator[Installation]:
    """The shared Director, with all its parts up before and after."""
    director.heal()
    yield director
    director.heal()


def begin(director: Installation) -> str:
    """Start a run that counts for some seconds, and wait until it has said two lines."""
    file_has_them = {
        "type": "verify",
        "criteria": {"type": "file", "path": "lines.txt", "contains": LINES},
    }
    workflow_id = director.user.workflow(COUNT, file_has_them, "cat lines.txt")
    run = director.user.start(workflow_id)
    until(lambda: "line 2\n" in director.user.output(run, 1), "the command has said two lines")
    return workflow_id


def assert_ran_once(director: Installation, workflow_id: str) -> Data:
    """The run completed, its command ran once, and nothing of it is left."""
    run = director.user.ended(workflow_id)
    assert run["status"] == "completed", run["error"]
    assert director.user.output(run, 1) == LINES, "each line was said once"
    assert director.user.output(run, 3) == LINES, "each line was written once"
    assert run["steps"][0]["result"]["repeats"] == 0
    assert director.containers() == []
    director.user.login()
    return run


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_a_worker_that_ends_in_the_middle_of_a_command_does_not_make_it_run_twice(
    whole: Installation, number: signal.Signals
) -> None:
    workflow_id = begin(whole)
    whole.end("worker", number)
    step = whole.user.status(workflow_id)["steps"][0]
    assert step["status"] == "running", "nobody waited for the command"
    whole.stack.begin("worker")
    assert_ran_once(whole, workflow_id)
    assert "Traceback" not in whole.logs(), "handing over is nothing out of the ordinary"


def test_the_api_is_killed_and_a_listener_that_resumes_misses_nothing_and_hears_nothing_twice(
    whole: Installation,
) -> None:
    with listening(whole) as socket:
        workflow_id = begin(whole)
        heard = list(frames(socket, until_silent=True))
        whole.end("api")
        heard += frames(socket)
    whole.heal()
    run = assert_ran_once(whole, workflow_id)
    with listening(whole, cursor=heard[-1]["id"]) as socket:
        for frame in frames(socket):
            heard.append(frame)
            if frame["data"].get("status") == "completed":
                break
    of_run = [frame for frame in heard if frame["data"].get("runId") == run["runId"]]
    assert [frame["seq"] for frame in of_run] == list(range(1, len(of_run) + 1))
    assert [frame["id"] for frame in heard] == sorted({frame["id"] for frame in heard})


@contextmanager
def listening(director: Installation, **auth: Any) -> Iterator[ClientConnection]:
    """A WebSocket that is authenticated as admin."""
    token = director.user.login()
    with connect(director.stack.api.replace("http", "ws") + "/v1/ws") as socket:
        socket.send(json.dumps({"type": "auth", "token": token, **auth}))
        assert json.loads(socket.recv(timeout=10))["type"] == "auth_ok"
        yield socket


def frames(socket: ClientConnection, *, until_silent: bool = False) -> Iterator[Data]:
    """What comes, until the connection breaks or nothing has come for half a second."""
    try:
        while True:
            yield json.loads(socket.recv(timeout=0.5 if until_silent else 30))
    except TimeoutError:
        assert until_silent, "the frame that was waited for did not come"
    except ConnectionClosed:
        return


def test_the_temporal_server_is_killed_and_the_run_goes_on(whole: Installation) -> None:
    workflow_id = begin(whole)
    whole.end("temporal")
    assert whole.user.status(workflow_id)["status"] == "running", "the database still tells"
    whole.heal()
    run = assert_ran_once(whole, workflow_id)
    assert re.fullmatch(r"[0-9a-f-]{36}", run["temporal"]["runId"])


def test_a_run_that_is_asked_for_while_temporal_is_down_starts_when_it_is_back(
    whole: Installation,
) -> None:
    workflow_id = whole.user.workflow("echo here")
    whole.end("temporal")
    assert whole.user.start(workflow_id)["status"] == "queued"
    whole.heal()
    assert whole.user.ended(workflow_id)["status"] == "completed"


def test_all_parts_are_killed_at_once_and_a_new_director_in_the_same_home_ends_the_run(
    installation: Callable[[], AbstractContextManager[Installation]],
) -> None:
    with installation() as director:
        workflow_id = begin(director)
        for name in ("temporal", "api", "worker"):
            director.end(name)
        assert len(director.containers()) == 1, "the command goes on"
        director.keep = True
    with installation() as director:
        assert_ran_once(director, workflow_id)
