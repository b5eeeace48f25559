"""What the demonstration has to say in the end: results, ids, links, and what to try next."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from director.cli.examples import Example
from director.cli.show import RunShow
from director.domain.base import Json
from director.domain.failures import FailureCode
from director.domain.times import utc_now

_SHOWN_OUTPUT = 16
_NAMED = ("DIRECTOR_HOME", "DIRECTOR_PORT")


@dataclass(frozen=True)
class Result:
    """How an example's run ended: `view` is what the API says of it."""

    example: Example
    run: RunShow
    view: Json

    @property
    def verify(self) -> Json:
        """What the verify step found; empty where it was never reached."""
        found = (step["result"] for step in self.view["steps"] if step["type"] == "verify")
        return next(filter(None, found), {})

    @property
    def counts(self) -> Json:
        """How many tests passed and failed, where the verify step could count them."""
        return self.verify.get("counts") or {}

    @property
    def checkpoints(self) -> list[Json]:
        """What the checkpoint steps kept."""
        steps = (step for step in self.view["steps"] if step["type"] == "checkpoint")
        return [step["result"] for step in steps if step["result"]]

    @property
    def message(self) -> str:
        """The run's error where it has one, else what the verify step found."""
        error = self.view["error"] or {}
        return str(error.get("message") or self.verify.get("message") or "")

    @property
    def as_meant(self) -> bool:
        """Whether a good project passed, or the broken one failed at one of its tests."""
        if self.example.passes:
            return bool((self.view["result"] or {}).get("success"))
        code = (self.view["error"] or {}).get("code")
        return code == FailureCode.VERIFICATION_FAILED and bool(self.counts.get("failed"))

    @property
    def seconds(self) -> float:
        """From the first step's start to the last one's end."""
        started = [step.started for step in self.run.steps if step.started]
        ended = [step.ended or utc_now() for step in self.run.steps if step.started]
        return (max(ended) - min(started)).total_seconds() if started else 0.0


@dataclass(frozen=True)
class Place:
    """Where the demonstration ran. `kept` tells that it serves on after the demonstration."""

    api: str
    ui: str
    namespace: str
    home: Path
    kept: bool
    moved: bool = False
    """Whether other ports had to be taken than those of the settings."""


def print_end(console: Console, result: Result, with_output: bool) -> None:
    """Tell how one run ended, in a few lines, `with_output` the end of a failed one's output."""
    good, view = result.view["status"] == "completed", result.view
    sign = Text("✓ " if good else "✗ ", style="green" if good else "red")
    head = f"{result.example.name}: {view['status']} after {result.seconds:.1f} s"
    console.print(sign + Text(head, style="bold"))
    console.print(Text(f"  {result.message}"))
    if with_output and not good:
        for line in _relevant(result.run.tail.last(_SHOWN_OUTPUT)):
            shown = Text(f"  | {line}", style="dim")
            console.print(shown, no_wrap=True, overflow="ellipsis")
    if judgement := _judgement(result):
        console.print(Text(f"  {judgement}", style="" if result.as_meant else "bold red"))


def print_results(console: Console, results: Sequence[Result], place: Place) -> None:
    """Print the table of results, the checkpoints and the links."""
    console.print()
    console.print(_table(results), soft_wrap=False)
    console.print("\nCheckpoints")
    for result in results:
        for line in _checkpoint_lines(result):
            console.print(Text(f"  {line}"))
    console.print("\nEach run in the Temporal UI")
    for result in results:
        console.print(Text(f"  {history_link(place, result.view)}"), soft_wrap=True)
    console.print(f"\nAPI docs\n  {place.api}/docs", soft_wrap=True)


def print_next(console: Console, last: Json, place: Place, environ: Mapping[str, str]) -> None:
    """Say whether the links work now, and what to try next."""
    console.print()
    if place.kept:
        console.print("Director was up before and still is, so these links work now.")
        console.print("To read the last run back, paste this:")
    else:
        console.print(f"The servers are stopped; the data stays in {place.home}.")
        works = "these links work then"
        if place.moved:
            works = "its addresses may differ from these, since some ports were taken"
        console.print(f"Next: `{up_command(environ)}` serves it again, and {works}.")
        console.print("While it serves, paste this to read the last run back:")
    console.print(Text(f"\n{read_back(last, place, environ)}\n"), soft_wrap=True)


def history_link(place: Place, view: Json) -> str:
    """The address of a run's history in the Temporal UI."""
    execution = (view["temporal"] or {}).get("runId")
    address = f"{place.ui}/namespaces/{place.namespace}/workflows/{view['runId']}"
    return f"{address}/{execution}/history" if execution else address


def up_command(environ: Mapping[str, str]) -> str:
    """`make up`, for the same home and port."""
    named = [f"{name}={shlex.quote(environ[name])}" for name in _NAMED if environ.get(name)]
    return " ".join([*named, "make up"])


def read_back(view: Json, place: Place, environ: Mapping[str, str]) -> str:
    """Shell lines that log in and get a run."""
    username = environ.get("DIRECTOR_ADMIN_USERNAME") or "admin"
    password = f"$(cat {shlex.quote(str(place.home / 'admin-password'))})"
    if environ.get("DIRECTOR_ADMIN_PASSWORD"):
        password = "$DIRECTOR_ADMIN_PASSWORD"  # noqa: S105 - the variable, not its value
    path = f"/v1/workflows/{view['workflowId']}/runs/{view['runId']}"
    return f"""\
  TOKEN=$(curl -s {place.api}/v1/auth/login -H 'Content-Type: application/json' \\
    -d "{{\\"username\\": \\"{username}\\", \\"password\\": \\"{password}\\"}}" \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"]["token"])')
  curl -s {place.api}{path} \\
    -H "Authorization: Bearer $TOKEN" | python3 -m json.tool"""


def _judgement(result: Result) -> str:
    if result.as_meant:
        return "" if result.example.passes else "As meant: its leap-year rule has a bug."
    meant = "pass" if result.example.passes else "fail at one of its tests"
    return f"Not as meant: this project was to {meant}."


def _relevant(lines: Sequence[str]) -> Sequence[str]:
    first = next((index for index, line in enumerate(lines) if line.strip()), len(lines))
    return lines[first:]


def _table(results: Sequence[Result]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("project")
    table.add_column("status")
    for title in ("pass", "fail", "tests", "time"):
        table.add_column(title, justify="right")
    table.add_column("run", overflow="fold")
    for result in results:
        counts = result.counts
        numbers = [str(counts.get(name, "-")) for name in ("passed", "failed", "total")]
        status, run = result.view["status"], result.view["runId"]
        table.add_row(result.example.name, status, *numbers, f"{result.seconds:.1f} s", run)
    return table


def _checkpoint_lines(result: Result) -> list[str]:
    name = result.example.name
    if not result.checkpoints:
        return [f"{name}: none, since the run failed before it"]
    return [
        f"{name}: {kept['checkpointId']} ({kept['files']} files, {kept['bytes']} bytes)"
        for kept in result.checkpoints
    ]
