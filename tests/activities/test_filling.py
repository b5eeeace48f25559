"""The files of a run are written by one try of a step alone, however long the one before slept;
and what is made is what is told, and made again where that may help."""

import io
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.networks import ScriptedHost

from director.activities.heartbeat import Beat
from director.activities.jobs import Definitions, StepJob, load_job
from director.activities.sandboxes import Sandboxes, sandbox_id
from director.blobs.store import LocalBlobs
from director.domain.hosts import Capacity
from director.domain.lifetimes import SandboxCreate, SandboxStatus
from director.domain.networks import NetworkCreate
from director.domain.policies import DEFAULT_MEMORY_MIB, EffectivePolicy
from director.domain.security import ProfileCreate
from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate
from director.sandbox.runtime import SandboxError
from director.sandbox.scripted import ScriptedRuntime
from director.store import hosts, networks, runs, security, sessions, steps, workflows
from director.store import sandboxes as sandbox_rows
from director.store.engine import Store
from director.store.steps import StaleAttemptError, StepKey
from director.store.tables import RunRow

SOMEBODY = Principal(user_id="usr_1", username="a", role=Role.OPERATOR, login_id="lgn_1")
FILES = {f"{number}.txt": str(number) for number in range(5)}


class SlowBlobs(LocalBlobs):
    """Something happens while the second content is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.meanwhile: Callable[[], None] = lambda: None
        self.read = 0

    def open(self, hash: str) -> io.BufferedReader:
        self.read += 1
        if self.read == 2:
            self.meanwhile()
        return super().open(hash)


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

    assert blobs.read == 2
    assert not is_ready(sandboxes, run_id)


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


def test_what_is_told_of_a_sandbox_is_what_it_was_made_with_though_more_was_enforced_meanwhile(
    sandboxes: Sandboxes, run_id: str
) -> None:
    blobs = sandboxes.blobs
    assert isinstance(blobs, SlowBlobs)

    def killed() -> None:
        raise KeyboardInterrupt

    blobs.meanwhile = killed
    sandboxes = replace(sandboxes, disk_mib=64)
    with pytest.raises(KeyboardInterrupt):
        sandboxes.prepare(opened(sandboxes, run_id, 1))
    blobs.meanwhile = lambda: None
    with sandboxes.store.write() as session:
        strict = {"name": "p", "level": "low", "resourceLimits": {"memory": 64}}
        profile = security.create(session, SOMEBODY, ProfileCreate.model_validate(strict))
        run = session.get_one(RunRow, run_id)
        security.enforced(session, run.session_id, profile.id)

    sandboxes.prepare(opened(sandboxes, run_id, 2))
    with sandboxes.store.read() as session:
        told = EffectivePolicy.model_validate(session.get_one(RunRow, run_id).effective_policy)
    assert isinstance(sandboxes.runtime, ScriptedRuntime)
    made = sandboxes.runtime.spec(sandbox_id(run_id))
    assert told.resource_limits.memory == made.memory_mib == DEFAULT_MEMORY_MIB
    assert told.resource_limits.disk == made.disk_mib == 64, "as large as whoever runs it says"


@pytest.mark.parametrize(
    ("status", "again"), [(SandboxStatus.CREATING, False), (SandboxStatus.RUNNING, True)]
)
def test_a_packet_filter_that_fails_once_ends_no_sandbox_that_is_there(
    sandboxes: Sandboxes, run_id: str, status: SandboxStatus, again: bool
) -> None:
    host = ScriptedHost()
    sandboxes = replace(sandboxes, networks=host.networks(sandboxes.store, "here"))
    with sandboxes.store.write() as session:
        network = networks.create(session, SOMEBODY, NetworkCreate(name="n"))
        body = SandboxCreate(network_mode=network.id)
        row = sandbox_rows.create(session, SOMEBODY, body)
        row.status = status
        session.add(row)
    host.broken = "the kernel is busy"
    with pytest.raises(SandboxError, match="busy") as failed:
        sandboxes.spec_of(row)
    assert failed.value.retryable is again
    host.broken = ""
    assert sandboxes.spec_of(row).network is not None
