"""The bench works: every figure is there. How large it is says the bench itself, on a quiet
machine."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench import page
from bench.figures import Latencies, Row, Side, at_least, at_most, percentile
from bench.results import write
from bench.table import number

ROOT = Path(__file__).parents[1]


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_quick_bench_measures_every_row(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench", "--quick", "--results", str(results)]
    command += ["--folder", str(tmp_path / "work")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(results.read_text())
    assert told["notMeasured"] == {}
    assert {row["group"] for row in told["rows"]} >= {"workflow", "streams", "requests"}
    for row in told["rows"]:
        for side in (row["director"], *row["others"]):
            for value in (side["median"], *side["rounds"], side.get("cpuMs", 0.0)):
                assert math.isfinite(value), f"{row['what']}: {side}"
        if row["others"]:
            assert row["ratio"] > 0, row["what"]
        assert row["what"] in done.stdout
    assert list((tmp_path / "work").iterdir()) == []


def _row(better: str, mine: float, *theirs: float, **more: object) -> Row:
    others = [Side(f"other {value}", [value]) for value in theirs]
    return Row("group", "what", "ms", better, Side("mine", [mine]), others, **more)  # type: ignore[arg-type]


def test_a_ratio_is_taken_against_the_best_other_and_1_is_as_good() -> None:
    assert _row("less", 100.0, 50.0, 200.0).ratio == 0.5
    assert _row("more", 100.0, 50.0, 200.0).ratio == 0.5
    assert _row("less", 100.0).ratio is None


def test_who_is_only_shown_is_not_compared() -> None:
    shown = Side("shown", [1.0], compared=False)
    row = Row("group", "what", "ms", "less", Side("mine", [10.0]), [shown, Side("other", [5.0])])
    assert row.best is not None
    assert row.best.name == "other"


def test_a_target_is_met_or_short_and_never_both() -> None:
    assert _row("less", 100.0, 70.0, target=at_least(0.7)).met == "ok"
    assert _row("less", 100.0, 69.0, target=at_least(0.7)).met == "short"
    assert _row("less", 20.0, target=at_most(20)).met == "ok"
    assert _row("less", 21.0, target=at_most(20)).met == "short"
    assert _row("less", 21.0).met == ""
    assert _row("less", 21.0, target=at_least(0.7)).met == "", "there was nothing to compare with"


def test_what_was_not_measured_meets_no_target() -> None:
    nothing = Row("group", "what", "ms", "less", Side("mine", []), target=at_most(20))
    assert math.isnan(nothing.director.median)
    assert nothing.met == ""


def test_the_median_of_rounds_and_the_slowest_of_a_hundred_over_all_of_them() -> None:
    latencies = Latencies()
    for first in (1.0, 101.0, 201.0):
        latencies.add([first + more for more in range(100)], seconds=2.0, cpu_seconds=0.5)
    assert latencies.p50("mine").median == 150.0
    assert latencies.p99("mine").median == 297.0
    assert latencies.rate("mine").median == 50.0
    assert latencies.p50("mine").cpu == 5.0


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0
    assert percentile([1.0, 2.0], 99) == 2.0
    assert math.isnan(percentile([], 50))


def test_the_page_shows_each_figure_that_was_measured_and_on_what() -> None:
    results = ROOT / "bench" / "results.json"
    shown, told = page.figures(results), json.loads(results.read_text())
    assert f"{told['machine']['cores']} cores" in shown
    for row in told["rows"]:
        figure = f"{number(row['director']['median'])} {row['unit']}"
        assert f"| {row['what']} | {figure} |" in shown
    for rival in told["rivals"]:
        assert f"| {rival['name']} |" in shown
    assert shown in (ROOT / "docs" / "benchmarks.md").read_text(), "`make docs` writes it"


def test_rows_that_are_measured_alone_leave_those_of_the_same_machine_and_no_others(
    tmp_path: Path,
) -> None:
    path, order = tmp_path / "results.json", ["group", "other"]
    here = {"cpu": "a", "cores": 2, "memoryMib": 1, "kernel": "k", "measuredAt": "first"}
    other = replace(_row("less", 1.0), group="other")
    write(path, {"machine": here}, [other], order)
    write(path, {"machine": here | {"measuredAt": "then"}}, [_row("less", 2.0)], order)
    told = json.loads(path.read_text())["rows"]
    assert [(row["group"], row["measuredAt"]) for row in told] == [
        ("group", "then"),
        ("other", "first"),
    ]
    write(path, {"machine": here | {"cpu": "b"}}, [_row("less", 3.0)], order)
    assert [row["group"] for row in json.loads(path.read_text())["rows"]] == ["group"]
