"""When a part that has ended is started again, and what is said about it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from director.cli.stack import Ports, Stack, StackError
from director.cli.watch import LIVED_SECONDS, LONGEST_PAUSE, Restarts, Watch
from director.machine.engine import alive

KILLED, FAILED = -9, 1


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pauses(restarts: Restarts, clock: Clock, code: int, lived: float, times: int) -> list[float]:
    """The pauses before a part starts again that lives so long each time."""
    found = []
    for _ in range(times):
        restarts.began("worker")
        clock.now += lived
        found.append(restarts.pause("worker", code))
    return found


def test_a_part_that_is_killed_starts_at_once_however_often(clock: Clock) -> None:
    assert pauses(Restarts(clock), clock, KILLED, lived=2.0, times=50) == [0.0] * 50


def test_a_part_that_is_killed_as_soon_as_it_starts_does_so_once_a_second(clock: Clock) -> None:
    assert pauses(Restarts(clock), clock, KILLED, lived=0.0, times=50) == [1.0] * 50


def test_a_part_that_fails_starts_ever_later_and_never_not_at_all(clock: Clock) -> None:
    found = pauses(Restarts(clock), clock, FAILED, lived=0.1, times=500)
    assert found[:4] == [0.5, 1.0, 2.0, 4.0]
    assert set(found[5:]) == {LONGEST_PAUSE}


def test_a_part_that_has_worked_for_a_while_is_a_new_one(clock: Clock) -> None:
    restarts = Restarts(clock)
    pauses(restarts, clock, FAILED, lived=0.1, times=9)
    assert pauses(restarts, clock, FAILED, lived=LIVED_SECONDS, times=2) == [0.5, 0.5]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Callable[[str], Stack]]:
    """Make a stack whose only part, `worker`, is a shell script."""
    made: list[Stack] = []

    def stack(script: str) -> Stack:
        (tmp_path / "logs").mkdir(exist_ok=True)
        commands = {name: ["sh", "-c", script] for name in ("api", "temporal", "worker")}
        made.append(Stack(tmp_path, Ports(), {}, commands=commands))
        return made[-1]

    yield stack
    for one in made:
        one.stop()


def until_ended(stack: Stack) -> None:
    """Wait until the part has ended, without telling the stack."""
    os.waitid(os.P_PID, stack.pid("worker"), os.WEXITED | os.WNOWAIT)


def test_a_part_that_was_killed_is_told_and_started_once(stack: Callable[[str], Stack]) -> None:
    running, said = stack("exec sleep 60"), []
    watch = Watch(running, said.append)
    running.begin("worker")
    before = running.pid("worker")
    watch.look()
    assert said == []
    os.kill(before, signal.SIGKILL)
    until_ended(running)
    watch.look()
    watch.look()
    assert running.pid("worker") != before
    log = running.log("worker")
    assert said == [f"worker was killed by SIGKILL and is started again now; its log: {log}"]


def test_a_part_that_fails_is_started_when_its_pause_is_over(
    stack: Callable[[str], Stack], clock: Clock
) -> None:
    running, said = stack("exit 3"), []
    watch = Watch(running, said.append, clock)
    running.begin("worker")
    until_ended(running)
    before = running.pid("worker")
    for _ in range(3):
        watch.look()
    assert running.pid("worker") == before, "its pause is not over"
    assert len(said) == 1
    assert "worker ended with code 3 and is started again in 0.5 s" in said[0]
    clock.now += 0.5
    watch.look()
    assert running.pid("worker") != before


def test_a_stack_whose_part_never_starts_gives_up_with_its_last_words(
    stack: Callable[[str], Stack],
) -> None:
    starts = "echo started; echo it cannot be; exit 3"
    with pytest.raises(StackError, match=r"ended with 3\n(?s:.*)it cannot be"), stack(starts):
        pass


def test_parts_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = f"""
import os, pathlib
from director.cli.stack import Ports, Stack
home = pathlib.Path({str(tmp_path)!r})
(home / "logs").mkdir()
stack = Stack(home, Ports(), {{}}, commands={{"worker": ["sleep", "60"]}})
stack.begin("worker")
print(stack.pid("worker"), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == KILLED
    part, deadline = int(done.stdout), time.monotonic() + 10
    while alive(part):
        assert time.monotonic() < deadline, f"process {part} lives on"
        time.sleep(0.02)
