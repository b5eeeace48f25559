"""`results.json`: everything that was measured, for programs; what rivals wrote is gathered in.

Where only some rows were measured now, those of others stay that were measured on this machine."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.figures import Row
from bench.processes import ROOT

RIVALS = ROOT / "bench" / "rivals"
_SAME = ("cpu", "cores", "memoryMib", "kernel")


def write(
    path: Path, before: dict[str, Any], rows: list[Row], order: Sequence[str], **about: Any
) -> dict[str, Any]:
    """Write it, with the groups of rows in that order, and give it back."""
    machine = before["machine"]
    new = [row.json() | {"measuredAt": machine["measuredAt"]} for row in rows]
    kept = _others(path, machine, {row.group for row in rows})
    told = {
        **before,
        **about,
        "rows": sorted([*kept, *new], key=lambda row: order.index(row["group"])),
        "rivals": rivals(),
    }
    path.write_text(json.dumps(_finite(told), indent=1, ensure_ascii=False) + "\n")
    return told


def _others(path: Path, machine: dict[str, Any], measured: set[str]) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    told = json.loads(path.read_text())
    if any(told["machine"].get(name) != machine[name] for name in _SAME):
        return []
    at = {"measuredAt": told["machine"]["measuredAt"]}
    return [at | row for row in told["rows"] if row["group"] not in measured]


def rivals() -> list[dict[str, Any]]:
    """What `make bench-…` wrote, each by its own target on this machine."""
    paths = sorted(RIVALS.glob("*.json"))
    return [rival for path in paths for rival in json.loads(path.read_text())]


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be told is null."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return None if not math.isfinite(value) else round(value, 4)
    return value
