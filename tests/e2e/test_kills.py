"""Parts of Director are killed in the middle of a run, and the run reaches its end."""

import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from e2e.installation import Data, Installation, healed
from e2e.listening import frames, listening
from support.postgres import DATABASES
from support.waiting import until

Tell = Callable[[str, object], None]
"""Records what was measured; `pytest -o junit_family=xunit1 --junitxml=FILE` shows it."""

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.alone, pytest.mark.kills]

PROMISED_SECONDS = 7.0
"""A run whose worker is killed completes at most so long after its command's end."""

_TELL_END = "date +%s.%N"


@pytest.fixture
def whole(pair: Installation) -> Iterator[Installation]:
    """The Director with all its parts up before and after."""
    with healed(pair):
        yield pair


def lines(count: int) -> str:
    """What `counting` has said and written at its end."""
    return "".join(f"line {number}\n" for number in range(1, count + 1))


def counting(count: int, pause: float = 1.0) -> str:
    """A command that says a line a second and appends it to a file, then notes when it ended."""
    numbers = " ".join(map(str, range(1, count + 1)))
    return (
        f"for n in {numbers}; do echo line $n | tee -a lines.txt; sleep {pause:.3f}; done;"
        f" {_TELL_END} > end.txt"
    )


def begin(director: Installation, count: int, pause: float = 1.0) -> Data:
    """Start a run that counts for some seconds."""
    file_has_them = {
        "type": "verify",
        "criteria": {"type": "file", "path": "lines.txt", "contains": lines(count)},
    }
    steps = [counting(count, pause), file_has_them, "cat lines.txt", "cat end.txt"]
    return director.user.start(director.user.workflow(*steps))


def await_line(director: Installation, run: Data, number: int) -> None:
    """Wait until the command has said a line."""
    said = f"line {number}\n"
    until(lambda: said in director.user.output(run, 1), f"the command has said {said!r}")


def assert_ran_once(director: Installation, begun: Data, count: int) -> float:
    """The run completed and its command ran once; gives how long after the command's end."""
    run = director.user.ended(begun["workflowId"])
    assert run["status"] == "completed", run["error"]
    assert director.user.output(run, 1) == lines(count), "each line was said once"
    assert director.user.output(run, 3) == lines(count), "each line was written once"
    assert run["steps"][0]["result"]["repeats"] == 0
    completed = datetime.fromisoformat(run["completedAt"]).timestamp()
    return completed - float(director.user.output(run, 4))


def only_worker(director: Installation) -> None:
    """Let the first worker be the only one, so that it takes whatever is started."""
    director.end("worker-2", signal.SIGTERM)


def second_worker(director: Installation) -> None:
    """Start the second worker beside the first and wait until it serves."""
    log = director.stack.log("worker-2")
    before = log.read_text().count("worker serves")
    director.stack.begin("worker-2")
    until(lambda: log.read_text().count("worker serves") > before, "the second worker serves")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill", "term"])
def test_the_commands_of_a_worker_that_ends_run_once_and_their_runs_go_on_under_another(
    whole: Installation, number: signal.Signals, record_property: Tell
) -> None:
    """Commands are hit at all moments: soon after their begin, in the middle, before their end."""
    dice = random.Random(20261)
    only_worker(whole)
    long = begin(whole, 10)
    await_line(whole, long, 2)
    others = [(begin(whole, 3, dice.uniform(0.4, 1.4)), 3) for _ in range(5)]
    second_worker(whole)
    await_line(whole, long, 5)
    whole.end("worker", number)
    late = [assert_ran_once(whole, run, count) for run, count in [(long, 10), *others]]
    record_property("seconds after the command", [round(seconds, 2) for seconds in late])
    assert max(late) <= PROMISED_SECONDS
    assert whole.containers() == []
    assert "Traceback" not in whole.logs(), "handing over is nothing out of the ordinary"


def test_a_worker_is_killed_just_before_its_command_ends(
    whole: Installation, record_property: Tell
) -> None:
    only_worker(whole)
    run = begin(whole, 2)
    second_worker(whole)
    await_line(whole, run, 2)
    time.sleep(0.85)  # the command lasts a second after its last line
    whole.end("worker")
    late = assert_ran_once(whole, run, 2)
    record_property("seconds after the command", round(late, 2))
    assert late <= PROMISED_SECONDS


def test_the_api_is_killed_and_a_listener_that_resumes_misses_nothing_and_hears_nothing_twice(
    whole: Installation,
) -> None:
    with listening(whole) as socket:
        begun = begin(whole, 5)
        await_line(whole, begun, 2)
        heard = list(frames(socket, until_silent=True))
        whole.end("api")
        heard += frames(socket)
    whole.heal()
    assert_ran_once(whole, begun, 5)
    with listening(whole, cursor=heard[-1]["id"]) as socket:
        for frame in frames(socket):
            heard.append(frame)
            if frame["data"].get("status") == "completed":
                break
    of_run = [frame for frame in heard if frame["data"].get("runId") == begun["runId"]]
    assert [frame["seq"] for frame in of_run] == list(range(1, len(of_run) + 1))
    assert [frame["id"] for frame in heard] == sorted({frame["id"] for frame in heard})


def test_the_temporal_server_is_killed_and_all_that_was_asked_of_it_happens_when_it_is_back(
    whole: Installation, record_property: Tell
) -> None:
    temporal_is_away(whole, 1, record_property)


@pytest.mark.parametrize("database", DATABASES[:1], indirect=True, scope="session")
def test_the_temporal_server_is_away_for_half_a_minute_and_nothing_has_given_up(
    whole: Installation, record_property: Tell
) -> None:
    temporal_is_away(whole, 30, record_property)


def temporal_is_away(whole: Installation, seconds: float, record_property: Tell) -> None:
    """Kill it under runs, ask for a start and a cancel meanwhile, and see what happens then."""
    user = whole.user
    counted, cancelled = begin(whole, 5), begin(whole, 60)
    for run in (counted, cancelled):
        await_line(whole, run, 1)
    whole.end("temporal")
    back_at = time.monotonic() + seconds
    assert user.status(counted["workflowId"])["status"] == "running", "the database still tells"
    asked = user.start(user.workflow("echo here"))
    assert asked["status"] == "queued"
    user.call("POST", f"/workflows/{cancelled['workflowId']}/cancel")
    time.sleep(max(0, back_at - time.monotonic()))
    whole.stack.begin("temporal")
    back = time.time()

    late = assert_ran_once(whole, counted, 5)
    record_property("seconds after the command", round(late, 2))
    for run, status in [(counted, "completed"), (cancelled, "cancelled"), (asked, "completed")]:
        ended = user.ended(run["workflowId"])
        after = datetime.fromisoformat(ended["completedAt"]).timestamp() - back
        record_property(f"{status}, seconds after the server is back", round(after, 2))
        assert ended["status"] == status
        assert re.fullmatch(r"[0-9a-f-]{36}", ended["temporal"]["runId"])
    assert whole.containers() == []
