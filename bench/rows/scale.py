"""Pages and replays on much data beside the same on little: measured by `bench.scale`, where this
version has it."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from bench.bench import Bench
from bench.databases import databases
from bench.engine import NotHereError
from bench.figures import Row, Side, at_least

GROUP = "scale"

_LITTLE, _MUCH = "1,000 rows", "1,000,000 events, 100,000 workflows"


def measure(bench: Bench) -> list[Row]:
    """p99 on much data: at most three times that on little."""
    if find_spec("bench.scale") is None:
        raise NotHereError("this version has no bench.scale")
    scale = import_module("bench.scale")
    with databases(bench) as found:
        return [
            _row(database.name, one)
            for database in found
            for one in scale.rows(database.url(bench, "scale"))
        ]


def _row(database: str, one: Any) -> Row:
    much, little = Side(_MUCH, [one.large_p99_ms]), Side(_LITTLE, [one.small_p99_ms])
    what = f"{one.name}, {database}: p99"
    return Row(GROUP, what, "ms", "less", much, [little], at_least(1 / 3))
