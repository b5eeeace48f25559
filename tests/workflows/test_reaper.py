"""The reaper removes what is certainly nobody's any more, and nothing else."""

import asyncio
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.server import free_port
from support.stack import Stack
from temporalio.client import WorkflowFailureError

from director.activities.reaper import Reaper
from director.activities.sandboxes import Sandboxes, sandbox_id
from director.blobs.store import LocalBlobs
from director.domain import names
from director.domain.ids import RUN, new_id
from director.domain.sandboxes import SandboxSpec
from director.sandbox.scripted import ScriptedRuntime
from director.store.engine import Store
from director.temporal.client import connect

AT_ONCE = timedelta(0)


class Reaped:
    """A reaper of sandboxes that belong to the runs of a stack, on the stack's host."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.runtime = ScriptedRuntime(folder / "reaped")

    def sandbox(self, run_id: str, epoch: int = 0) -> str:
        """Make a sandbox of a run; gives its id."""
        spec = SandboxSpec(id=sandbox_id(run_id), image="i", owner_id=run_id, epoch=epoch)
        return self.runtime.create(spec).id

    def reaper(self, age: timedelta = AT_ONCE, **parts) -> Reaper:
        store = parts.get("store", self.stack.store)
        blobs = LocalBlobs(self.stack.settings.home / "blobs")
        sandboxes = Sandboxes(store, blobs, self.runtime, "scripted", "i")
        return Reaper(parts.get("client", self.stack.temporal), sandboxes, age=age)

    def left(self) -> list[str]:
        """The ids of the sandboxes that are there."""
        return [sandbox.id for sandbox in self.runtime.sandboxes()]


@pytest.fixture
def reaped(stack: Stack, tmp_path: Path) -> Reaped:
    return Reaped(stack, tmp_path)


async def ended_run(stack: Stack) -> str:
    """A run that has ended, in the database and in Temporal."""
    run_id = str((await stack.run("say x"))["runId"])
    await stack.temporal.get_workflow_handle(run_id).result()
    return run_id


async def test_the_sandbox_of_an_ended_run_is_removed_once_it_is_old_enough(
    stack: Stack, reaped: Reaped
) -> None:
    sandbox = reaped.sandbox(await ended_run(stack))

    await reaped.reaper(timedelta(seconds=60)).reap()
    assert reaped.left() == [sandbox], "a young one is spared"

    await reaped.reaper().reap()
    assert reaped.left() == []


async def test_the_sandbox_of_an_open_run_is_spared_however_old_it_is(
    stack: Stack, reaped: Reaped
) -> None:
    workflow = await stack.workflow("wait reaper")
    await stack.start(workflow["id"])
    run = await stack.until(workflow["id"], "running")
    sandbox = reaped.sandbox(run["runId"])

    await reaped.reaper().reap()
    stack.gates.open("reaper")
    await stack.ended(workflow["id"])

    assert reaped.left() == [sandbox]


async def test_the_sandbox_of_an_unknown_run_is_spared_while_temporal_has_it_open(
    stack: Stack, reaped: Reaped
) -> None:
    run_id = new_id(RUN)
    handle = await stack.temporal.start_workflow(
        names.RUN_WORKFLOW, id=run_id, task_queue=f"nobody-{uuid.uuid4()}"
    )
    sandbox = reaped.sandbox(run_id)

    await reaped.reaper().reap()
    assert reaped.left() == [sandbox]

    await handle.terminate()
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    await reaped.reaper().reap()
    assert reaped.left() == []


async def test_the_sandbox_of_a_run_that_nobody_knows_is_removed(reaped: Reaped) -> None:
    reaped.sandbox(new_id(RUN))

    await reaped.reaper().reap()

    assert reaped.left() == []


async def test_a_sandbox_of_an_older_epoch_is_removed_although_it_is_young(
    stack: Stack, reaped: Reaped
) -> None:
    workflow = await stack.workflow("wait epoch")
    await stack.start(workflow["id"])
    run = await stack.until(workflow["id"], "running")
    reaped.sandbox(run["runId"], epoch=-1)

    await reaped.reaper(timedelta(seconds=60)).reap()
    stack.gates.open("epoch")
    await stack.ended(workflow["id"])

    assert reaped.left() == []


async def test_a_sandbox_that_was_made_anew_meanwhile_is_not_the_one_to_remove(
    reaped: Reaped,
) -> None:
    sandbox = reaped.sandbox(new_id(RUN), epoch=1)

    reaped.runtime.remove(sandbox, epoch=0)
    assert reaped.left() == [sandbox]

    reaped.runtime.remove(sandbox, epoch=1)
    assert reaped.left() == []


@pytest.mark.parametrize("away", ["temporal", "database"])
async def test_nothing_is_removed_while_temporal_or_the_database_does_not_answer(
    stack: Stack, reaped: Reaped, tmp_path: Path, away: str
) -> None:
    sandbox = reaped.sandbox(await ended_run(stack))
    nowhere = f"127.0.0.1:{free_port()}"
    if away == "temporal":
        reaper = reaped.reaper(client=await connect(nowhere, "shared", lazy=True))
    else:
        store = Store(f"sqlite:///{tmp_path / 'none' / 'director.db'}")
        reaper = reaped.reaper(store=store)

    with capture_logs() as logs:
        for _ in range(3):
            await reaper.reap()

    assert reaped.left() == [sandbox]
    said = [entry["event"] for entry in logs if "reaper" in entry["event"]]
    assert said == ["the reaper removes nothing"]


async def test_one_sandbox_that_cannot_be_removed_keeps_no_other_from_it(
    stack: Stack, reaped: Reaped
) -> None:
    stuck, loose = sorted(new_id(RUN) for _ in range(2))
    for run_id in (stuck, loose):
        reaped.sandbox(run_id)
    reaped.runtime.stuck.add(sandbox_id(stuck))

    with capture_logs() as logs:
        await reaped.reaper().reap()
    assert reaped.left() == [sandbox_id(stuck)]
    assert "sandbox not removed" in [entry["event"] for entry in logs]

    reaped.runtime.stuck.clear()
    await asyncio.gather(*(reaped.reaper().reap() for _ in range(3)))
    assert reaped.left() == []
