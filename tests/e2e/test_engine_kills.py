"""The Docker engine is killed under running commands, and with live-restore nothing is lost."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from e2e.installation import Data, Installation, containers, remove_containers
from support.engine import IMAGE, OwnEngine
from support.postgres import DATABASES, NewDatabase
from support.waiting import until

pytestmark = [
    pytest.mark.docker,
    pytest.mark.e2e,
    pytest.mark.xdist_group("engine"),
]

Tell = Callable[[str, object], None]
Worker = Callable[[], subprocess.Popen[bytes]]


class Place(NamedTuple):
    """A Director on an engine of its own."""

    engine: OwnEngine
    director: Installation


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnEngine]:
    if os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("unshare"):
        pytest.skip("only root, with dockerd installed, starts an engine of its own")
    with OwnEngine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture(scope="module")
def place(
    engine: OwnEngine, new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    home = tmp_path_factory.mktemp("home")
    with new_database(home) as url:
        environ = {"DOCKER_HOST": engine.address, "DIRECTOR_DATABASE_URL": url}
        with Installation(home, IMAGE, workers=2, environ=environ) as director:
            yield Place(engine, director)


def begin(director: Installation, lines: int) -> Data:
    """Start a run that appends a line a second to a file and then shows the file."""
    numbers = " ".join(map(str, range(1, lines + 1)))
    count = f"for n in {numbers}; do echo line $n | tee -a lines.txt; sleep 1; done"
    return director.user.start(director.user.workflow(count, "cat lines.txt"))


def assert_ran_once(director: Installation, begun: Data, lines: int) -> float:
    """The run completed and its command ran once; gives when, in seconds of the clock."""
    run = director.user.ended(begun["workflowId"])
    assert run["status"] == "completed", run["error"]
    whole = "".join(f"line {n}\n" for n in range(1, lines + 1))
    assert director.user.output(run, 1) == whole, "each line was said once"
    assert director.user.output(run, 2) == whole, "each line was written once"
    assert run["steps"][0]["result"]["repeats"] == 0
    return datetime.fromisoformat(run["completedAt"]).timestamp()


@pytest.mark.kills
def test_the_engine_is_killed_under_commands_and_all_that_was_asked_meanwhile_happens(
    place: Place, record_property: Tell
) -> None:
    engine, director = place
    user = director.user
    counted, ending, cancelled = (begin(director, lines) for lines in (7, 3, 60))
    for run in (counted, ending, cancelled):
        until(lambda run=run: "line 1\n" in user.output(run, 1), "the command counts")
    engine.kill()
    asked = begin(director, 1)
    user.call("POST", f"/workflows/{cancelled['workflowId']}/cancel")
    director.end("worker")
    director.stack.begin("worker")
    time.sleep(4)  # one command ends meanwhile
    engine.start()
    back = time.time()

    for name, run, lines in [("ended", ending, 3), ("asked", asked, 1), ("counted", counted, 7)]:
        ended = assert_ran_once(director, run, lines)
        record_property(f"{name}, seconds after the engine is back", round(ended - back, 2))
    dead = user.ended(cancelled["workflowId"])
    ended = datetime.fromisoformat(dead["completedAt"]).timestamp()
    record_property("cancelled, seconds after the engine is back", round(ended - back, 2))
    assert dead["status"] == "cancelled"
    assert director.containers() == []
    until(director.stack.ready, "the worker that started without an engine serves")


@pytest.mark.parametrize("database", DATABASES[:1], indirect=True, scope="session")
def test_the_engine_is_killed_at_random_moments_while_sandboxes_are_made_and_removed(
    place: Place,
) -> None:
    engine, director = place
    dice = random.Random(20263)
    for _ in range(5):
        runs = [begin(director, 1) for _ in range(3)]
        time.sleep(dice.uniform(0.0, 1.6))
        engine.kill()
        time.sleep(dice.uniform(0.0, 0.5))
        engine.start()
        for run in runs:
            assert_ran_once(director, run, 1)
        assert director.containers() == []
        until(lambda: engine.shims() == [], "nothing is left of what the engine has forgotten")


@pytest.mark.kills
def test_everything_and_the_engine_are_killed_at_once(place: Place) -> None:
    engine, director = place
    run = begin(director, 6)
    until(lambda: "line 2\n" in director.user.output(run, 1), "the command counts")
    engine.kill()
    for name in ("worker", "worker-2", "api", "temporal"):
        os.kill(director.stack.pid(name), signal.SIGKILL)
    until(lambda: len(director.stack.ended()) == 4, "all have ended")
    engine.start()
    director.heal()
    director.user.login()
    assert_ran_once(director, run, 6)
    assert director.containers() == []


@contextmanager
def second_host(director: Installation, engine: OwnEngine, home: Path) -> Iterator[Worker]:
    """A way to start a worker of another host of the same Director: with an engine and a home of
    its own, and the same database and blobs."""
    url = director.environ.get("DIRECTOR_DATABASE_URL")
    environ = {
        **os.environ,
        **director.environ,
        "DIRECTOR_HOME": str(home),
        "DIRECTOR_DATABASE_URL": url or f"sqlite:///{director.home / 'director.db'}",
        "DIRECTOR_TEMPORAL_ADDRESS": f"127.0.0.1:{director.stack.ports.temporal}",
        "DIRECTOR_SANDBOX_IMAGE": IMAGE,
        "DOCKER_HOST": engine.address,
    }
    (home / "blobs").symlink_to(director.home / "blobs")
    begun: list[subprocess.Popen[bytes]] = []

    def worker() -> subprocess.Popen[bytes]:
        with (home / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "director.worker"]
            begun.append(subprocess.Popen(command, env=environ, stdout=log, stderr=log))
        return begun[-1]

    try:
        yield worker
    finally:
        for process in begun:
            process.kill()
            process.wait()
        remove_containers(home, {"DOCKER_HOST": engine.address})


def test_a_host_that_is_given_up_and_comes_back_removes_what_runs_there(
    director: Installation, engine: OwnEngine, tmp_path: Path
) -> None:
    user = director.user
    user.token()
    (first,) = [each["id"] for each in user.call("GET", "/hosts") if each["living"]]

    def found() -> str | None:
        others = {each["id"] for each in user.call("GET", "/hosts") if each["living"]} - {first}
        return min(others, default=None)

    with second_host(director, engine, tmp_path) as worker:
        process = worker()
        second = until(found, "the second host lives")
        user.call("PUT", f"/hosts/{first}", {"draining": True})
        try:
            counting = "n=0; while :; do n=$((n+1)); echo $n > count; sleep 0.1; done"
            body = {"command": counting, "resourceLimits": {"memory": 64}}
            sandbox = user.call("POST", "/sandboxes?wait=30", body)
        finally:
            user.call("PUT", f"/hosts/{first}", {"draining": False})
        path, folder = f"/sandboxes/{sandbox['id']}", tmp_path / "sandboxes" / sandbox["id"]
        assert (sandbox["status"], sandbox["host"]["id"]) == ("running", second)
        until((folder / "workspace" / "count").exists, "it counts")

        process.kill()
        until(lambda: not user.call("GET", path)["host"]["reachable"], "its host is away")
        refused = user.http.post(f"{path}/execute", json={"command": "true", "timeout": 600_000})
        assert refused.status_code == 503, refused.text
        given_up = user.call("DELETE", f"/hosts/{second}")
        assert given_up["sandboxes"] == [sandbox["id"]]
        ended = user.call("GET", path)
        assert (ended["status"], ended["error"]["code"]) == ("failed", "HOST_LOST")
        count = folder / "workspace" / "count"
        before = count.read_text()
        until(lambda: count.read_text() != before, "nobody has ended it there yet")

        worker()
        until(found, "the second host is back")
        until(lambda: not folder.exists(), "its files are gone")
        assert containers(tmp_path, {"DOCKER_HOST": engine.address}) == []
