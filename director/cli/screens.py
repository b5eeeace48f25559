"""Showing runs: a live block where there is a terminal, plain lines where there is none."""

import io
import sys
import time
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from director.cli.show import Change, RunShow, StepShow
from director.domain.runs import StepStatus
from director.domain.times import utc_now

_TAIL_LINES = 6
_PERIOD = 0.1
_PLAIN_WIDTH = 400
_MARKS = {
    StepStatus.COMPLETED: ("✓", "green"),
    StepStatus.FAILED: ("✗", "red"),
    StepStatus.TIMED_OUT: ("✗", "red"),
    StepStatus.RUNNING: ("▸", "cyan"),
    StepStatus.SKIPPED: ("-", "dim"),
    StepStatus.CANCELLED: ("-", "dim"),
}


class Screen(Protocol):
    """Where a run is watched."""

    console: Console
    keeps_output: bool
    """Whether output stays in view after the run."""

    def begin(self, run: RunShow) -> None:
        """Show a run from now on."""

    def changed(self, run: RunShow, changes: Sequence[Change]) -> None:
        """Show what a frame told."""

    def wrote(self, run: RunShow, lines: Sequence[str]) -> None:
        """Show what a step wrote."""

    def tick(self, run: RunShow) -> None:
        """Show that time goes on."""

    def end(self) -> None:
        """Show the run no longer."""


def screen_on(console: Console) -> Screen:
    """The screen that fits: live on a terminal that can move its cursor, else plain."""
    live = console.file.isatty() and not console.is_dumb_terminal
    return LiveScreen(console) if live else PlainScreen(console)


def stdout_console() -> Console:
    """A console on stdout that takes text as it is, and writes `?` for what it cannot write.

    It wraps lines for the width of a terminal only."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace", line_buffering=True)
    wraps = sys.stdout.isatty()
    return Console(markup=False, highlight=False, emoji=False, soft_wrap=not wraps)


class PlainScreen:
    """One line for each change, and for each line of output."""

    keeps_output = True

    def __init__(self, console: Console) -> None:
        self.console = console

    def begin(self, run: RunShow) -> None:
        self._line(run, f"run {run.run_id} {run.status}")

    def changed(self, run: RunShow, changes: Sequence[Change]) -> None:
        for change in changes:
            self._line(run, change_line(change))

    def wrote(self, run: RunShow, lines: Sequence[str]) -> None:
        for line in lines:
            self._line(run, f"| {line[:_PLAIN_WIDTH]}".rstrip())

    def tick(self, run: RunShow) -> None:
        """Time goes on without a line."""

    def end(self) -> None:
        """Lines stay where they are."""

    def _line(self, run: RunShow, text: str) -> None:
        self.console.print(Text(f"{run.name}: {text}"))


class LiveScreen:
    """A block that is drawn anew in its place, at most ten times a second."""

    keeps_output = False

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None
        self._next = 0.0

    def begin(self, run: RunShow) -> None:
        self._live = Live(
            self._block(run), console=self.console, auto_refresh=False, transient=True
        )
        self._live.start(refresh=True)

    def changed(self, run: RunShow, changes: Sequence[Change]) -> None:
        """Every change is in the next drawing."""

    def wrote(self, run: RunShow, lines: Sequence[str]) -> None:
        """Every line is in the next drawing."""

    def tick(self, run: RunShow) -> None:
        if self._live is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PERIOD
            self._live.update(self._block(run), refresh=True)

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _block(self, run: RunShow) -> Panel:
        # A terminal writes ^C behind the block, which has to fit beside it.
        return block(run, max(1, self.console.width - 2))


def change_line(change: Change) -> str:
    """A change as a line of text."""
    step = change.step
    if step is None:
        return f"run {change.status}"
    line = f"{step.id} {step.type} {change.status}"
    if not step.status.ended:
        return f"{line}: {step.what}"
    return f"{line} ({duration(step.seconds(utc_now()))})"


def block(run: RunShow, width: int) -> Panel:
    """A run as a block: its steps, below them the last lines of the output."""
    lines = [
        Text(line, style="dim", no_wrap=True, overflow="ellipsis")
        for line in run.tail.last(_TAIL_LINES)
    ]
    return Panel(
        Group(steps_table(run), *([Text()] if lines else []), *lines),
        title=Text(f"{run.name}: {run.status}"),
        title_align="left",
        border_style="dim",
        width=width,
    )


def steps_table(run: RunShow) -> Table:
    """The steps of a run, a row each; what does not fit is cut."""
    table = Table.grid(padding=(0, 1), expand=True)
    for ratio in (None, None, None, 1, None):
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
    table.add_column(no_wrap=True, justify="right")
    now = utc_now()
    for step in run.steps:
        time_taken = duration(step.seconds(now))
        table.add_row(mark(step), step.id, step.type, step.what, step.status.value, time_taken)
    return table


def mark(step: StepShow) -> Text:
    """A step's status as one sign."""
    return Text(*_MARKS.get(step.status, ("·", "dim")))


def duration(seconds: float | None) -> str:
    """Seconds as people write them."""
    return "" if seconds is None else f"{seconds:.1f} s"
