"""What a page of a list and a replay of events cost with 100,000 workflows and 1,000,000 events,
beside 1,000 of each: `python -m bench.scale [DATABASE_URL]`.

Both databases are served by a real API process at the same time, and asked in turns."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from sqlalchemy import make_url
from websockets.sync.client import connect

from bench.installation import free_ports
from bench.seeding import LARGE, PASSWORD, PERSON, SMALL, Size, seed

ROOT = Path(__file__).parents[1]
REPLAYED = 1000

_ROUNDS, _REQUESTS, _REPLAYED_TIMES, _WARM = 7, 100, 5, 5


@dataclass(frozen=True)
class Scale:
    """One request on little and on much, in milliseconds."""

    name: str
    small_p50_ms: float
    small_p99_ms: float
    large_p50_ms: float
    large_p99_ms: float

    @property
    def ratio_p99(self) -> float:
        """How many times as long much takes."""
        return self.large_p99_ms / self.small_p99_ms


@dataclass(frozen=True)
class _Asked:
    """A request, of the admin who sees all or of one person; `{middle}` is filled in."""

    name: str
    path: str
    by: str = "admin"


_PAGES = (
    _Asked("workflows, first page", "/workflows"),
    _Asked("workflows, deep cursor page", "/workflows?cursor={middle}"),
    _Asked("workflows?status=running (20 %)", "/workflows?status=running"),
    _Asked("workflows?status=running, deep", "/workflows?status=running&cursor={middle}"),
    _Asked("workflows?status=waiting (1 %)", "/workflows?status=waiting&limit=5"),
    _Asked("workflows?sessionId=", "/workflows?sessionId={session}"),
    _Asked("workflows?sessionId=&status=", "/workflows?sessionId={session}&status=running"),
    _Asked("a person's workflows", "/workflows", PERSON),
    _Asked("a person's, deep", "/workflows?cursor={middle}", PERSON),
    _Asked("a person's, running", "/workflows?status=running", PERSON),
    _Asked("runs of a workflow", "/workflows/{workflow}/runs"),
    _Asked("sessions", "/sessions?limit=3"),
    _Asked("sessions?status=active", "/sessions?status=active&limit=3"),
    _Asked("a person's sessions", "/sessions?limit=3", PERSON),
    _Asked("departments?domain=frontend", "/departments?domain=frontend&limit=3"),
    _Asked("checkpoints, deep cursor page", "/checkpoints?cursor={middle_checkpoint}"),
    _Asked("a person's checkpoints", "/checkpoints", PERSON),
    _Asked("a session's checkpoints", "/checkpoints?sessionId={session}"),
)
_REPLAYS = (
    (f"replay of the last {REPLAYED:,} events", "admin", REPLAYED),
    (f"replay of a person's {REPLAYED:,} events, from 0 on", PERSON, None),
)


def rows(database_url: str) -> list[Scale]:
    """Measure on two new databases beside the one that is named, which is left alone."""
    return list(measured(database_url))


def measured(database_url: str) -> Iterator[Scale]:
    """The same, one by one."""
    with ExitStack() as stack:
        sizes = {"small": SMALL, "large": LARGE}
        apis = [stack.enter_context(_served(database_url, *size)) for size in sizes.items()]
        for one in _PAGES:
            yield _compared(one.name, apis, _pager(one), _REQUESTS)
        for name, by, since in _REPLAYS:
            yield _compared(name, apis, _replayer(by, since), _REPLAYED_TIMES)


def _pager(asked: _Asked) -> "_Ask":
    return lambda api: api.page(asked)


def _replayer(by: str, since_last: int | None) -> "_Ask":
    return lambda api: api.replay(by, since_last)


class _Api:
    """A client of one API process, as the admin and as the person."""

    def __init__(self, port: int, size: Size) -> None:
        self._port, self._size = port, size
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._tokens: dict[str, str] = {}
        self.renew()
        self._named = self._names()

    def renew(self) -> None:
        """Begin with a connection and logins that last for some minutes."""
        self.close()
        for name in ("admin", PERSON):
            body = json.dumps({"username": name, "password": PASSWORD})
            headers = {"Content-Type": "application/json"}
            self._connection.request("POST", "/v1/auth/login", body, headers)
            self._tokens[name] = self._answer()["data"]["token"]

    def close(self) -> None:
        """Close the connection; it opens again when it is used."""
        self._connection.close()

    def page(self, asked: _Asked) -> None:
        """One page; one without rows would compare nothing."""
        path = "/v1" + asked.path.format(**self._named)
        if not self._get(path, asked.by)["data"]:
            raise RuntimeError(f"{path} is empty")

    def replay(self, by: str, since_last: int | None) -> None:
        """A WebSocket that is told what it missed."""
        cursor = 0 if since_last is None else self._size.events - since_last
        hello = json.dumps({"type": "auth", "token": self._tokens[by], "cursor": cursor})
        with connect(f"ws://127.0.0.1:{self._port}/v1/ws", max_queue=None) as listener:
            listener.send(hello)
            for _ in range(1 + REPLAYED):
                told = json.loads(listener.recv(30))
        if told.get("id", self._size.events) > self._size.events:
            raise RuntimeError(f"{told} is new")

    def _get(self, path: str, by: str) -> Any:
        headers = {"Authorization": f"Bearer {self._tokens[by]}"}
        self._connection.request("GET", path, headers=headers)
        return self._answer()

    def _answer(self) -> Any:
        response = self._connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{response.status} {content[:500]!r}")
        return json.loads(content)

    def _names(self) -> dict[str, str]:
        first = self._get("/v1/workflows?limit=1", PERSON)["data"][0]
        return {
            "session": first["sessionId"],
            "workflow": first["id"],
            "middle": self._middle("/v1/workflows"),
            "middle_checkpoint": self._middle("/v1/checkpoints"),
        }

    def _middle(self, path: str) -> str:
        """The cursor of a page in the middle of the list of all."""
        page = self._get(f"{path}?limit=1&offset={self._size.workflows // 2}", "admin")
        return str(page["metadata"]["pagination"]["nextCursor"])


_Ask = Callable[[_Api], None]


def _compared(name: str, apis: Sequence[_Api], ask: _Ask, count: int) -> Scale:
    """Ask both in turns; a percentile is the median of the rounds', so that what else the machine
    does in some of them decides nothing."""
    rounds: list[list[list[float]]] = [[] for _ in apis]
    for number in range(_ROUNDS + 1):
        for api, times in zip(apis, rounds, strict=True):
            api.renew()
            took = sorted(_timed(ask, api) for _ in range(count if number else _WARM))
            times.extend([took] if number else [])
    few, many = ([median(_at(one, at) for one in times) for at in (50, 99)] for times in rounds)
    return Scale(name, *few, *many)


def _timed(ask: _Ask, api: _Api) -> float:
    begun = time.perf_counter()
    ask(api)
    return (time.perf_counter() - begun) * 1000


def _at(ordered: Sequence[float], percent: int) -> float:
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


@contextmanager
def _served(database_url: str, name: str, size: Size) -> Iterator[_Api]:
    """A database of that size, with an API before it."""
    with (
        tempfile.TemporaryDirectory(prefix="director-scale-") as folder,
        _database(database_url, name) as url,
    ):
        seed(url, size)
        with _process(Path(folder), url) as port, closing(_Api(port, size)) as api:
            yield api


@contextmanager
def _database(database_url: str, name: str) -> Iterator[str]:
    """An empty database of its own; it goes with the block."""
    url = make_url(database_url)
    made = url.set(database=f"{url.database}_{name}")
    told = made.render_as_string(hide_password=False)
    if url.get_backend_name() == "sqlite":
        yield told
        for suffix in ("", "-wal", "-shm"):
            Path(f"{made.database}{suffix}").unlink(missing_ok=True)
        return
    at = url.render_as_string(hide_password=False)
    with psycopg.connect(at, autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{made.database}"'.encode())
    try:
        yield told
    finally:
        with psycopg.connect(at, autocommit=True) as server:
            server.execute(f'DROP DATABASE "{made.database}" WITH (FORCE)'.encode())


@contextmanager
def _process(folder: Path, url: str) -> Iterator[int]:
    """An API process; lists need no Temporal."""
    port = free_ports().api
    environ = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DIRECTOR_HOME": str(folder),
        "DIRECTOR_DATABASE_URL": url,
        "DIRECTOR_PORT": str(port),
        "DIRECTOR_TEMPORAL_ADDRESS": "127.0.0.1:9",
        "DIRECTOR_RATE_LIMITS": "off",
    }
    with (folder / "api.log").open("ab") as log:
        command = [sys.executable, "-m", "director.api"]
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        _await(port, process, folder / "api.log")
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _await(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the API does not answer: {log.read_text()[-3000:]}")
        time.sleep(0.05)


def _answers(port: int) -> bool:
    try:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as probe:
            probe.request("GET", "/healthz")
            return probe.getresponse().status == 200
    except OSError:
        return False


def main(arguments: list[str]) -> None:
    """Measure on SQLite, or on the database that is named, and show a table."""
    with tempfile.TemporaryDirectory(prefix="director-scale-") as folder:
        url = arguments[0] if arguments else f"sqlite:///{folder}/scale.db"
        print(f"{'p50 / p99 in ms':48} {'1,000':>15} {'all':>15}  p99 ×", flush=True)
        for row in measured(url):
            small = f"{row.small_p50_ms:6.1f} / {row.small_p99_ms:6.1f}"
            large = f"{row.large_p50_ms:6.1f} / {row.large_p99_ms:6.1f}"
            print(f"{row.name:48} {small} {large}  {row.ratio_p99:5.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
