"""A command belongs to its sandbox, not to the process that started it."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.waiting import until

from director.domain.sandboxes import Cause
from director.sandbox.docker import DockerRuntime

pytestmark = pytest.mark.docker

ATTACHER = """
import sys
from pathlib import Path
import docker
from director.domain.sandboxes import Command
from director.sandbox.docker import DockerRuntime
home, installation, sandbox, command = sys.argv[1:]
runtime = DockerRuntime(docker.from_env(), Path(home), installation, {})
execution = runtime.run(sandbox, Command.model_validate_json(command))
print("attached", flush=True)
execution.wait(60)
"""


@pytest.fixture
def attach(home, installation):
    """Run a command from a process of its own, which dies with the test."""
    workers = []

    def attach(sandbox, command):
        arguments = [str(home), installation, sandbox, command.model_dump_json()]
        process = subprocess.Popen(
            [sys.executable, "-c", ATTACHER, *arguments], stdout=subprocess.PIPE
        )
        workers.append(process)
        assert process.stdout.readline() == b"attached\n"
        return process

    yield attach
    for worker in workers:
        worker.kill()
        worker.wait()
        worker.stdout.close()


def test_a_command_goes_on_when_its_worker_is_killed(
    attach, engine, home, installation, command, ended, run, sandbox
):
    long = command(
        "echo once >> runs; echo before; until [ -e go ]; do sleep 0.01; done; echo after"
    )
    worker = attach(sandbox, long)
    next_runtime = DockerRuntime(engine, home, installation, {})
    until(lambda: next_runtime.workspace(sandbox).kind("runs"), "it runs")
    worker.send_signal(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    execution = next_runtime.run(sandbox, long)
    assert execution.wait(0.05) is None
    run(sandbox, "touch go")
    outcome = ended(execution)
    assert (outcome.code, outcome.stdout) == (0, b"before\nafter\n")
    assert run(sandbox, "cat runs").stdout == b"once\n"


def test_a_time_out_is_kept_while_no_worker_lives(attach, runtime, command, ended, sandbox):
    limited = command("touch ran; sleep 70", timeout_ms=1500)
    worker = attach(sandbox, limited)
    until(lambda: runtime.workspace(sandbox).kind("ran"), "it runs")
    worker.kill()
    worker.wait()
    assert ended(runtime.run(sandbox, limited)).cause is Cause.TIMEOUT


def test_two_attachers_start_a_command_once(attach, runtime, command, ended, run, sandbox):
    counted = command("echo once >> runs; sleep 0.2; echo out")
    workers = [attach(sandbox, counted) for _ in range(2)]
    outcomes = [ended(runtime.run(sandbox, counted)) for _ in range(2)]
    assert [worker.wait(30) for worker in workers] == [0, 0]
    assert {outcome.stdout for outcome in outcomes} == {b"out\n"}
    assert run(sandbox, "cat runs").stdout == b"once\n"


def test_many_threads_start_a_command_once(runtime, command, run, sandbox):
    for _ in range(10):
        counted = command("echo once >> runs")
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda c: runtime.run(sandbox, c).wait(30), [counted] * 4))
        assert results == [results[0]] * 4
        assert results[0].exit_code == 0
    assert run(sandbox, "wc -l < runs").stdout == b"10\n"


def test_an_ended_command_is_not_run_again(runtime, command, ended, run, sandbox):
    counted = command("echo once >> runs; echo out")
    first, second = (ended(runtime.run(sandbox, counted)) for _ in range(2))
    assert (first.result, first.stdout) == (second.result, second.stdout)
    assert run(sandbox, "cat runs").stdout == b"once\n"


def test_the_environments_values_do_not_stay_on_disk(home, runtime, command, ended, sandbox):
    secret = "canary-5f0c"
    ended(runtime.run(sandbox, command("true", environment={"TOKEN": secret})))
    found = subprocess.run(
        ["grep", "-rl", "--devices=skip", secret, home / "sandboxes" / sandbox],
        check=False,
        capture_output=True,
        text=True,
    )
    assert found.stdout == ""
