"""Which part of Director is hit when, how, and how long it stays down: drawn, then done."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple

from director.cli.stack import Stack

Blow = Literal["kill", "term", "stop"]

ALL = "all"
_LEAST_UP = 0.5
"""Seconds that a part is up at least between two blows."""
_TERM_SECONDS = 45.0
_AMBUSHES, _AMBUSH_SECONDS = 0.6, 0.12
_LURK_SECONDS = 3.0


class Outage(NamedTuple):
    """One blow to one part."""

    at: float
    part: str
    blow: Blow
    """`stop` freezes the part, and thaws it or kills it frozen after `down` seconds."""
    down: float
    thawed: bool = True
    ambush: float | None = None
    """So many seconds after the next event that a part has to write down, not at any time: the
    moments in which a crash leaves the most behind are too short for a blind blow to meet."""


class Habits(NamedTuple):
    """How often a part is hit, and with what."""

    up: tuple[float, float]
    down: tuple[float, float]
    frozen: tuple[float, float]
    blows: dict[Blow, int]


WORKER = Habits((4.0, 22.0), (0.1, 5.0), (5.0, 9.0), {"kill": 65, "term": 15, "stop": 20})
"""Frozen longer than the heartbeat time-out: a second worker takes over, then there are two."""
API = Habits((5.0, 25.0), (0.1, 3.0), (1.0, 4.0), {"kill": 75, "term": 15, "stop": 10})
TEMPORAL = Habits((10.0, 35.0), (0.1, 4.0), (1.0, 5.0), {"kill": 75, "term": 15, "stop": 10})
TOGETHER = Habits((25.0, 70.0), (0.1, 3.0), (0.0, 0.0), {"kill": 100})


def habits_of(part: str) -> Habits:
    """How a part is treated."""
    named = {"api": API, "temporal": TEMPORAL, ALL: TOGETHER}
    return named.get(part, WORKER)


def drawn(seed: int, seconds: float, parts: list[str]) -> list[Outage]:
    """All outages of a chaos; each part has a time line of its own, so that they overlap. All are
    over when the time is."""
    found = [outage for part in parts for outage in _line(seed, seconds, part)]
    return sorted(found)


def _line(seed: int, seconds: float, part: str) -> list[Outage]:
    random, habits = Random(f"{seed}: {part}"), habits_of(part)
    at, found = random.uniform(1.0, habits.up[1]), []
    while at < seconds:
        (blow,) = random.choices(list(habits.blows), list(habits.blows.values()))
        down = random.uniform(*(habits.frozen if blow == "stop" else habits.down))
        down = max(0.1, min(down, seconds - at))
        thawed, ambush = random.random() < 0.75, random.uniform(0.0, _AMBUSH_SECONDS)
        lurks = random.random() < _AMBUSHES
        drawn = Outage(round(at, 2), part, blow, round(down, 2), thawed)
        found.append(drawn._replace(ambush=ambush) if lurks else drawn)
        at += down + random.uniform(*habits.up)
    return found


class Events:
    """Tells an ambush that a command has ended, or that a client has asked for something."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def happened(self) -> None:
        """Wake whoever waits."""
        self._next.set()
        self._next = asyncio.Event()

    async def next(self) -> None:
        """Wait for the next event, at most for some seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._next.wait(), _LURK_SECONDS)


@dataclass
class Killer:
    """Does what was drawn to the parts of a stack, and begins again what has ended."""

    stack: Stack
    outages: Sequence[Outage]
    events: Events
    seconds: float
    blows: Counter[str] = field(default_factory=Counter)
    deaths: Counter[str] = field(default_factory=Counter)
    """Parts that ended without a blow of ours."""
    deaf: list[str] = field(default_factory=list)
    """Parts that did not end on SIGTERM."""
    last_at: float = 0.0
    """When the last blow was over, in seconds since the epoch."""
    _down: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Do all outages at their times; what is late is left out, what has begun is ended."""
        begun = time.monotonic()
        lines: dict[str, list[Outage]] = {}
        for outage in self.outages:
            lines.setdefault(outage.part, []).append(outage)
        async with asyncio.TaskGroup() as tasks:
            for line in lines.values():
                tasks.create_task(self._follow(line, begun))
        self.last_at = time.time()

    async def nurse(self) -> None:
        """Begin again what ends without a blow of ours, as `director up` does; for ever."""
        while True:
            for part in self.stack.ended():
                if part not in self._down:
                    self.deaths[f"{part}: {self.stack.code(part)}"] += 1
                    self.stack.begin(part)
            await asyncio.sleep(0.5)

    async def _follow(self, line: list[Outage], begun: float) -> None:
        for outage in line:
            wait = outage.at - (time.monotonic() - begun)
            await asyncio.sleep(max(wait, _LEAST_UP))
            if time.monotonic() - begun > self.seconds:
                return
            if outage.ambush is not None:
                await self.events.next()
                await asyncio.sleep(outage.ambush)
            if outage.part == ALL:
                await self._hit_all(outage)
            elif outage.part not in self._down:
                await self._hit(outage)

    async def _hit_all(self, outage: Outage) -> None:
        parts = [part for part in self._parts() if part not in self._down]
        async with asyncio.TaskGroup() as tasks:
            for part in parts:
                tasks.create_task(self._hit(outage._replace(part=part)))

    def _parts(self) -> list[str]:
        return ["temporal", "api", *self.stack.workers]

    async def _hit(self, outage: Outage) -> None:
        part = outage.part
        if part in self.stack.ended():
            return  # the nurse has not seen it yet
        self._down.add(part)
        self.blows[f"{part}: {outage.blow}"] += 1
        if outage.blow == "stop":
            await self._freeze(outage)
        else:
            await self._end(part, signal.SIGKILL if outage.blow == "kill" else signal.SIGTERM)
            await asyncio.sleep(outage.down)
            self.stack.begin(part)
        self._down.discard(part)

    async def _freeze(self, outage: Outage) -> None:
        part = outage.part
        os.kill(self.stack.pid(part), signal.SIGSTOP)
        await asyncio.sleep(outage.down)
        if outage.thawed:
            os.kill(self.stack.pid(part), signal.SIGCONT)
        else:
            await self._end(part, signal.SIGKILL)
            self.stack.begin(part)

    async def _end(self, part: str, number: signal.Signals) -> None:
        os.kill(self.stack.pid(part), number)
        deadline = time.monotonic() + _TERM_SECONDS
        while part not in self.stack.ended():
            if time.monotonic() > deadline:
                self.deaf.append(f"{part} has not ended {_TERM_SECONDS:g} s after {number.name}")
                os.kill(self.stack.pid(part), signal.SIGKILL)
                deadline += _TERM_SECONDS
            await asyncio.sleep(0.02)
