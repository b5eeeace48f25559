"""Two routes, and the same rows through bare FastAPI and SQLModel on the same kind of database."""

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.bench import Bench
from bench.databases import Database, databases
from bench.figures import Latencies, Row, at_least
from bench.http import Connection, logged_in
from bench.installation import Installation, free_ports
from bench.processes import Driver, Process, cpu_seconds, until

GROUP = "requests"

_CREATE = {"type": "director", "name": "A session", "config": {"timeout": 3600000}}
_WAYS = {"inline": "sync sessions in the event loop", "threads": "in the framework's threads"}
_TARGETS = {"GET /sessions/{id}": 0.6, "POST /sessions": 0.5}


@dataclass(frozen=True)
class Server:
    """Where the two routes are, and who works for them."""

    name: str
    port: int
    prefix: str
    headers: dict[str, str]
    session: str
    pids: list[int]

    def requests(self) -> dict[str, dict[str, Any]]:
        """The two requests, by name."""
        return {
            "GET /sessions/{id}": {"method": "GET", "path": f"{self.prefix}/{self.session}"},
            "POST /sessions": {
                "method": "POST",
                "path": self.prefix,
                "body": json.dumps(_CREATE),
            },
        }


def measure(bench: Bench) -> list[Row]:
    """Requests for each second, at concurrency 1 and 16, on every database that there is."""
    with databases(bench) as found:
        return [row for database in found for row in _on(bench, database)]


def _on(bench: Bench, database: Database) -> list[Row]:
    levels = bench.some({1: 600, 16: 1600}, {1: 30, 16: 64})
    taken: dict[tuple[str, int, str], Latencies] = {}
    with _servers(bench, database) as (driver, servers):
        for server in servers:
            for request in server.requests().values():
                _load(driver, server, request, 4, bench.some(200, 8))
        for _ in bench.alternating(f"requests on {database.name}"):
            for level, count in levels.items():
                for what in _TARGETS:
                    for server in servers:
                        latencies = taken.setdefault((what, level, server.name), Latencies())
                        _take(latencies, driver, server, what, level, count)
    names = [server.name for server in servers]
    rows = []
    for what in _TARGETS:
        for level in levels:
            sides = [taken[what, level, name] for name in names]
            rows += _rows(f"{what}, {level} at a time, {database.name}", what, names, sides)
    return rows


def _rows(title: str, what: str, names: list[str], sides: list[Latencies]) -> list[Row]:
    mine, others = sides[0], dict(zip(names[1:], sides[1:], strict=True))
    return [
        Row(
            GROUP,
            title,
            "requests/s",
            "more",
            mine.rate(names[0]),
            [one.rate(name) for name, one in others.items()],
            at_least(_TARGETS[what]),
        ),
        Row(
            GROUP,
            f"{title}: p99",
            "ms",
            "less",
            mine.p99(names[0]),
            [one.p99(name) for name, one in others.items()],
        ),
    ]


def _take(
    latencies: Latencies, driver: Driver, server: Server, what: str, level: int, count: int
) -> None:
    before = cpu_seconds(server.pids)
    done = _load(driver, server, server.requests()[what], level, count)
    latencies.add(done["millis"], done["seconds"], cpu_seconds(server.pids) - before)


def _load(
    driver: Driver, server: Server, request: dict[str, Any], concurrency: int, count: int
) -> Any:
    return driver.ask(
        do="load",
        port=server.port,
        headers=server.headers,
        concurrency=concurrency,
        count=count,
        **request,
    )


@contextmanager
def _servers(bench: Bench, database: Database) -> Iterator[tuple[Driver, list[Server]]]:
    with ExitStack() as stack:
        director = stack.enter_context(database.director(bench))
        servers = [asyncio.run(_director(director, database))]
        for way in _WAYS:
            servers.append(_bare(bench, database, way, stack))
        driver = stack.enter_context(Driver("bench.drivers.http_load", bench.folder))
        yield driver, servers


async def _director(director: Installation, database: Database) -> Server:
    connection = await logged_in(director.port, director.password)
    session = (await connection.call("POST", "/sessions", _CREATE))["id"]
    connection.close()
    pids = [director.stack.pid("api"), *database.pids]
    headers = connection.headers
    return Server("Director", director.port, "/v1/sessions", headers, session, pids)


def _bare(bench: Bench, database: Database, way: str, stack: ExitStack) -> Server:
    port = free_ports().api
    module = "bench.bare.http_app"
    url = database.url(bench, way).replace("postgresql://", "postgresql+psycopg://", 1)
    command = [sys.executable, "-m", module, str(port), url, way]
    process = stack.enter_context(Process(command, bench.folder / f"{module}.{way}.log"))
    until(partial(_answers, port), "the bare application answers")
    session = asyncio.run(_first(port))
    return Server(f"bare, {way}", port, "/sessions", {}, session, [process.pid, *database.pids])


async def _first(port: int) -> str:
    connection = Connection(port)
    _, content = await connection.request("POST", "/sessions", json.dumps(_CREATE).encode())
    connection.close()
    return str(json.loads(content)["id"])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
