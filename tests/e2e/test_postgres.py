"""Two APIs and three workers share one Postgres; each of them is killed, the database too."""

import contextlib
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from e2e.installation import Installation, User, quiet_ports
from support.postgres import PostgresServer
from support.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(240)]

SAID = "".join(f"line {number}\n" for number in range(1, 9))
COUNTING = "for n in 1 2 3 4 5 6 7 8; do echo line $n | tee -a lines.txt; sleep 0.8; done"


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, to be killed."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def fleet(postgres: PostgresServer, sandbox_image: str, tmp_path: Path) -> Iterator[Installation]:
    """A Director of two APIs and three workers."""
    environ = {"DIRECTOR_DATABASE_URL": postgres.database()}
    with Installation(tmp_path / "home", sandbox_image, workers=3, environ=environ) as running:
        yield running


class Listener(threading.Thread):
    """Asks one API after the other for what is new, whatever happens to them."""

    def __init__(self, apis: list[str], token: str) -> None:
        super().__init__(daemon=True)
        self.seen: dict[str, list[int]] = defaultdict(list)
        self.errors = 0
        self._apis, self._token = apis, token
        self._over = threading.Event()

    def run(self) -> None:
        """Listen until `end`."""
        cursor = "0"
        headers = {"Authorization": f"Bearer {self._token}"}
        while not self._over.is_set():
            self._apis.append(self._apis.pop(0))
            url = f"{self._apis[0]}/v1/events?after={cursor}&wait=1&limit=7"
            try:
                answer = (
                    httpx.get(url, headers=headers, timeout=10, verify=False)
                    .raise_for_status()
                    .json()
                )
            except httpx.HTTPError:
                self.errors += 1
                self._over.wait(0.05)
                continue
            for event in answer["data"]:
                self.seen[event["data"].get("runId") or event["data"]["sessionId"]].append(
                    event["seq"]
                )
            cursor = answer["metadata"]["pagination"]["nextCursor"]

    def end(self) -> None:
        """Stop listening."""
        self._over.set()
        self.join()


def test_two_apis_and_three_workers_on_one_postgres_lose_nothing_whatever_is_killed(
    fleet: Installation, postgres: PostgresServer
) -> None:
    port = quiet_ports().api
    again = [sys.executable, "-m", "director.api"]
    fleet.stack.commands["api-2"] = ["env", f"DIRECTOR_PORT={port}", *again]
    fleet.stack.begin("api-2")
    second = f"http://127.0.0.1:{port}"
    until(lambda: _answers(second), "the second API answers")
    with contextlib.closing(User(second, fleet.home / "admin-password")) as other:
        _all_are_killed(fleet, postgres, other)


def _all_are_killed(fleet: Installation, postgres: PostgresServer, other: User) -> None:
    second = str(other.http.base_url).removesuffix("/v1/")
    listener = Listener([fleet.stack.api, second], fleet.user.login())
    listener.start()

    workflows = [user.workflow(COUNTING, "cat lines.txt") for user in (fleet.user, other) * 3]
    begun = [fleet.user.start(workflow) for workflow in workflows[:3]]
    begun += [other.start(workflow) for workflow in workflows[3:]]
    until(lambda: all("line 1\n" in other.output(run, 1) for run in begun), "all have begun")
    fleet.end("worker-2")
    fleet.end("api")
    until(lambda: "line 4\n" in other.output(begun[0], 1), "it goes on")
    postgres.kill()
    time.sleep(1)  # the others are to notice
    assert not _ready(second), "it tells the truth"
    postgres.start()
    fleet.stack.begin("worker-2")
    fleet.stack.begin("api")
    fleet.end("worker", signal.SIGTERM)
    fleet.end("temporal")
    fleet.stack.begin("temporal")
    fleet.stack.begin("worker")

    until(lambda: _ready(second) and fleet.stack.ready(), "all is back")
    for run in begun:
        ended = until(lambda run=run: _ended(other, run), "the run ends")
        assert ended["status"] == "completed", ended["error"]
        assert other.output(ended, 1) == SAID, "each line was said once"
        assert other.output(ended, 2) == SAID, "each line was written once"
    last = {run["runId"]: _last_seq(other, run["runId"]) for run in begun}
    until(lambda: all(listener.seen[id][-1:] == [seq] for id, seq in last.items()), "it has heard")
    listener.end()
    assert listener.errors, "it was cut off now and then"
    for subject, seqs in listener.seen.items():
        assert seqs == list(range(1, len(seqs) + 1)), f"{subject}: a gap, or one twice"
    assert fleet.containers() == []


def _answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/healthz", verify=False).is_success
    except httpx.HTTPError:
        return False


def _ready(api: str) -> bool:
    try:
        return httpx.get(f"{api}/readyz", timeout=20, verify=False).is_success
    except httpx.HTTPError:
        return False


def _ended(user: User, run: dict[str, str]) -> dict[str, str] | None:
    found = user.status(run["workflowId"])
    return found if found["completedAt"] else None


def _last_seq(user: User, run_id: str) -> int:
    """The `seq` of a run's last event."""
    cursor, last = "0", 0
    while True:
        answer = user.http.get(f"/events?after={cursor}&limit=1000").raise_for_status().json()
        for event in answer["data"]:
            if event["data"].get("runId") == run_id:
                last = event["seq"]
        page = answer["metadata"]["pagination"]
        if not page["hasMore"]:
            return last
        cursor = page["nextCursor"]
