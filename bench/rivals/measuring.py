"""What all rivals have in common; nothing in here needs more than the standard library."""

import json
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from bench.figures import Latencies, Side
from bench.processes import cpu_seconds, many

LEVELS = {1: 20, 8: 48, 32: 96}


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


One = Callable[[int], Awaitable[None]]


async def three_steps(
    one: One, pids: list[int], rounds: int, levels: dict[int, int] | None = None
) -> list[dict[str, Any]]:
    """Latency and throughput of three steps, at each level of concurrency."""
    levels = levels or LEVELS
    taken = {level: Latencies() for level in levels}
    await many(1, 3, one)
    for _ in range(rounds):
        for level, count in levels.items():
            before = cpu_seconds(pids)
            done = await many(level, count, one)
            taken[level].add(done["millis"], done["seconds"], cpu_seconds(pids) - before)
    rows = []
    for level, latencies in taken.items():
        what = f"3 no-op steps, {level} at a time"
        rows.append(row(f"{what}: p50", "ms", latencies.p50("")))
        rows.append(row(f"{what}: p99", "ms", latencies.p99("")))
        rows.append(row(f"{what}: throughput", "runs/s", latencies.rate("")))
    return rows


def row(what: str, unit: str, side: Side) -> dict[str, Any]:
    """A line of the table."""
    told = {key: value for key, value in side.json().items() if key != "name"}
    return {"what": what, "unit": unit, **told}


def tell(*rivals: dict[str, Any]) -> None:
    """The last line that is printed is what was measured."""
    sys.stdout.write("\n" + json.dumps(rivals) + "\n")
    sys.stdout.flush()
