"""The figures of `results.json` as a part of `docs/benchmarks.md`."""

import json
from pathlib import Path
from typing import Any

from bench.table import caption, number

_HEAD = "| measured | Director | beside it | ratio | target | | CPU ms each |\n"
_RULE = "| --- | ---: | --- | ---: | ---: | --- | ---: |"


def figures(results: Path) -> str:
    """The tables, with what they were measured on."""
    told = json.loads(results.read_text())
    rows = [_line(row) for row in told["rows"]]
    rivals = [_rival(rival, row) for rival in told["rivals"] for row in rival["rows"]]
    parts = ["\n".join([_HEAD + _RULE, *rows])]
    if rivals:
        head = "| measured | rival | | CPU ms each |\n| --- | --- | ---: | ---: |"
        parts.append("\n".join([head, *rivals]))
    where = caption(told).replace("\n", "; ")
    return "\n\n".join([f"{where}.", *parts])


def _line(row: dict[str, Any]) -> str:
    director = row["director"]
    others = "<br>".join(f"{number(side['median'])} {side['name']}" for side in row["others"])
    against = next((side for side in row["others"] if side["name"] == row["against"]), {})
    costs = [number(side["cpuMs"]) for side in (director, against) if "cpuMs" in side]
    ratio = "" if row["ratio"] is None else f"{number(row['ratio'])} ×"
    cells = [
        row["what"],
        f"{number(director['median'])} {row['unit']}",
        others,
        ratio,
        row["target"] or "",
        row["met"] or "",
        " / ".join(costs),
    ]
    return f"| {' | '.join(cells)} |"


def _rival(rival: dict[str, Any], row: dict[str, Any]) -> str:
    cpu = number(row["cpuMs"]) if "cpuMs" in row else ""
    return f"| {row['what']} | {rival['name']} | {number(row['median'])} {row['unit']} | {cpu} |"
