"""Cancelled means dead: seconds later nothing of the command lives, whatever it has started."""

import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.installation import Data, Installation
from support.waiting import until

from director.machine.engine import alive

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.alone, pytest.mark.kills]

PROMISED_SECONDS = 3.0
"""So long after the cancel no process of the command lives, and its sandbox is gone."""

CHILDREN = 24

Tell = Callable[[str, object], None]


def clinging(mark: str) -> str:
    """A command whose children ignore TERM, leave its session and forget its environment, and
    one of which goes on making more, up to a number."""
    stay = f"sleep 1{mark}"
    return f"""
trap '' TERM HUP INT
{stay} & setsid {stay} & setsid env -i {stay} &
(setsid sh -c 'trap "" TERM; {stay}; true' &)
(setsid sh -c 'for n in $(seq {CHILDREN}); do (setsid {stay} &) ; sleep 0.2; done; {stay}' &)
echo going
wait; {stay}
"""


def living(mark: str) -> list[int]:
    """The processes on this host that carry the mark, seen from outside of any sandbox."""
    wanted, found = mark.encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "cmdline").read_bytes() and alive(int(process.name)):
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("temporal", ["up", "away"])
def test_three_seconds_after_a_cancel_no_process_of_the_command_lives_and_the_sandbox_is_gone(
    whole: Installation, temporal: str, record_property: Tell
) -> None:
    run, mark = clinging_run(whole)
    if temporal == "away":
        whole.end("temporal")
    asked = time.monotonic()
    cancelled = threading.Thread(target=cancel, args=(whole, run))
    cancelled.start()
    until(lambda: not living(mark), "no process lives")
    dead = time.monotonic() - asked
    until(lambda: whole.containers() == [], "the sandbox is gone")
    gone = time.monotonic() - asked
    cancelled.join()
    record_property("seconds until no process lives", round(dead, 2))
    record_property("seconds until the sandbox is gone", round(gone, 2))
    whole.heal()
    assert_cancelled(whole, run, mark)
    record_property("seconds until it is told", round(time.monotonic() - asked, 2))
    assert max(dead, gone) <= PROMISED_SECONDS


def test_a_cancel_while_no_worker_lives_is_done_by_the_next_one(
    whole: Installation, record_property: Tell
) -> None:
    run, mark = clinging_run(whole)
    whole.end("worker")
    cancel(whole, run)
    whole.stack.begin("worker")
    begun = time.monotonic()
    assert_cancelled(whole, run, mark)
    record_property("seconds after the worker's start", round(time.monotonic() - begun, 2))
    assert whole.containers() == []


def clinging_run(director: Installation) -> tuple[Data, str]:
    """Start a run whose command has children, and wait for them; gives their mark too."""
    mark = str(10**9 + secrets.randbelow(10**9))
    run = director.user.start(director.user.workflow(clinging(mark), "echo never"))
    until(lambda: "going" in director.user.output(run, 1) and len(living(mark)) > 8, "they live")
    return run, mark


def cancel(director: Installation, run: Data) -> None:
    """Cancel a run."""
    director.user.call("POST", f"/workflows/{run['workflowId']}/cancel")


def assert_cancelled(director: Installation, run: Data, mark: str) -> None:
    """The run says that it is cancelled, and nothing of it lives."""
    ended = director.user.ended(run["workflowId"])
    assert ended["status"] == "cancelled"
    assert [step["status"] for step in ended["steps"]] == ["cancelled", "skipped"]
    assert living(mark) == []
