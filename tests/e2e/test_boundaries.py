"""A worker is killed at each boundary of a run: before and after every activity and every commit,
also between a step's outcome that is written and the activity that has not told it yet."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e.installation import Data, Installation
from e2e.listening import frames, listening

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(300)]

LANES = 6
"""Directors that walk at the same time: most of a takeover is waiting for a heartbeat."""

TESTS = Path(__file__).parents[1]
DYING_WORKER = [sys.executable, "-m", "support.dying_worker"]

STEPS = [
    "echo one >> ran.txt",
    {"type": "verify", "criteria": {"type": "file", "path": "ran.txt", "contains": "one\n"}},
    "echo two >> ran.txt",
    {"type": "checkpoint"},
    "echo three >> ran.txt; cat ran.txt",
]
ONCE = "one\ntwo\nthree\n"


class Lane:
    """One Director, through which one run after the other goes."""

    def __init__(self, director: Installation) -> None:
        self.director, self.home = director, director.home

    def boundaries(self) -> list[str]:
        """Where a run passes by, as a run tells that nothing happens to."""
        self.assert_runs_once("nothing")
        return (self.home / "trace").read_text().splitlines()

    def walk(self, boundaries: Iterator[str], lock: threading.Lock) -> list[str]:
        """Have the worker killed at one boundary after the other, each in a run of its own."""
        walked = []
        while True:
            with lock:
                boundary = next(boundaries, None)
            if boundary is None:
                return walked
            (self.home / "death").write_text(boundary)
            self.assert_runs_once(boundary)
            died = self.home / "died"
            assert died.read_text() == boundary, f"no worker came by: {boundary}"
            died.unlink()
            walked.append(boundary)

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
        assert self.director.containers() == [], boundary


@pytest.fixture
def lanes(sandbox_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Lane]]:
    """Directors with a worker that dies on demand."""
    path = f"{TESTS.parent}:{TESTS}"
    with ExitStack() as stack:
        found = []
        for _ in range(LANES):
            home = tmp_path_factory.mktemp("home")
            director = Installation(home, sandbox_image, environ={"PYTHONPATH": path})
            director.stack.commands["worker"] = DYING_WORKER
            found.append(Lane(stack.enter_context(director)))
        yield found


def ends(frame: Data) -> bool:
    """Whether a frame tells the end of a step."""
    return "endedStep" in frame["data"]


def test_a_worker_is_killed_at_each_boundary_and_every_run_happens_once(lanes: list[Lane]) -> None:
    boundaries = lanes[0].boundaries()
    for step in range(5):
        assert f"before run_step {step}" in boundaries
        assert f"after run_step {step}" in boundaries
    assert {"before settle", "after settle"} <= set(boundaries)
    rest, lock = iter(boundaries), threading.Lock()
    with ThreadPoolExecutor(LANES) as threads:
        walks = [threads.submit(lane.walk, rest, lock) for lane in lanes]
        walked = [boundary for walk in walks for boundary in walk.result()]
    assert sorted(walked) == sorted(boundaries)
