"""What Director holds of memory and disk: idle, and for each run that waits in a line."""

import asyncio
import time
from pathlib import Path
from typing import Any

from bench.bench import Bench
from bench.engine import engine
from bench.figures import Row, Side, at_most
from bench.http import logged_in
from bench.installation import Installation

GROUP = "memory"

_IDLE_SECONDS = 10
_AT_ONCE = 8
_SETTLE_SECONDS = 3


def measure(bench: Bench) -> list[Row]:
    """An idle Director with the real worker, then a line of runs before a full department."""
    with engine(bench.say) as docker, bench.real({"DIRECTOR_SANDBOX_IMAGE": docker.image}) as idle:
        bench.say("memory: idle")
        time.sleep(_IDLE_SECONDS)
        rows = [row for part in ("api", "worker", "temporal") for row in _idle(idle, part)]
    return rows + queued(bench)


def queued(bench: Bench) -> list[Row]:
    """A department with one slot, which a step keeps, and many runs behind it."""
    count = bench.some(1000, 20)
    bench.say(f"memory: {count} queued runs")
    with bench.scripted() as director:
        return asyncio.run(_queued(director, count))


def _idle(director: Installation, part: str) -> list[Row]:
    memory = director.memory_mib(part)
    target = None if part == "temporal" else at_most(150)
    return [
        Row(GROUP, f"idle {part}: RSS", "MiB", "less", Side(part, [memory["rss"]]), target=target),
        Row(GROUP, f"idle {part}: PSS", "MiB", "less", Side(part, [memory["pss"]])),
    ]


async def _queued(director: Installation, count: int) -> list[Row]:
    connection = await logged_in(director.port, director.password)
    session = {"type": "bench", "name": "Bench"}
    session_id = (await connection.call("POST", "/sessions", session))["id"]
    pool = await connection.call(
        "POST",
        "/departments",
        {
            "sessionId": session_id,
            "name": "Line",
            "domain": "bench",
            "config": {"maxConcurrentTasks": 1},
        },
    )
    begin = {"sessionId": session_id, "name": "Bench", "departmentId": pool["id"]}
    await _start(connection, {**begin, "steps": [_step("sleep 3600")]})
    path = f"/departments/{pool['id']}/metrics"
    await _until(connection, path, "activeTasks", 1)
    held, kept = _held(director), _kept(director)
    for _ in range(count):
        await _start(connection, {**begin, "steps": [_step("true")] * 3})
    await _until(connection, path, "queuedTasks", count)
    await asyncio.sleep(_SETTLE_SECONDS)
    rows = [
        Row(GROUP, f"a queued run, of {count}: {name}", "KiB", "less", Side(name, [more]))
        for name, more in _more(held, _held(director), _kept(director), kept, count).items()
    ]
    connection.close()
    return rows


def _step(command: str) -> dict[str, str]:
    return {"type": "execute", "command": command}


async def _start(connection: Any, body: dict[str, Any]) -> None:
    made = await connection.call("POST", "/workflows", body)
    await connection.call("POST", f"/workflows/{made['id']}/start", {})


async def _until(connection: Any, path: str, name: str, count: int) -> None:
    deadline = time.monotonic() + 300
    while (await connection.call("GET", path))[name] < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} does not come to {count}")
        await asyncio.sleep(0.2)


def _held(director: Installation) -> dict[str, float]:
    parts = ("api", "worker", "temporal")
    return {f"RSS of {part}": director.memory_mib(part)["rss"] * 1024 for part in parts}


def _kept(director: Installation) -> dict[str, float]:
    """Bytes on the disk; what is still in a write-ahead log is counted where it lies."""
    files = {"Director's database": "director.db*", "Temporal's database": "temporal.db*"}
    return {
        name: sum(path.stat().st_size for path in Path(director.home).glob(pattern)) / 1024
        for name, pattern in files.items()
    }


def _more(
    held: dict[str, float],
    holds: dict[str, float],
    keeps: dict[str, float],
    kept: dict[str, float],
    count: int,
) -> dict[str, float]:
    before, after = held | kept, holds | keeps
    return {name: (after[name] - before[name]) / count for name in before}
