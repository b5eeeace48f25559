"""`make bench`: measure, show one table, and write `bench/results.json`.

It judges nobody: a figure that is short of its target is a figure, and the exit code is 0."""

import argparse
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from bench import machine, table
from bench.bench import Bench
from bench.engine import NotHereError
from bench.figures import Row
from bench.processes import ROOT
from bench.results import write
from bench.rows import ROWS

_FOLDER = ROOT / ".bench"
_RESULTS = ROOT / "bench" / "results.json"


def main(arguments: list[str]) -> int:
    """Run the rows that are asked for."""
    asked = _parsed(arguments)
    _raise_file_limit()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended first
    before = {"machine": machine.machine(), "versions": machine.versions()}
    asked.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=asked.folder))
    bench = Bench(folder, asked.rounds, asked.quick, _say)
    try:
        rows, skipped, failures = _measured(bench, asked.rows)
    finally:
        bench.close()
    about = {"rounds": asked.rounds, "quick": asked.quick, "notMeasured": skipped | failures}
    told = write(asked.results, before, rows, list(ROWS), **about)
    table.show(rows, told)
    for name, why in (skipped | failures).items():
        _say(f"NOT MEASURED: {name}: {why}")
    if failures:
        _say(f"The logs are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _measured(bench: Bench, names: list[str]) -> tuple[list[Row], dict[str, str], dict[str, str]]:
    """The rows, what this machine cannot measure, and what has failed. One that is interrupted
    after half an hour keeps what it has measured."""
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    failures: dict[str, str] = {}
    for number, name in enumerate(names):
        try:
            rows += ROWS[name].measure(bench)
        except NotHereError as error:
            skipped[name] = str(error)
        except (KeyboardInterrupt, SystemExit):
            return rows, skipped, failures | dict.fromkeys(names[number:], "it was interrupted")
        except Exception as error:
            traceback.print_exc()
            failures[name] = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return rows, skipped, failures


def _parsed(arguments: list[str]) -> Any:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=_names, default=None, help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=None, help="5, or as many as you like")
    parser.add_argument("--quick", action="store_true", help="only see that everything works")
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="on the disk to be measured")
    asked = parser.parse_args(arguments)
    asked.rounds = asked.rounds or (1 if asked.quick else 5)
    usual = [name for name, group in ROWS.items() if group.in_quick or not asked.quick]
    asked.rows = asked.rows or usual
    return asked


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(ROWS)}")
    return names


def _raise_file_limit() -> None:
    """A thousand listeners are a thousand files, in the API and in their clients."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
