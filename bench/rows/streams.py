"""From the end of a step to the frame on a WebSocket, beside a bare broadcast of such a frame."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bench.bench import Bench
from bench.figures import Latencies, Row, Side, at_least, at_most
from bench.http import logged_in
from bench.installation import Installation, free_ports
from bench.processes import Driver, cpu_seconds, memory_mib

GROUP = "streams"

PAUSE = 0.3
"""Seconds between two steps, so that a frame waits for no frame before it."""

_COMMANDS = [f"sleep {PAUSE}"] * 3
_LOOPS = ("asyncio", "uvloop")
_DRIVERS = 2
_SETTLE = 1.0


class Crowd:
    """Listeners in a few processes."""

    def __init__(self, drivers: list[Driver]) -> None:
        self._drivers = drivers

    def connect(self, count: int, **where: Any) -> None:
        """Let so many come, spread over the processes."""
        shares = [count // len(self._drivers)] * len(self._drivers)
        shares[0] += count - sum(shares)
        for driver, share in zip(self._drivers, shares, strict=True):
            if share:
                driver.ask(do="connect", count=share, **where)

    def collect(self) -> tuple[list[float], str]:
        """The latencies since the last time. Raises RuntimeError where a listener is gone."""
        told = [driver.ask(do="collect") for driver in self._drivers]
        if gone := [why for one in told for why in one["gone"]]:
            raise RuntimeError(f"{len(gone)} listeners are gone: {gone[0]}")
        frames = [one["frame"] for one in told if one["frame"]]
        return [value for one in told for value in one["millis"]], frames[0] if frames else ""

    def close(self) -> None:
        """Let all of them go."""
        for driver in self._drivers:
            driver.ask(do="close")


class Broadcast(Driver):
    """The bare server."""

    def __init__(self, bench: Bench, loop: str) -> None:
        super().__init__("bench.bare.broadcast", bench.folder)
        self.port, self.name = free_ports().api, f"bare, {loop}"
        self._command += [str(self.port), loop]


def measure(bench: Bench) -> list[Row]:
    """At 1, 100 and 1,000 listeners: the frame's way, and what a listener holds of memory."""
    rows = []
    with bench.scripted() as director, _parts(bench, director) as (crowd, runs, bare):
        for count in bench.some([1, 100, 1000], [1, 20]):
            rows += _rows(bench, director, crowd, runs, bare, count)
    return rows


@contextmanager
def _parts(bench: Bench, director: Installation) -> Iterator[tuple[Crowd, Driver, list[Broadcast]]]:
    with ExitStack() as stack:
        drivers = [
            stack.enter_context(Driver("bench.drivers.listeners", bench.folder))
            for _ in range(_DRIVERS)
        ]
        runs = stack.enter_context(Driver("bench.drivers.runs", bench.folder))
        access = {"port": director.port, "password": director.password}
        runs.ask(do="prepare", lanes=1, commands=_COMMANDS, **access)
        runs.ask(do="run", concurrency=1, count=1)
        bare = [stack.enter_context(Broadcast(bench, loop)) for loop in _LOOPS]
        for one in bare:
            one.line()
        yield Crowd(drivers), runs, bare


def _rows(
    bench: Bench,
    director: Installation,
    crowd: Crowd,
    runs: Driver,
    bare: list[Broadcast],
    count: int,
) -> list[Row]:
    times = bench.some(8 if count == 1 else 4, 1)
    taken = {name: Latencies() for name in ("Director", *(one.name for one in bare))}
    held: dict[str, list[float]] = {name: [] for name in taken}
    for _ in bench.alternating(f"{count} listeners"):
        with _listening(crowd, director, count, held["Director"]):
            before = cpu_seconds([director.stack.pid("api")])
            runs.ask(do="run", concurrency=1, count=times)
            used = cpu_seconds([director.stack.pid("api")]) - before
            millis, frame = _come(crowd, count * times * len(_COMMANDS))
            taken["Director"].add(millis, 1.0, used)
        for one in bare:
            frames = times * len(_COMMANDS)
            with _connected(crowd, one, count, held[one.name]):
                before = cpu_seconds([one.pid])
                one.ask(do="send", frame=frame, count=frames, pause=PAUSE)
                used = cpu_seconds([one.pid]) - before
                taken[one.name].add(_come(crowd, count * frames)[0], 1.0, used)
    return _latency_rows(count, taken) + (_memory_rows(count, held) if count > 1 else [])


def _come(crowd: Crowd, wanted: int) -> tuple[list[float], str]:
    """All that is to come: a frame too few is a fault, not a figure."""
    millis, frame = crowd.collect()
    deadline = time.monotonic() + 10
    while len(millis) < wanted and time.monotonic() < deadline:
        time.sleep(0.1)
        more, last = crowd.collect()
        millis, frame = [*millis, *more], last or frame
    if len(millis) != wanted:
        raise RuntimeError(f"{len(millis)} frames came of {wanted}")
    return millis, frame


@contextmanager
def _listening(
    crowd: Crowd, director: Installation, count: int, held: list[float]
) -> Iterator[None]:
    token = asyncio.run(_token(director))
    pid = director.stack.pid("api")
    with _held(crowd, pid, count, held, port=director.port, path="/v1/ws", token=token):
        yield


@contextmanager
def _connected(crowd: Crowd, bare: Broadcast, count: int, held: list[float]) -> Iterator[None]:
    with _held(crowd, bare.pid, count, held, port=bare.port, path="/"):
        yield


@contextmanager
def _held(crowd: Crowd, pid: int, count: int, held: list[float], **where: Any) -> Iterator[None]:
    """Let listeners be there while the block lasts, and note what one holds of memory."""
    before = memory_mib(pid)["rss"]
    crowd.connect(count, **where)
    time.sleep(_SETTLE)
    held.append((memory_mib(pid)["rss"] - before) * 1024 / count)
    try:
        yield
    finally:
        crowd.close()
        time.sleep(_SETTLE)


async def _token(director: Installation) -> str:
    connection = await logged_in(director.port, director.password)
    connection.close()
    return connection.headers["Authorization"].removeprefix("Bearer ")


def _latency_rows(count: int, taken: dict[str, Latencies]) -> list[Row]:
    mine, *names = taken
    few = count == 1
    many = None if count < 1000 else at_least(1 / 3)
    what = f"step end to frame, {count} listener{'' if few else 's'}"
    return [
        Row(
            GROUP,
            f"{what}: p50",
            "ms",
            "less",
            taken[mine].p50(mine),
            [taken[name].p50(name) for name in names],
            at_most(20) if few else many,
        ),
        Row(
            GROUP,
            f"{what}: p99",
            "ms",
            "less",
            taken[mine].p99(mine),
            [taken[name].p99(name) for name in names],
            at_most(60) if few else many,
        ),
    ]


def _memory_rows(count: int, held: dict[str, list[float]]) -> list[Row]:
    """Memory that was freed before is used again: the first round alone tells what is held."""
    mine, *names = held
    sides = {name: Side(name, [max(values)]) for name, values in held.items()}
    what = f"memory of a listener, {count} of them"
    return [Row(GROUP, what, "KiB", "less", sides[mine], [sides[name] for name in names])]
