"""`director up`, `down` and `doctor` as processes, in a home of their own."""

import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Self

import httpx
import pytest
from e2e.installation import User, containers, listening, quiet_ports, remove_containers
from support.waiting import until

from director.machine.engine import alive

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

DIRECTOR = Path(sys.executable).with_name("director")
_READY = "Ctrl-C stops serving"
_ROUNDS = {"sqlite": 4, "postgres": 1}
"""How often each part is killed: more often than a part may fail, on one kind of database."""


class Up:
    """A running `director up`, and what it has said."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.said: list[str] = []
        self.process = subprocess.Popen(
            [DIRECTOR, "up"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._reader.start()

    def wait(self) -> Self:
        """Wait until it serves."""
        until(lambda: _READY in self.text or self.process.poll() is not None, "it is up")
        assert self.process.poll() is None, self.text
        return self

    def _read(self, stream: IO[str]) -> None:
        with stream:
            self.said.extend(stream)

    @property
    def text(self) -> str:
        """Everything that it has said so far."""
        return "".join(self.said)

    @property
    def addresses(self) -> list[str]:
        """The addresses that it named: API and Temporal UI."""
        return re.findall(r"(?:API|Temporal UI) +(http://127\.0\.0\.1:\d+)", self.text)

    def ports(self) -> list[int]:
        """The ports of the addresses."""
        return [int(address.rpartition(":")[2]) for address in self.addresses]

    def ended(self) -> int:
        """Wait for the end, however it was asked for, and give the exit code."""
        code = self.process.wait(60)
        self._reader.join()
        return code

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop and give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environ(home: Path, sandbox_image: str) -> dict[str, str]:
    given = {
        "DIRECTOR_HOME": str(home),
        "DIRECTOR_PORT": str(quiet_ports().api),
        "DIRECTOR_SANDBOX_IMAGE": sandbox_image,
    }
    return {**os.environ, **given}


@pytest.fixture
def on_both(environ: dict[str, str], url: str) -> None:
    """Let the test run on every kind of database."""
    environ["DIRECTOR_DATABASE_URL"] = url


@pytest.fixture
def up(environ: dict[str, str], home: Path) -> Iterator[Callable[[], Up]]:
    """Start `director up`; whatever is still up at the end is stopped."""
    begun: list[Up] = []

    def up() -> Up:
        begun.append(Up(environ))
        return begun[-1].wait()

    yield up
    for one in begun:
        one.stop(signal.SIGTERM)
    remove_containers(home)


@pytest.fixture
def user(home: Path) -> Iterator[Callable[[Up], User]]:
    """Log in at a running Director."""
    clients: list[User] = []

    def user(running: Up) -> User:
        clients.append(User(running.addresses[0], home / "admin-password"))
        return clients[-1]

    yield user
    for client in clients:
        client.close()


def director(command: str, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run another `director` to its end."""
    return subprocess.run(
        [DIRECTOR, command], env=environ, capture_output=True, text=True, timeout=180, check=False
    )


def processes(home: Path) -> list[str]:
    """Command lines of all processes that were started for a home, but for Python's own."""
    return [line for _, line in _processes(home)]


def kill_all(home: Path, parent: Up) -> None:
    """Kill `director up` and all its parts at the same moment, as far as there is one."""
    pids = [pid for pid, _ in _processes(home)]
    assert parent.process.pid in pids
    assert len(pids) >= 5, "up itself, Temporal, the API and two workers"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    parent.ended()


def _processes(home: Path) -> list[tuple[int, str]]:
    mark, found = f"DIRECTOR_HOME={home}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                line = (process / "cmdline").read_bytes().decode()
                found.append((int(process.name), line))
        except OSError:
            continue
    return found


def test_up_says_where_everything_is_and_what_it_says_to_paste_works(
    up: Callable[[], Up], home: Path, environ: dict[str, str]
) -> None:
    text = up().text
    password = home / "admin-password"
    assert f"user admin, password in {password}" in text
    assert stat.S_IMODE(password.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert password.read_text().strip() not in text
    start = text.index("TOKEN=$(")
    pasted = text[start : text.index(_READY)]
    done = subprocess.run(["bash", "-ec", pasted], capture_output=True, text=True, check=True)
    assert '"username":"admin"' in done.stdout.replace(" ", "")

    second = director("up", environ)
    assert second.returncode == 1
    assert "is up already" in second.stderr
    assert f":{environ['DIRECTOR_PORT']}" in second.stderr
    assert "Traceback" not in second.stderr


def test_ctrl_c_stops_everything_and_up_again_goes_on_with_the_run(
    up: Callable[[], Up], user: Callable[[Up], User], home: Path
) -> None:
    first = up()
    before = user(first)
    workflow_id = before.workflow("for n in 1 2 3 4; do echo line $n; sleep 1; done")
    run = before.start(workflow_id)
    until(lambda: "line 1" in before.output(run, 1), "the command runs")
    assert first.stop(signal.SIGINT) == 0, first.text
    assert "go on running: 1." in first.text
    assert processes(home) == []
    assert not any(map(listening, first.ports()))

    after = user(up())
    ended = after.ended(workflow_id)
    assert (ended["runId"], ended["status"]) == (run["runId"], "completed")
    assert after.output(ended, 1) == "line 1\nline 2\nline 3\nline 4\n"
    assert containers(home) == []


@pytest.mark.kills
@pytest.mark.usefixtures("on_both")
def test_everything_is_killed_at_once_and_up_goes_on_and_what_was_paused_stays_paused(
    up: Callable[[], Up], user: Callable[[Up], User], home: Path, environ: dict[str, str]
) -> None:
    environ["DIRECTOR_WORKERS"] = "2"
    first = up()
    before = user(first)
    counts = before.workflow(
        "for n in 1 2 3 4 5 6 7 8 9; do echo $n | tee -a n.txt; sleep 1; done; cat n.txt"
    )
    holds = before.workflow("echo first >> ran.txt; sleep 1", "echo second >> ran.txt; cat ran.txt")
    held = before.start(holds)
    until(lambda: before.status(holds)["steps"][0]["status"] == "running", "the first step runs")
    before.call("POST", f"/workflows/{holds}/pause")
    until(lambda: before.status(holds)["status"] == "paused", "it is paused")
    counted = before.start(counts)
    until(lambda: "2" in before.output(counted, 1), "the command counts")
    kill_all(home, first)
    assert len(_running(home)) > 0, "the command goes on"

    after = user(up())
    run = after.ended(counts)
    assert (run["runId"], run["status"]) == (counted["runId"], "completed")
    numbers = "1\n2\n3\n4\n5\n6\n7\n8\n9\n"
    assert after.output(run, 1) == numbers + numbers
    still = after.status(holds)
    assert (still["runId"], still["status"]) == (held["runId"], "paused")
    assert [step["status"] for step in still["steps"]] == ["completed", "pending"]
    after.call("POST", f"/workflows/{holds}/resume")
    resumed = after.ended(holds)
    assert resumed["status"] == "completed", resumed["error"]
    assert after.output(resumed, 2) == "first\nsecond\n"
    assert containers(home) == []


@pytest.mark.kills
@pytest.mark.usefixtures("on_both")
def test_up_is_killed_alone_and_the_next_waits_for_its_parts(
    up: Callable[[], Up], user: Callable[[Up], User], home: Path
) -> None:
    first = up()
    before = user(first)
    workflow_id = before.workflow("for n in 1 2 3 4; do echo line $n; sleep 1; done")
    run = before.start(workflow_id)
    until(lambda: "line 1" in before.output(run, 1), "the command runs")
    first.process.kill()
    first.ended()
    second = up()
    assert first.addresses[0] == second.addresses[0], "the port is free again"
    after = user(second)
    assert after.ended(workflow_id)["status"] == "completed"
    assert after.output(run, 1) == "line 1\nline 2\nline 3\nline 4\n"
    assert len([line for line in processes(home) if "start-dev" in line]) == 1


@pytest.mark.kills
@pytest.mark.usefixtures("on_both")
def test_parts_that_are_killed_again_and_again_are_started_again_and_again(
    up: Callable[[], Up], user: Callable[[Up], User], home: Path, database: str
) -> None:
    running, rounds = up(), _ROUNDS[database]
    for part in ("temporal", "director.api", "director.worker") * rounds:
        (victim,) = until(partial(found, home, part), f"{part} runs")
        os.kill(victim, signal.SIGKILL)
        until(partial(ended, victim), f"{part} has ended")
    assert running.process.poll() is None, running.text
    until(lambda: ready(running.addresses[0]), "all parts answer")
    assert user(running).run("echo on")["status"] == "completed"
    assert running.text.count("was killed by SIGKILL and is started again") == 3 * rounds


def ended(pid: int) -> bool:
    """Whether a process is gone."""
    return not alive(pid)


def ready(api: str) -> bool:
    """Whether all parts answer."""
    try:
        return httpx.get(f"{api}/readyz", timeout=5, verify=False).status_code == 200
    except httpx.HTTPError:
        return False


def found(home: Path, part: str) -> list[int]:
    """The processes of a part."""
    return [pid for pid, line in _processes(home) if f"{part}\0" in line]


def test_down_stops_what_another_process_serves_and_its_sandboxes(
    up: Callable[[], Up], user: Callable[[Up], User], home: Path, environ: dict[str, str]
) -> None:
    served = up()
    client = user(served)
    run = client.start(client.workflow("echo on; sleep 60"))
    until(lambda: "on" in client.output(run, 1), "the command runs")
    assert _running(home) != []
    down = director("down", environ)
    assert down.returncode == 0, down.stderr
    assert str(home) in down.stdout, "it says where the data stays"
    assert served.ended() == 0
    assert processes(home) == []
    assert not any(map(listening, served.ports()))
    assert _running(home) == []


def _running(home: Path) -> list[str]:
    """Processes inside of the sandboxes of a home, seen from the host."""
    folder, found = f"{home}/sandboxes/".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if folder in (process / "mountinfo").read_bytes():
                found.append((process / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def test_down_where_nothing_is_up_is_no_error(environ: dict[str, str]) -> None:
    assert director("down", environ).returncode == 0


def test_the_doctor_tells_a_line_for_each_thing_and_finds_all_that_is_needed(
    environ: dict[str, str],
) -> None:
    done = director("doctor", environ)
    assert done.returncode == 0, done.stdout
    for thing in ("Python", "Docker", "image", "port"):
        assert re.search(rf"^.*{thing}.*$", done.stdout, re.IGNORECASE | re.MULTILINE), thing
