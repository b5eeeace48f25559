"""What real commands write, as it comes and whole, through everything that may happen to it."""

import os
import signal
import threading
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from e2e.installation import Data, Installation
from support.following import Reader, Whole
from support.waiting import until

from director.domain.sandboxes import OUTPUT_LIMIT

Tell = Callable[[str, object], None]

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

MUCH = 100 * 1024 * 1024
GROWTH_MIB = 60


class Follower:
    """Follows a step with server-sent events from a thread, and comes back wherever it is cut."""

    def __init__(self, director: Installation, run: Data) -> None:
        self.whole, self.connected, self._director = Whole(), 0, director
        self._path = f"/workflows/{run['workflowId']}/runs/{run['runId']}/steps/1/output"
        self._over = threading.Event()
        self._fault: Exception | None = None
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def end(self) -> Whole:
        """Wait for the end and give what came."""
        until(lambda: self.whole.ended or self._fault, "the follower has the end")
        self.stop()
        assert self._fault is None, self._fault
        return self.whole

    def stop(self) -> None:
        """Follow no longer."""
        self._over.set()
        self._thread.join(10)

    def said(self, stream: str = "stdout") -> bytes:
        """What has come so far."""
        return self.whole.of(stream)

    def _go_on(self) -> None:
        token = self._director.user.http.headers["Authorization"]
        with httpx.Client(timeout=20, headers={"Authorization": token}, verify=False) as http:
            while not (self._over.is_set() or self.whole.ended):
                try:
                    self._follow(http)
                except httpx.TransportError:
                    time.sleep(0.1)
                except Exception as error:
                    self._fault = error
                    return

    def _follow(self, http: httpx.Client) -> None:
        headers = {"Accept": "text/event-stream"}
        if self.whole.cursor:
            headers["Last-Event-ID"] = self.whole.cursor
        url = f"{self._director.stack.api}/v1{self._path}"
        with http.stream("GET", url, headers=headers) as response:
            response.raise_for_status()
            self.connected += 1
            reader = Reader()
            for line in response.iter_lines():
                for told in reader.take(line):
                    self.whole.add(told)


def memory_mib(director: Installation, name: str) -> float:
    """Resident memory of a part."""
    status = Path(f"/proc/{director.stack.pid(name)}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


class Peaks:
    """The largest resident memory of some parts while a block lasts."""

    def __init__(self, director: Installation, *names: str) -> None:
        self._director, self.most = director, dict.fromkeys(names, 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peaks":
        self.before = {name: memory_mib(self._director, name) for name in self.most}
        self._thread.start()
        return self

    def __exit__(self, *of: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> dict[str, float]:
        """By how many MiB each has grown at most."""
        return {name: self.most[name] - self.before[name] for name in self.most}

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            for name in self.most:
                self.most[name] = max(self.most[name], memory_mib(self._director, name))


@pytest.mark.parametrize("to", ["stdout", "stderr"])
def test_100_mb_grow_no_memory_block_no_command_and_come_back_whole(
    director: Installation, record_property: Tell, to: str
) -> None:
    """The file that the command leaves tells what it has written, and how long that took."""
    redirected = "" if to == "stdout" else " >&2"
    user = director.user
    user.run("true")  # what is loaded at the first run is loaded
    command = (
        f"head -c {MUCH} /dev/urandom > big; sha256sum big | cut -c-64 > hash;"
        f" head -c {OUTPUT_LIMIT} big | sha256sum | cut -c-64 > kept; cat big{redirected}; rm big"
    )
    with Peaks(director, "worker", "api") as peaks:
        workflow_id = user.workflow(command, "cat hash kept")
        run = user.start(workflow_id)
        follower = Follower(director, run)
        run = user.ended(workflow_id)
        followed = follower.end().of(to)
        path = f"/workflows/{workflow_id}/runs/{run['runId']}/steps/1/output"
        digest, size = sha256(), 0
        with user.http.stream("GET", f"{path}?stream={to}") as response:
            for chunk in response.iter_raw():
                digest.update(chunk)
                size += len(chunk)
    result = run["steps"][0]["result"]
    written, kept = user.output(run, 2).split()
    record_property("MiB grown", peaks.growth)
    record_property("ms of the command", result["durationMs"])

    assert run["status"] == "completed", run["error"]
    assert len(written) == 64
    assert result["durationMs"] < 30_000
    assert (result[f"{to}Bytes"], result["truncated"], result["exitCode"]) == (MUCH, True, 0)
    end = follower.whole.told[-1].data
    assert (end["truncated"], end["bytes"][to], end["exitCode"]) == (True, MUCH, 0)
    assert (len(followed), sha256(followed).hexdigest()) == (OUTPUT_LIMIT, kept)
    assert (size, digest.hexdigest()) == (OUTPUT_LIMIT, kept)
    assert max(peaks.growth.values()) < GROWTH_MIB, peaks.growth


def test_progress_bars_and_binary_survive_as_they_come(director: Installation) -> None:
    bar = "for n in 1 2 3 4 5; do printf '\\r\\033[2K%d0 %% \\342\\226\\210' $n; sleep 0.3; done"
    command = f"{bar}; printf '\\377\\000\\r\\n\\303' >&2; sleep 0.3; printf '\\251' >&2"
    run = director.user.start(director.user.workflow(command))
    whole = Follower(director, run).end()
    expected = b"".join(b"\r\x1b[2K%d0 %% \xe2\x96\x88" % n for n in range(1, 6))

    assert whole.of("stdout") == expected
    assert whole.of("stderr") == b"\xff\x00\r\n\xc3\xa9"
    bars = [told for told in whole.told if told.data.get("stream") == "stdout"]
    assert len(bars) >= 3, "they came while the command ran"
    assert all("text" in told.data for told in bars)
    assert director.user.output(run, 1, "stdout").encode() == expected


def test_files_are_read_from_whichever_worker_of_the_host_lives(pair: Installation) -> None:
    id = pair.user.call("POST", "/sandboxes?wait=30", {"command": "echo kept >file"})["id"]
    url = f"/sandboxes/{id}/files?path=file"
    until(lambda: pair.user.http.get(url).is_success, "it is laid")
    for worker in ("worker", "worker-2"):
        log = pair.stack.log(worker)
        before = log.read_text().count("worker serves")
        pair.end(worker)
        for _ in range(5):
            assert pair.user.http.get(url).text == "kept\n"
        pair.heal()
        until(lambda: log.read_text().count("worker serves") > before, "it serves again")  # noqa: B023
    pair.user.call("DELETE", f"/sandboxes/{id}")


@pytest.mark.kills
def test_a_follower_sees_each_byte_once_while_worker_and_api_are_killed(
    pair: Installation,
) -> None:
    command = "n=0; until [ -e enough ]; do n=$((n + 1)); echo line $n caf\u00e9; sleep 0.3; done"
    pair.end("worker-2", signal.SIGTERM)
    run = pair.user.start(pair.user.workflow(command))
    follower = Follower(pair, run)
    until(lambda: b"line 2 " in follower.said(), "the first lines have come")
    log = pair.stack.log("worker-2")
    before = log.read_text().count("worker serves")
    pair.stack.begin("worker-2")
    until(lambda: log.read_text().count("worker serves") > before, "the second worker serves")
    os.kill(pair.stack.pid("worker"), signal.SIGKILL)
    pair.end("api")
    pair.stack.begin("api")
    seen = len(follower.said())
    until(lambda: len(follower.said()) > seen, "more has come")
    sandbox = "sbx" + run["runId"].removeprefix("run")
    Path(pair.home, "sandboxes", sandbox, "workspace", "enough").touch()
    whole = follower.end()

    assert follower.connected >= 2
    lines = whole.of("stdout").decode().splitlines()
    assert lines == [f"line {n} caf\u00e9" for n in range(1, len(lines) + 1)]
    assert whole.of("stdout").decode() == pair.user.output(run, 1)
    assert (whole.told[-1].data["status"], whole.told[-1].data["attempt"]) == ("completed", 1)
    assert "restart" not in [told.kind for told in whole.told]
    pair.heal()
