"""The files of a checkpoint, beside tar and zstd on the host, at the library's level."""

from typing import Any

from bench.bench import Bench
from bench.figures import Row, Side, Target, at_least
from bench.processes import Driver

GROUP = "checkpoints"

_MINE, _TAR = "Director", "tar | zstd"
_WHOSE = (_MINE, _TAR)

_FIRST, _CHANGED, _SAME, _RESTORE = "first", "1 % changed", "unchanged", "restore"


def measure(bench: Bench) -> list[Row]:
    """10,000 small files and one of 200 MB; afterwards without the large one."""
    files, large = bench.some(10_000, 200), bench.some(200 * 10**6, 10**7)
    found = _measured(bench, files, large)
    small = _measured(bench, files, 0)
    many = f"{files} files"
    both = f"{many} and one of {large // 10**6} MB"
    return [
        _row(f"{both}: first checkpoint", found[_FIRST], at_least(1 / 1.5)),
        _row(f"{both}: after 1 % changed", found[_CHANGED], at_least(5)),
        _row(f"{both}: restore", found[_RESTORE], at_least(1 / 1.5)),
        _row(f"{many}: first checkpoint", small[_FIRST], None),
        _row(f"{many}: after nothing changed", small[_SAME], None),
        _row(f"{many}: restore", small[_RESTORE], None),
    ]


Measured = dict[str, dict[str, list[dict[str, float]]]]
"""By what is done, and by whom: each round."""


def _measured(bench: Bench, files: int, large: int) -> Measured:
    asked: dict[str, dict[str, Any]] = {
        _FIRST: {"do": "first"},
        _CHANGED: {"do": "again", "percent": 1},
        _SAME: {"do": "again", "percent": 0},
        _RESTORE: {"do": "restore"},
    }
    found: Measured = {what: {whose: [] for whose in _WHOSE} for what in asked}
    home = bench.folder / f"checkpoints-{large}"
    with Driver("bench.drivers.checkpoints", bench.folder) as driver:
        driver.ask(do="prepare", home=str(home), files=files, large=large)
        try:
            for _ in bench.alternating(f"checkpoints, {files} files and {large} bytes"):
                for what, asking in asked.items():
                    for whose in _WHOSE:
                        whom = "tar" if whose == _TAR else "director"
                        found[what][whose].append(driver.ask(**asking, whose=whom))
        finally:
            driver.ask(do="end")
    return found


def _row(what: str, found: dict[str, list[dict[str, float]]], target: Target | None) -> Row:
    mine, tar = (_side(whose, found[whose]) for whose in _WHOSE)
    return Row(GROUP, what, "s", "less", mine, [tar], target)


def _side(name: str, rounds: list[dict[str, float]]) -> Side:
    return Side(name, [one["seconds"] for one in rounds], [one["cpu"] * 1000 for one in rounds])
