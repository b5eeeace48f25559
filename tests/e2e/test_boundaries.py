"""A worker is killed at each boundary of a run: before and after every activity and every commit,
also between a step's outcome that is written and the activity that has not told it yet."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from e2e.installation import Data, Installation
from e2e.listening import frames, listening
from support.postgres import NewDatabase

from director.activities.sandboxes import sandbox_id

pytestmark = [
    pytest.mark.docker,
    pytest.mark.e2e,
    pytest.mark.kills,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("boundaries"),
]

LANES = 6
"""Runs at the same time: most of a takeover is waiting for a heartbeat."""

WORKERS = 3
"""A run whose worker dies for another's boundary goes on elsewhere as well."""

TESTS = Path(__file__).parents[1]
DYING_WORKERS = [sys.executable, "-m", "support.dying_worker", str(WORKERS)]

STEPS = [
    "echo one >> ran.txt",
    {"type": "verify", "criteria": {"type": "file", "path": "ran.txt", "contains": "one\n"}},
    "echo two >> ran.txt",
    {"type": "checkpoint"},
    "echo three >> ran.txt; cat ran.txt",
]
ONCE = "one\ntwo\nthree\n"


class Walk:
    """Runs of a Director whose workers die at boundaries."""

    def __init__(self, director: Installation) -> None:
        self.director, self.home = director, director.home
        for folder in ("death", "died"):
            (self.home / folder).mkdir()

    def boundaries(self) -> list[str]:
        """Where a run passes by, as a run tells that nothing happens to."""
        self.assert_runs_once("nothing")
        return (self.home / "trace").read_text().splitlines()

    def go(self, boundary: str) -> None:
        """Have a worker killed at a boundary, while a run passes by."""
        (self.home / "death" / boundary).touch()
        self.assert_runs_once(boundary)
        assert (self.home / "died" / boundary).exists(), f"no worker came by: {boundary}"

    def assert_runs_once(self, boundary: str) -> None:
        """A run completes, and all that is seen of it from outside happened once."""
        user = self.director.user
        session = user.session()
        workflow_id = user.workflow(*STEPS, session_id=session)
        with listening(self.director) as socket:
            begun = user.start(workflow_id)
            heard = []
            for frame in frames(socket):
                if frame["data"].get("runId") == begun["runId"]:
                    heard.append(frame)
                    if frame["data"].get("status") in ("completed", "failed"):
                        break
        run = user.ended(workflow_id)
        assert run["status"] == "completed", f"{boundary}: {run['error']}"
        assert user.output(run, 5) == ONCE, f"{boundary}: each command ran once"
        assert [frame["seq"] for frame in heard] == list(range(1, len(heard) + 1)), boundary
        ended = [frame["data"]["endedStep"]["index"] for frame in heard if ends(frame)]
        assert ended == list(range(5)), f"{boundary}: each step ended once"
        made = user.call("GET", f"/checkpoints?sessionId={session}")
        assert [point["status"] for point in made] == ["ready"], f"{boundary}: one checkpoint"
        left = sandbox_id(run["runId"])
        assert not any(left in name for name in self.director.containers()), boundary


@pytest.fixture
def walk(
    sandbox_image: str, new_database: NewDatabase, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Walk]:
    """A Director with workers that die on demand."""
    home = tmp_path_factory.mktemp("home")
    with new_database(home) as url:
        environ = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}", "DIRECTOR_DATABASE_URL": url}
        director = Installation(home, sandbox_image, environ=environ)
        director.stack.commands["worker"] = DYING_WORKERS
        with director:
            yield Walk(director)


def ends(frame: Data) -> bool:
    """Whether a frame tells the end of a step."""
    return "endedStep" in frame["data"]


def test_a_worker_is_killed_at_each_boundary_and_every_run_happens_once(walk: Walk) -> None:
    boundaries = walk.boundaries()
    for step in range(5):
        assert f"before run_step {step}" in boundaries
        assert f"after run_step {step}" in boundaries
    assert {"before settle", "after settle"} <= set(boundaries)
    assert len(set(boundaries)) == len(boundaries)
    with ThreadPoolExecutor(LANES) as threads:
        list(threads.map(walk.go, boundaries))
    died = {path.name for path in (walk.home / "died").iterdir()}
    assert died == set(boundaries)
    assert walk.director.containers() == []
