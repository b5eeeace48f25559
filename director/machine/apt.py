"""Packages of a Debian-like system: asked for, installed, or downloaded without being installed."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

Say = Callable[[str], None]

_POLICY = Path("/usr/sbin/policy-rc.d")
"""Debian asks this program before a package starts its service; 101 means no."""


class SetUpError(Exception):
    """Something that Director needs is missing; the message says what to do."""


def available() -> bool:
    """Tell whether this system has apt and dpkg."""
    return bool(shutil.which("apt-get") and shutil.which("dpkg-deb"))


def install(packages: Sequence[str], say: Say) -> None:
    """Install packages of the system, as root: no recommendations, no service is started.

    Raises SetUpError with the end of apt's output."""
    command = ["install", "--yes", "--no-install-recommends", *packages]
    with _services_stay_down():
        done = _apt(command)
        if done.returncode != 0:
            update(say)
            done = _apt(command)
    if done.returncode != 0:
        raise SetUpError(f"apt-get install {' '.join(packages)} failed:\n{_end(done)}")


def update(say: Say) -> None:
    """Fetch the lists of packages anew. A source that fails is apt's matter: others may do."""
    say("Fetching the lists of the system's packages …")
    _apt(["update"])


def download(packages: Sequence[str], folder: Path, say: Say) -> list[Path]:
    """Download packages with all that they depend on, as if nothing were installed.

    Needs no root while the lists of packages are fresh. Raises SetUpError when apt cannot."""
    if not available():
        raise SetUpError(
            "the sandbox image can be composed on Debian-like systems only: let the engine"
            " reach an image registry, or name an image that it has in DIRECTOR_SANDBOX_IMAGE"
        )
    (folder / "archives" / "partial").mkdir(parents=True)
    command = [*aside(folder), "install", "--yes", "--download-only", *packages]
    done = _apt(command)
    if done.returncode != 0 and os.geteuid() == 0:
        update(say)
        done = _apt(command)
    if done.returncode != 0:
        raise SetUpError(
            f"apt could not download the sandbox image's packages:\n{_end(done)}\n"
            "If its lists are old, run `apt-get update` as root and try again"
        )
    return sorted((folder / "archives").glob("*.deb"))


def aside(folder: Path) -> list[str]:
    """Options of apt for a world of its own, in which nothing is installed yet."""
    settings = {
        "Dir::State::status": "/dev/null",
        "Dir::Cache": str(folder),
        "Dir::Cache::archives": str(folder / "archives"),
        "APT::Install-Recommends": "false",
        "APT::Keep-Downloaded-Packages": "true",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


@contextmanager
def _services_stay_down() -> Iterator[None]:
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


def _apt(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["apt-get", "-q", "-o", "DPkg::Lock::Timeout=120", *arguments],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def _end(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
