"""The files of a run are written by one try of a step alone, however long the one before slept;
and what is made is what is told, and made again where that may help."""

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.networks import ScriptedHost

from director.activities.heartbeat import Beat
from director.activities.jobs import Definitions, StepJob, load_job
from director.activities.reaper import Reaper
from director.activities.sandboxes import Sandboxes, sandbox_id
from director.blobs.store import LocalBlobs
from director.domain.hosts import Capacity
from director.domain.lifetimes import SandboxCreate, SandboxStatus
from director.domain.networks import NetworkCreate
from director.domain.policies import DEFAULT_MEMORY_MIB, EffectivePolicy
from director.domain.sandboxes import SandboxSpec
from director.domain.security import ProfileCreate
from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate
from director.sandbox.runtime import SandboxError
from director.sandbox.scripted import Outcome, ScriptedRuntime
from director.store import hosts, networks, runs, security, sessions, standing, steps, workflows
from director.store import sandboxes as sandbox_rows
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
    return started(sandboxes, {"files": FILES})


def started(sandboxes: Sandboxes, workspace: dict[str, Any]) -> str:
    with sandboxes.store.write() as session:
        hosts.register(session, "here", Capacity())
        parent = sessions.create(session, SOMEBODY, SessionCreate(type="a", name="s")).id
        body = {"sessionId": parent, "name": "w", "workspace": workspace}
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


COMMIT = "0123456789abcdef0123456789abcdef01234567"
URL = "https://git.test/a.git"
CLONED = {".git/HEAD": COMMIT.encode(), "src/a.txt": b"theirs", "b.txt": b"theirs"}


class Cloning:
    """A host on which the clone of a repository is scripted."""

    def __init__(self, store: Store, home: Path) -> None:
        self.outcome = Outcome(stdout=f"{COMMIT}\n".encode(), files=CLONED)
        self.host = ScriptedHost(home=home, hosts={"git.test": ["198.51.100.7"]})
        self.meanwhile: Callable[[], object] = lambda: None
        self.runtime = ScriptedRuntime(home / "sandboxes", self._script)
        blobs, networks = LocalBlobs(home / "blobs"), self.host.networks(store, "here")
        self.sandboxes = Sandboxes(store, blobs, self.runtime, "here", "image", networks)
        git = {"git": {"url": URL, "ref": "main"}, "files": {"src": "ours"}}
        self.run_id = started(self.sandboxes, git)

    def _script(self, _: Sequence[str]) -> Outcome:
        self.meanwhile()
        return self.outcome

    def prepared(self, activity_attempt: int) -> dict[str, str]:
        """Prepare the run's sandbox, and give its files."""
        self.sandboxes.prepare(opened(self.sandboxes, self.run_id, activity_attempt))
        root = Path(self.runtime.workspace(sandbox_id(self.run_id)).path())
        files = (path for path in root.rglob("*") if path.is_file())
        return {str(path.relative_to(root)): path.read_text() for path in files}

    def commit(self) -> str | None:
        with self.sandboxes.store.read() as session:
            view = standing.view(session, session.get_one(RunRow, self.run_id))
        return view.workspace and view.workspace.git.commit

    def left(self) -> list[object]:
        clones = (each for each in self.runtime.sandboxes() if each.id.startswith("clone-"))
        return [*clones, *self.host.bridges, *self.host.home.glob("leased/*")]


@pytest.fixture
def cloning(store: Store, tmp_path: Path) -> Cloning:
    return Cloning(store, tmp_path)


def test_a_repository_lies_below_the_files_and_its_commit_is_told(cloning: Cloning) -> None:
    found = cloning.prepared(1)

    assert found == {".git/HEAD": COMMIT, "b.txt": "theirs", "src": "ours"}
    assert cloning.commit() == COMMIT
    ((clone, command),) = cloning.runtime.ran
    assert clone in cloning.runtime.removed
    assert command.environment["URL"] == URL
    (rules,) = [each for each in cloning.host.order if each.startswith("rules")][:1]
    bridge = rules.replace("rules", "bridge")
    assert cloning.host.order.index(rules) < cloning.host.order.index(bridge)
    assert cloning.left() == []


def test_a_try_that_is_taken_over_from_in_the_middle_of_a_clone_leaves_it_to_the_next(
    cloning: Cloning,
) -> None:
    cloning.outcome = Outcome(files=CLONED, until=threading.Event())
    cloning.meanwhile = lambda: opened(cloning.sandboxes, cloning.run_id, 2)
    with pytest.raises(StaleAttemptError):
        cloning.prepared(1)
    assert (cloning.commit(), cloning.left()) == (None, [])

    cloning.meanwhile = lambda: None
    cloning.outcome = Outcome(stdout=COMMIT.encode(), files=CLONED)
    assert set(cloning.prepared(3)) == {".git/HEAD", "b.txt", "src"}
    assert len(cloning.runtime.ran) == 2


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome(stderr=b"noise\nfatal: no branch x\x1b[2J here\n", exit_code=128), "x [2J here"),
        (Outcome(stderr=b"fatal: could not read Username for 'x'", exit_code=128), "a login is"),
        (Outcome(stderr=b"fatal: URL returned error: 302", exit_code=128), "redirects are not"),
        (Outcome(exit_code=127), "DIRECTOR_GIT_IMAGE"),
        (Outcome(exit_code=1), "git said nothing"),
        (Outcome(stdout=b"$(id)"), "which commit"),
    ],
)
def test_a_clone_that_fails_says_why_and_is_not_tried_again_by_itself(
    cloning: Cloning, outcome: Outcome, words: str
) -> None:
    cloning.outcome = outcome
    with pytest.raises(SandboxError, match=re.escape(words)) as raised:
        cloning.prepared(1)
    assert not raised.value.retryable
    assert (cloning.commit(), cloning.left()) == (None, [])


def test_nothing_is_cloned_where_packets_cannot_be_filtered(cloning: Cloning) -> None:
    cloning.host.broken = "the packet filter is missing"
    with pytest.raises(SandboxError, match="filter is missing") as raised:
        cloning.prepared(1)
    assert not raised.value.retryable
    assert (cloning.runtime.ran, cloning.left()) == ([], [])


def test_what_a_killed_process_has_left_of_a_clone_is_removed(cloning: Cloning) -> None:
    networks = cloning.sandboxes.networks
    assert networks is not None
    spec = SandboxSpec(id="clone-net_1", image="image", owner_id=cloning.run_id)
    reaper = Reaper(None, cloning.sandboxes)  # type: ignore[arg-type]
    with networks.opened("net_1", [], 443):
        cloning.runtime.create(spec)
        held = (cloning.host.home / "leased" / "net_1.json").read_bytes()
        reaper.sweep()
        networks.enforce()
        assert len(cloning.left()) == 3
    cloning.host.bridges["net_1"] = "10.0.0.0/24"
    (cloning.host.home / "leased" / "net_1.json").write_bytes(held)  # and nobody holds it

    reaper.sweep()
    networks.enforce()
    assert cloning.left() == []
