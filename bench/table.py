"""The one table on the terminal."""

import math
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from bench.figures import OK, SHORT, Row, Side

_WIDTH = 150
_COLOURS = {OK: "green", SHORT: "yellow"}


def show(rows: list[Row], told: dict[str, Any]) -> None:
    """Print the table, and on what it was measured."""
    table = Table(box=box.SIMPLE_HEAD, caption=caption(told), caption_justify="left")
    table.add_column("measured")
    for name in ("Director", "beside it", "ratio", "target", ""):
        table.add_column(name, justify="left" if name == "beside it" else "right")
    table.add_column("CPU ms each", justify="right")
    group = ""
    for row in rows:
        if group not in ("", row.group):
            table.add_section()
        group = row.group
        table.add_row(*_cells(row))
    for rival in told["rivals"]:
        _add_rival(table, rival)
    console = Console(highlight=False)
    console.width = max(console.width, _WIDTH)
    console.print(table)


def _cells(row: Row) -> list[str]:
    best = row.best
    colour = _COLOURS.get(row.met, "")
    others = [f"{number(side.median)} {side.name}" for side in row.others]
    remark = f"\n[dim]{row.remark}[/dim]" if row.remark else ""
    return [
        f"{row.what}{remark}",
        f"{number(row.director.median)} {row.unit}",
        "\n".join(others),
        "" if row.ratio is None else f"{number(row.ratio)} ×",
        row.target.text(row.unit) if row.target else "",
        f"[{colour}]{row.met}[/{colour}]" if colour else row.met,
        _cpu(row.director, best),
    ]


def _add_rival(table: Table, rival: dict[str, Any]) -> None:
    table.add_section()
    table.add_row(f"{rival['name']}\n[dim]{rival['remark']}[/dim]")
    for row in rival["rows"]:
        cpu = number(row["cpuMs"]) if "cpuMs" in row else ""
        theirs = f"{number(row['median'])} {row['unit']}, {rival['name']}"
        table.add_row(row["what"], "", theirs, "", "", "", cpu)


def _cpu(director: Side, best: Side | None) -> str:
    if director.cpu is None:
        return ""
    theirs = f" / {number(best.cpu)}" if best is not None and best.cpu is not None else ""
    return number(director.cpu) + theirs


def number(value: float | None) -> str:
    """Three digits are enough for people."""
    if value is None or not math.isfinite(value):
        return "?"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def caption(told: dict[str, Any]) -> str:
    """On what it was measured."""
    machine, versions = told["machine"], told["versions"]
    where = f"{machine['cpu']}, {machine['cores']} cores, {machine['memoryMib']} MiB"
    with_what = f"Linux {machine['kernel']}, Python {versions['python']}, {versions['temporal']}"
    how = f"medians of {told['rounds']} rounds; load before: {machine['loadBefore']:.1f}"
    return f"{where}; {with_what}, Docker {versions['docker engine'] or 'none'}\n{how}"
