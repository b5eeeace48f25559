"""On what was measured: figures of different machines do not compare."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.processes import ROOT
from director import __version__

_PACKAGES = ("temporalio", "fastapi", "uvicorn", "uvloop", "sqlmodel", "websockets", "docker")


def machine() -> dict[str, Any]:
    """Cores, memory, kernel, and how busy it was: others' load makes figures worthless."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memoryMib": memory // 2**20,
        "kernel": platform.release(),
        "system": _system(),
        "loadBefore": os.getloadavg()[0],
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Versions of all that takes part."""
    found = {"director": __version__, "commit": _commit(), "python": platform.python_version()}
    found["temporal"] = _said([str(Path(sys.executable).with_name("temporal")), "--version"])
    found["docker engine"] = _said(["docker", "version", "--format", "{{.Server.Version}}"])
    return found | {name: _version(name) for name in _PACKAGES}


def _commit() -> str:
    commit = _said(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    dirty = _said(["git", "-C", str(ROOT), "status", "--porcelain", "director"])
    return f"{commit} with changes" if dirty else commit


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _said(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()
