"""The files of a run are written by one try of a step alone, however long the one before slept."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from director.activities.heartbeat import Beat
from director.activities.jobs import Definitions, StepJob, load_job
from director.activities.sandboxes import Sandboxes, sandbox_id
from director.blobs.store import LocalBlobs
from director.domain.hosts import Capacity
from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate
from director.sandbox.scripted import ScriptedRuntime
from director.store import hosts, runs, sessions, steps, workflows
from director.store.engine import Store
from director.store.steps import StaleAttemptError, StepKey
from director.store.tables import RunRow

SOMEBODY = Principal(user_id="usr_1", username="a", role=Role.OPERATOR, login_id="lgn_1")
FILES = {f"{number}.txt": str(number) for number in range(5)}


class SlowBlobs(LocalBlobs):
    """Something happens while the contents are read, which are one blob."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.meanwhile: Callable[[], None] = lambda: None
        self.read = 0

    def get(self, hash: str) -> bytes:
        self.read += 1
        if self.read == 1:
            self.meanwhile()
        return super().get(hash)


@pytest.fixture
def sandboxes(store: Store, tmp_path: Path) -> Sandboxes:
    runtime = ScriptedRuntime(tmp_path / "sandboxes")
    return Sandboxes(store, SlowBlobs(tmp_path / "blobs"), runtime, "here", "image")


@pytest.fixture
def run_id(sandboxes: Sandboxes) -> str:
    with sandboxes.store.write() as session:
        hosts.register(session, "here", Capacity())
        parent = sessions.create(session, SOMEBODY, SessionCreate(type="a", name="s")).id
        body = {"sessionId": parent, "name": "w", "workspace": {"files": FILES}}
        body["steps"] = [{"type": "execute", "command": "x"}]
        workflow = workflows.create(session, SOMEBODY, WorkflowCreate.model_validate(body))
        return runs.create(session, SOMEBODY, workflow.id, StartWorkflow()).id


def opened(sandboxes: Sandboxes, run_id: str, activity_attempt: int) -> StepJob:
    key = StepKey(run_id, 0, 1, "t1", activity_attempt)
    with sandboxes.store.write() as session:
        assert steps.open_step(session, key, "here").state == "go"
    with sandboxes.store.read() as session:
        return load_job(session, key, Beat(lambda: True), Definitions())


def is_ready(sandboxes: Sandboxes, run_id: str) -> bool:
    with sandboxes.store.read() as session:
        return session.get_one(RunRow, run_id).workspace_ready


def test_a_try_that_another_has_taken_over_from_writes_no_further_file(
    sandboxes: Sandboxes, run_id: str
) -> None:
    blobs = sandboxes.blobs
    assert isinstance(blobs, SlowBlobs)
    first = opened(sandboxes, run_id, 1)

    def taken_over() -> None:
        opened(sandboxes, run_id, 2)
        time.sleep(0.3)  # as a process that is stopped, or a disk that is slow

    blobs.meanwhile = taken_over
    with pytest.raises(StaleAttemptError):
        sandboxes.prepare(first)

    assert blobs.read == 1
    assert not is_ready(sandboxes, run_id)
    assert list(Path(sandboxes.runtime.workspace(sandbox_id(run_id)).path()).iterdir()) == []


def test_a_try_that_was_taken_over_from_does_not_say_that_the_files_are_there(
    sandboxes: Sandboxes, run_id: str
) -> None:
    blobs = sandboxes.blobs
    assert isinstance(blobs, SlowBlobs)
    blobs.meanwhile = lambda: opened(sandboxes, run_id, 2) and None

    with pytest.raises(StaleAttemptError):
        sandboxes.prepare(opened(sandboxes, run_id, 1))
    assert not is_ready(sandboxes, run_id)

    sandboxes.prepare(opened(sandboxes, run_id, 3))
    assert is_ready(sandboxes, run_id)
    root = Path(sandboxes.runtime.workspace(sandbox_id(run_id)).path())
    assert {path.name: path.read_text() for path in root.iterdir()} == FILES
