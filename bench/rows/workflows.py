"""A workflow of three steps that do nothing: through REST, and bare on the same server."""

from contextlib import ExitStack

from bench import contenders
from bench.bench import Bench
from bench.contenders import NOT_EAGER, RUNNERS, Contender
from bench.figures import Latencies, Row, at_least

GROUP = "workflow"


def measure(bench: Bench) -> list[Row]:
    """Latency of one at a time, and throughput of several at once."""
    levels = bench.some({1: 20, 8: 48, 32: 96}, {1: 3, 8: 8})
    with bench.scripted() as installation, ExitStack() as stack:
        mine = contenders.director(bench, installation, max(levels), stack)
        runners = RUNNERS if bench.quick else (*RUNNERS, NOT_EAGER)
        others = contenders.bare(bench, installation, stack, runners)
        for one in (mine, *others):
            one.run(4, bench.some(8, 4))
        taken = {(level, one.name): Latencies() for level in levels for one in (mine, *others)}
        for _ in bench.alternating("three steps, REST and bare Temporal"):
            for level, count in levels.items():
                for one in (mine, *others):
                    one.take(taken[level, one.name], level, count)
    return [
        row
        for level in levels
        for row in _rows(
            level,
            taken[level, mine.name],
            [(one, taken[level, one.name]) for one in others],
        )
    ]


def _rows(level: int, mine: Latencies, others: list[tuple[Contender, Latencies]]) -> list[Row]:
    what = f"3 no-op steps, {level} at a time"
    name = "Director through REST, scripted sandbox"
    p50 = Row(
        GROUP,
        f"{what}: p50",
        "ms",
        "less",
        mine.p50(name),
        [taken.p50(one.name, compared=one.compared) for one, taken in others],
        at_least(0.7),
    )
    p99 = Row(
        GROUP,
        f"{what}: p99",
        "ms",
        "less",
        mine.p99(name),
        [taken.p99(one.name, compared=one.compared) for one, taken in others],
    )
    rate = Row(
        GROUP,
        f"{what}: throughput",
        "runs/s",
        "more",
        mine.rate(name),
        [taken.rate(one.name, compared=one.compared) for one, taken in others],
        at_least(0.7),
    )
    return [p50, p99] if level == 1 else [rate, p99]
