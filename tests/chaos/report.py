"""The figures of a chaos as a table for people, and the verdict on them."""

import os
from collections import Counter

from chaos.campaign import Campaign, Record
from chaos.checker import Figure, check
from chaos.ledger import lines
from chaos.observations import ENDED
from e2e.installation import remove_containers
from rich.console import Console
from rich.table import Table

SEED = int(os.environ.get("DIRECTOR_CHAOS_SEED", "58"))
"""Of the tests: the same in every run, so that a failure can be had again; `make chaos` draws
another one each time."""

_SHOWN = 12
"""Cases that are shown of a figure."""


def nothing_is_wrong(campaign: Campaign) -> None:
    """Do a campaign, print its figures, and fail where one that must be zero is not."""
    try:
        record = campaign.run()
    finally:
        remove_containers(campaign.home)
    figures = check(record.seen)
    show(Console(width=100), record, figures)
    assert {figure.name: figure.cases for figure in figures if figure.cases} == {}


def show(console: Console, record: Record, figures: list[Figure]) -> None:
    """Print what happened, what must be zero, and the cases of what is not."""
    console.print(_facts(record))
    console.print(_zeros(figures))
    for figure in figures:
        if figure.value:
            console.print(f"\n[bold red]{figure.name}: {figure.value}")
        for case in figure.cases[:_SHOWN]:
            console.print(f"  {case}", markup=False, soft_wrap=True)
    if any(figure.value for figure in figures):
        where = f"seed {record.seed}, files in {record.home}"
        console.print(where, markup=False, soft_wrap=True)


def _zeros(figures: list[Figure]) -> Table:
    table = Table("must be zero", "", title="What was found")
    for figure in figures:
        table.add_row(figure.name, f"[{'red' if figure.value else 'green'}]{figure.value}")
    return table


def _facts(record: Record) -> Table:
    table = Table("figure", "", title=f"{record.seconds:g} s of chaos, seed {record.seed}")
    for name, value in facts(record).items():
        table.add_row(name, value)
    return table


def facts(record: Record) -> dict[str, str]:
    """What happened, by its name."""
    runs = [run for run in record.seen.runs if run.status in ENDED]
    ends = [run.completed_at for run in runs if run.completed_at is not None]
    orders = {order.name: order for order in record.seen.orders}
    stormy = [run for run in runs if run.name in orders]
    return {
        "blows": _counted(record.blows),
        "ended by themselves": _counted(record.deaths),
        "runs": _counted(Counter(run.status for run in stormy)),
        "kinds": _counted(Counter(order.kind for order in record.seen.orders)),
        "runs a minute": f"{60 * len(stormy) / record.took:.0f}" if record.took else "-",
        "commands": str(_commands(record)),
        "attempts of requests": _counted(record.tries),
        "connections of listeners": str(record.connections),
        "frames": str(sum(map(len, record.seen.heard))),
        "last end after the last blow": f"{max(ends, default=0) - record.last_blow:.1f} s",
        "seconds in all": f"{record.total:.0f}",
        "longest after its last sign of life too": _slowest(record),
    }


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def _commands(record: Record) -> int:
    texts = [text for files in record.seen.ledgers.values() for text in files]
    return len({line.nonce for text in texts for line in lines(text)})


def _slowest(record: Record) -> str:
    """The run that took longest to end after its last command and the last blow were over."""
    waits = [(0.0, "none")]
    kinds = {order.name: order.kind for order in record.seen.orders}
    for run in record.seen.runs:
        found = [line for text in record.seen.ledgers.get(run.id, []) for line in lines(text)]
        if run.completed_at is not None and run.name in kinds:
            last = max((line.at for line in found), default=run.created_at)
            waited = run.completed_at - max(last, record.last_blow)
            waits.append((waited, f"{run.name}, {kinds[run.name]}"))
    seconds, name = max(waits)
    return f"{seconds:.1f} s ({name})"
