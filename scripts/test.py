"""`make test`: the checks, then every test on a real engine, then a look for what was left."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from leaks import MARK, leaks

from director.machine import apt
from director.machine.apt import SetUpError
from director.machine.engine import (
    Engine,
    ensure_engine,
    ensure_filter,
    ensure_supervisor,
    stop_engine,
)
from director.machine.image import ensure_image

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".director"

_SETTLE_SECONDS = 5
_PROGRAMS = {"busybox": "busybox-static", "curl": "curl", "ip": "iproute2"}
"""Programs of tests alone, and the packages that have them."""

_WHOLE = ("tests/e2e", "tests/cli", "tests/test_bench.py")
"""Where tests start all parts of a Director as processes."""
_BESIDE = "3"
"""Test files that run at once: they wait more than they compute, also on two cores."""
_ALONE = "2"
"""Of those that measure how soon something is done."""
_FEW = 3
_COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Tests, and the parts of Director that they start, are compiled once: where nothing is kept, each
of a hundred processes does so again, for most of a second."""
_GROUPS = ["--dist", "loadgroup", "--no-loadscope-reorder"]
"""See `tests/support/groups.py`."""


def main(arguments: list[str]) -> int:
    """Run everything, and return the exit code for the shell."""
    if checked := subprocess.run([ROOT / "scripts" / "check"], check=False).returncode:
        return checked
    try:
        engine = ensure_engine(HOME, say)
    except SetUpError as error:
        return _without_engine(arguments, str(error))
    try:
        return _with_engine(engine, arguments)
    except SetUpError as error:
        say(str(error))
        return 1
    finally:
        engine.client.close()
        if engine.started:
            stop_engine(HOME, say)


def say(line: str) -> None:
    """Write a line about set-up, not mixed with what a test runner prints."""
    sys.stderr.write(f"{line}\n")


def _with_engine(engine: Engine, arguments: list[str]) -> int:
    ensure_supervisor(HOME, say)
    ensure_filter(say)
    _ensure_programs()
    image = ensure_image(engine.client, say)
    run, folder = secrets.token_hex(8), Path(tempfile.mkdtemp(prefix="director-test-"))
    folder.chmod(0o711)  # Postgres runs as nobody, who must find what is its own in there
    environ = _COMPILED | {MARK: run, "TMPDIR": str(folder), "DIRECTOR_TEST_IMAGE": image}
    code = _all_tests(arguments, environ)
    left = _settled_leaks(run, folder, engine)
    for line in left:
        say(f"left behind: {line}")
    if code == 0 and not left:
        shutil.rmtree(folder)
        return 0
    say(f"The files of this run are kept in {folder}")
    return code or 1


def _ensure_programs() -> None:
    """What README and terminal say to paste is tested, and so are networks, between machines that
    are made of namespaces; a bare machine lacks the programs."""
    missing = [package for program, package in _PROGRAMS.items() if shutil.which(program) is None]
    if missing:
        apt.install(missing, say)


def _settled_leaks(run: str, folder: Path, engine: Engine) -> list[str]:
    # A process that was told to stop as the last thing may need a moment.
    deadline = time.monotonic() + _SETTLE_SECONDS
    while (left := leaks(run, folder, engine.client)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left


def _without_engine(arguments: list[str], reason: str) -> int:
    if os.environ.get("CI") == "true":
        say(f"Tests need Docker: {reason}")
        return 1
    code = _pytest([*arguments, "-m", "not docker"], _COMPILED)
    say(f"NOT RUN: the tests that need Docker ({reason})")
    return code


def _all_tests(arguments: list[str], environ: dict[str, str]) -> int:
    """Tests that are chosen run as they are asked for; else side by side, file by file, first those
    that start whole Directors, which are gone then, and all others; then two at a time those that
    measure how soon something is done, and one by one those that load the machine, or look at all
    that it has."""
    if arguments:
        return _pytest(arguments, environ)
    usual = ["-m", "not alone and not storm", "-n", _BESIDE, *_GROUPS]
    whole = [*_WHOLE, *usual]
    others = ["tests", *(f"--ignore={folder}" for folder in _WHOLE), *usual]
    alone = ["tests/e2e", "tests/networks", "-m", "alone", "-n", _ALONE, *_GROUPS]
    storms = ["tests/e2e", "-m", "storm"]
    failed = Path(environ["TMPDIR"], "failed")
    noting = environ | {"DIRECTOR_TEST_FAILED": str(failed)}
    code = max(_pytest(chosen, noting) for chosen in (whole, others, alone, storms))
    return _once_more(failed, environ) if code == pytest.ExitCode.TESTS_FAILED else code


def _once_more(failed: Path, environ: dict[str, str]) -> int:
    """A few that failed beside others are run once more by themselves, and are told whatever comes
    of it: on a machine of two cores one may have waited in vain. What fails then has failed."""
    tests = list(dict.fromkeys(failed.read_text().splitlines())) if failed.exists() else []
    if not 0 < len(tests) <= _FEW:
        return int(pytest.ExitCode.TESTS_FAILED)
    code = _pytest(tests, environ)
    say(f"Failed beside others, and {'PASSED' if code == 0 else 'FAILED'} by themselves:")
    for test in tests:
        say(f"  {test}")
    return code


def _pytest(arguments: list[str], environ: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
