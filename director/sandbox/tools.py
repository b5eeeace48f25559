"""The program that runs commands inside every sandbox of a host, made from `supervisor.c`."""

import hashlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from pathlib import Path

from director.sandbox.runtime import SandboxError

PACKAGES = ("gcc", "libc6-dev")
"""What makes it on Debian-like systems."""

PREFIX = "supervisor-"

READY = Path("/usr/local/lib/director")
"""Where an image of Director has it, which needs no compiler then."""

_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-std=c11", "-O2", "-static", "-s")
_PT_INTERP = 3


@cache
def supervisor_name() -> str:
    """The name of its file: another source has another, and what runs by an older one keeps it."""
    made_of = hashlib.sha256(" ".join(_FLAGS).encode() + source().encode())
    return f"{PREFIX}{made_of.hexdigest()[:16]}"


def source() -> str:
    """What it is made from."""
    return resources.files("director.sandbox").joinpath("supervisor.c").read_text()


def compiler() -> str | None:
    """The C compiler of this host, if it has one."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def present(folder: Path) -> Path | None:
    """Where it is already, in `folder` or with this image of Director."""
    places = (place / supervisor_name() for place in (folder, READY))
    return next((place for place in places if place.exists()), None)


def install_tools(folder: Path) -> None:
    """Have it in `folder`: from before, from this image of Director, or made now.

    Raises SandboxError where it cannot be made."""
    folder.mkdir(parents=True, exist_ok=True)
    if (found := present(folder)) is None:
        with _staged(folder) as staged:
            _compile(staged)
    elif found.parent != folder:
        with _staged(folder) as staged:
            shutil.copyfile(found, staged)


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Under a name of its own until it is whole: several workers of one home may start at once."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".supervisor.")
    os.close(descriptor)
    staged = Path(name)
    try:
        yield staged
        staged.chmod(0o555)
        staged.replace(folder / supervisor_name())
    finally:
        staged.unlink(missing_ok=True)


def _compile(target: Path) -> None:
    if (found := compiler()) is None:
        raise _impossible("no C compiler is on this host")
    command = [found, *_FLAGS, "-x", "c", "-o", str(target), "-"]
    done = subprocess.run(command, input=source(), check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise _impossible(f"{found} failed:\n{done.stderr.strip()[-1000:]}\n")
    if not is_static(target):
        raise _impossible(f"{found} links no program that needs no libraries")


def _impossible(why: str) -> SandboxError:
    return SandboxError(
        f"the program that runs commands in sandboxes cannot be made here, {why}: install a C"
        f" compiler and a static C library, on Debian and Ubuntu {' and '.join(PACKAGES)}",
        retryable=False,
    )


def is_static(program: Path) -> bool:
    """Tell whether a 64-bit ELF program needs no loader, so that it runs in any image."""
    with program.open("rb") as file:
        header = file.read(64)
        if header[:5] != b"\x7fELF\x02":
            return False
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        file.seek(offset)
        table = file.read(size * count)
    kinds = (struct.unpack_from("<I", table, start)[0] for start in range(0, len(table), size))
    return _PT_INTERP not in kinds
