"""Sandboxes that are held, let go on, and stopped."""

import time

import pytest

from director.domain.sandboxes import Cause
from director.sandbox.docker import DockerRuntime

pytestmark = pytest.mark.docker

COUNT = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done"


def test_what_is_held_says_nothing_and_goes_on_where_it_was(runtime, sandbox, command):
    execution = runtime.run(sandbox, command(COUNT))
    while len(execution.read("stdout", 0, 100)) < 10:
        assert execution.wait(0.05) is None
    runtime.pause(sandbox)
    runtime.pause(sandbox)
    held = execution.read("stdout", 0, 10_000)
    assert execution.wait(0.5) is None
    assert execution.read("stdout", 0, 10_000) == held
    runtime.resume(sandbox)
    runtime.resume(sandbox)
    while len(execution.read("stdout", 0, 10_000)) == len(held):
        assert execution.wait(0.05) is None


def test_a_time_out_that_passes_while_it_is_held_ends_the_command_alone_and_afterwards(
    engine, home, installation, sandbox, command
):
    strict = DockerRuntime(engine, home, installation, {}, term_grace_ms=0, supervisor_seconds=2)
    other = strict.run(sandbox, command(COUNT))
    execution = strict.run(sandbox, command("echo ready; sleep 60", timeout_ms=1500))
    while execution.read("stdout", 0, 100) != b"ready\n":
        assert execution.wait(0.05) is None
    strict.pause(sandbox)
    assert execution.wait(5) is None, "nobody in there can keep its time"
    strict.resume(sandbox)
    assert execution.wait(20).cause is Cause.TIMEOUT
    assert other.wait(0.1) is None, "what else runs there goes on"


def test_a_stop_lets_a_command_end_by_itself_and_leaves_the_files(runtime, sandbox, command):
    script = "trap 'echo bye; exit 7' TERM; echo ready; echo kept > kept.txt; sleep 60 & wait"
    execution = runtime.run(sandbox, command(script))
    while execution.read("stdout", 0, 100) != b"ready\n":
        assert execution.wait(0.05) is None
    runtime.stop(sandbox, 10)
    result = execution.wait(5)
    assert (result.exit_code, result.cause) == (7, Cause.EXIT)
    assert execution.read("stdout", 0, 100) == b"ready\nbye\n"
    assert runtime.workspace(sandbox).read("kept.txt", 100) == b"kept\n"
    runtime.stop(sandbox, 10)


def test_a_stop_kills_what_does_not_end_in_time(runtime, sandbox, command):
    execution = runtime.run(sandbox, command("trap '' TERM; echo ready; while :; do :; done"))
    while execution.read("stdout", 0, 100) != b"ready\n":
        assert execution.wait(0.05) is None
    runtime.pause(sandbox)
    begun = time.monotonic()
    runtime.stop(sandbox, 0.5)
    assert time.monotonic() - begun < 20
    assert execution.wait(5).cause is Cause.LOST


def test_there_is_nothing_to_stop_or_hold_where_no_sandbox_is(runtime):
    runtime.stop("sbx_none", 10)
    runtime.pause("sbx_none")
    runtime.resume("sbx_none")
