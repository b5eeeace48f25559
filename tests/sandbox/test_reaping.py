"""The reaper on a real engine: what it removes is gone, and what is not ours stays."""

import uuid
from datetime import timedelta

import pytest

from director.activities.reaper import Reaper
from director.activities.sandboxes import Sandboxes, sandbox_id
from director.blobs.store import LocalBlobs
from director.domain.ids import RUN, new_id
from director.domain.sandboxes import SandboxSpec
from director.sandbox.docker import DockerRuntime

pytestmark = pytest.mark.docker


@pytest.fixture
def another(engine, image, tmp_path):
    """The runtime of another installation on the same engine."""
    runtime = DockerRuntime(engine, tmp_path / "another", f"test-{uuid.uuid4().hex[:12]}", {})
    yield runtime
    for sandbox in runtime.sandboxes():
        runtime.remove(sandbox.id)


@pytest.fixture
def ours(engine, tmp_path):
    """A runtime of an installation that has no other sandboxes."""
    runtime = DockerRuntime(engine, tmp_path / "ours", f"test-{uuid.uuid4().hex[:12]}", {})
    yield runtime
    for sandbox in runtime.sandboxes():
        runtime.remove(sandbox.id)


async def test_the_reaper_removes_our_leftovers_and_spares_those_of_other_installations(
    stack, ours, another, image, tmp_path
):
    mine, theirs = new_id(RUN), new_id(RUN)
    for runtime, run_id in ((ours, mine), (another, theirs)):
        runtime.create(SandboxSpec(id=sandbox_id(run_id), image=image, owner_id=run_id))
    sandboxes = Sandboxes(stack.store, LocalBlobs(tmp_path / "blobs"), ours, "scripted", image)
    young = Reaper(stack.temporal, sandboxes)
    old = Reaper(stack.temporal, sandboxes, age=timedelta(0))

    await young.reap()
    assert [each.owner for each in ours.sandboxes()] == [mine]

    await old.reap()
    assert ours.sandboxes() == []
    assert [each.owner for each in another.sandboxes()] == [theirs]
