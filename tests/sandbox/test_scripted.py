"""The runtime for tests behaves as the real one where workflows can tell."""

import threading

import pytest

from director.domain.sandboxes import Cause, Command, SandboxSpec
from director.sandbox.runtime import Execution, SandboxError, SandboxNotFoundError, SandboxRuntime
from director.sandbox.scripted import Outcome, ScriptedRuntime

SPEC = SandboxSpec(id="sbx_1", image="node:22", owner_id="run_1")


@pytest.fixture
def sandboxed(tmp_path):
    """A runtime with a sandbox, for a script."""

    def sandboxed(script=None):
        runtime = ScriptedRuntime(tmp_path, script) if script else ScriptedRuntime(tmp_path)
        runtime.create(SPEC)
        return runtime

    return sandboxed


def command(id="exec_1", timeout_ms=20_000):
    return Command(id=id, argv=["npm", "test"], timeout_ms=timeout_ms)


def test_it_is_a_runtime(sandboxed):
    runtime: SandboxRuntime = sandboxed()
    execution: Execution = runtime.run("sbx_1", command())
    assert execution.wait(0).exit_code == 0


def test_the_script_decides_what_comes_out(sandboxed):
    outcome = Outcome(stdout=b"out", stderr=b"err!", exit_code=3, files={"a/b": b"x"})
    runtime = sandboxed(lambda argv: outcome if argv == ["npm", "test"] else Outcome())
    execution = runtime.run("sbx_1", command())
    result = execution.wait(1)
    assert (result.exit_code, result.stdout_bytes, result.stderr_bytes) == (3, 3, 4)
    assert (execution.read("stdout", 1, 9), execution.read("stderr", 0, 3)) == (b"ut", b"err")
    assert runtime.workspace("sbx_1").read("a/b", 9) == b"x"


def test_a_second_worker_attaches_to_the_same_command(sandboxed):
    go = threading.Event()
    runtime = sandboxed(lambda _: Outcome(until=go))
    assert runtime.run("sbx_1", command()).wait(0.01) is None
    attached = runtime.run("sbx_1", command())
    go.set()
    assert attached.wait(5).cause is Cause.EXIT
    assert [ran.id for _, ran in runtime.ran] == ["exec_1"]


@pytest.mark.parametrize("end", ["kill", "timeout", "lose", "remove"])
def test_a_long_command_can_be_ended(sandboxed, end):
    runtime = sandboxed(lambda _: Outcome(until=threading.Event(), files={"a": b""}))
    execution = runtime.run("sbx_1", command(timeout_ms=20 if end == "timeout" else 20_000))
    if end != "timeout":
        {
            "kill": execution.kill,
            "lose": lambda: runtime.lose("sbx_1"),
            "remove": lambda: runtime.remove("sbx_1"),
        }[end]()
    causes = {
        "kill": Cause.KILLED,
        "timeout": Cause.TIMEOUT,
        "lose": Cause.LOST,
        "remove": Cause.LOST,
    }
    assert execution.wait(5).cause is causes[end]
    assert execution.wait(0).exit_code == 137


def test_create_adopts_and_remove_is_idempotent(sandboxed, tmp_path):
    runtime = sandboxed()
    assert not runtime.create(SPEC).created
    (found,) = runtime.sandboxes()
    assert (found.id, found.owner, found.epoch) == ("sbx_1", "run_1", 0)
    runtime.remove("sbx_1")
    runtime.remove("sbx_1")
    assert (runtime.sandboxes(), list(tmp_path.iterdir())) == ([], [])
    with pytest.raises(SandboxNotFoundError):
        runtime.run("sbx_1", command())


def test_another_epoch_is_made_anew_and_the_older_one_ends(sandboxed):
    runtime = sandboxed(lambda _: Outcome(until=threading.Event(), files={"a": b""}))
    execution = runtime.run("sbx_1", command())
    later = SPEC.model_copy(update={"epoch": 1})
    assert [runtime.create(later).created for _ in range(2)] == [True, False]
    assert execution.wait(5).cause is Cause.LOST
    assert [sandbox.epoch for sandbox in runtime.sandboxes()] == [1]


def test_an_image_can_be_missing(tmp_path):
    runtime = ScriptedRuntime(tmp_path, missing_images={"node:22"})
    with pytest.raises(SandboxError, match="node:22"):
        runtime.create(SPEC)
