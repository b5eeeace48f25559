"""What was measured: sides of a row, round by round, and how they compare."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

Better = Literal["less", "more"]
OK, SHORT, UNKNOWN = "ok", "short", ""


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which so many percent lie (nearest rank); of nothing there is none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


@dataclass(frozen=True)
class Side:
    """One of those who are compared: a value for each round, and what an operation cost."""

    name: str
    values: list[float]
    cpu_ms: list[float] = field(default_factory=list)
    """CPU milliseconds of all its processes for one operation, for each round."""
    compared: bool = True
    """Whether ratios are taken against it; one that is not is only shown."""
    remark: str = ""

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.values) if self.values else math.nan

    @property
    def cpu(self) -> float | None:
        """The median of the CPU milliseconds for one operation; None where it was not taken."""
        return statistics.median(self.cpu_ms) if self.cpu_ms else None

    def json(self) -> dict[str, Any]:
        """For `results.json`."""
        told: dict[str, Any] = {"name": self.name, "median": self.median, "rounds": self.values}
        if self.cpu is not None:
            told["cpuMs"] = self.cpu
        return told | ({"remark": self.remark} if self.remark else {})


@dataclass(frozen=True)
class Target:
    """What was promised: a ratio of at least, or a value of at most."""

    kind: Literal["ratio", "value"]
    bound: float

    def met(self, value: float, ratio: float | None) -> str:
        """`ok` or `short`; empty where there is nothing to judge."""
        if self.kind == "value":
            return UNKNOWN if math.isnan(value) else OK if value <= self.bound else SHORT
        if ratio is None or math.isnan(ratio):
            return UNKNOWN
        return OK if ratio >= self.bound else SHORT

    def text(self, unit: str) -> str:
        """For people."""
        return f"≥ {self.bound:.2g} ×" if self.kind == "ratio" else f"≤ {self.bound:g} {unit}"


def at_least(ratio: float) -> Target:
    """The promise to be at least so many times as good as the best that is compared."""
    return Target("ratio", ratio)


def at_most(value: float) -> Target:
    """The promise that a value is at most so large."""
    return Target("value", value)


@dataclass(frozen=True)
class Row:
    """A line of the table: Director's side, and the others'."""

    group: str
    what: str
    unit: str
    better: Better
    director: Side
    others: list[Side] = field(default_factory=list)
    target: Target | None = None
    remark: str = ""

    @property
    def best(self) -> Side | None:
        """The better one of those that are compared: a rival is taken at its best."""
        compared = [side for side in self.others if side.compared and side.values]
        if not compared:
            return None
        pick = min if self.better == "less" else max
        return pick(compared, key=lambda side: side.median)

    @property
    def ratio(self) -> float | None:
        """How good Director is: 1 is as good as the best other, 0.5 half as good."""
        if (best := self.best) is None:
            return None
        mine, theirs = self.director.median, best.median
        above, below = (theirs, mine) if self.better == "less" else (mine, theirs)
        return above / below if below else math.nan

    @property
    def met(self) -> str:
        """Whether the target was met."""
        return self.target.met(self.director.median, self.ratio) if self.target else UNKNOWN

    def json(self) -> dict[str, Any]:
        """For `results.json`."""
        told: dict[str, Any] = {
            "group": self.group,
            "what": self.what,
            "unit": self.unit,
            "better": self.better,
            "director": self.director.json(),
            "others": [side.json() for side in self.others],
            "against": self.best.name if self.best else None,
            "ratio": self.ratio,
            "target": self.target.text(self.unit) if self.target else None,
            "met": self.met or None,
        }
        return told | ({"remark": self.remark} if self.remark else {})


@dataclass
class Latencies:
    """Milliseconds of single operations, round by round."""

    rounds: list[list[float]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)

    def add(self, millis: list[float], seconds: float, cpu_seconds: float) -> None:
        """Note a round: its operations, how long it took, and what it cost."""
        self.rounds.append(millis)
        self.seconds.append(seconds)
        self.cpu_ms.append(cpu_seconds * 1000 / max(1, len(millis)))

    def p50(self, name: str, **more: Any) -> Side:
        """The median operation of each round."""
        return Side(name, [percentile(one, 50) for one in self.rounds], self.cpu_ms, **more)

    def p99(self, name: str, **more: Any) -> Side:
        """The slowest of a hundred operations, over all rounds: one round has too few."""
        return Side(name, [percentile(list(chain.from_iterable(self.rounds)), 99)], **more)

    def rate(self, name: str, **more: Any) -> Side:
        """Operations for each second."""
        done = zip(self.rounds, self.seconds, strict=True)
        return Side(name, [len(one) / took for one, took in done], self.cpu_ms, **more)
