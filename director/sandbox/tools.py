"""The two files that every sandbox of a host is given: busybox and the supervisor's script."""

import os
import shutil
import stat
import struct
import tempfile
from importlib import resources
from pathlib import Path

from director.sandbox.runtime import SandboxError

_PT_INTERP = 3


def install_tools(folder: Path, busybox: Path | None = None) -> None:
    """Copy busybox and the supervisor into `folder`, where no upgrade of the host removes them.

    Raises SandboxError when the host has no static busybox and `folder` none from before."""
    folder.mkdir(parents=True, exist_ok=True)
    script = resources.files("director.sandbox").joinpath("supervisor.sh").read_bytes()
    _put(folder / "supervisor.sh", script, 0o444)
    found = busybox or _find_busybox()
    if found is not None:
        _put(folder / "busybox", found.read_bytes(), 0o555)
    elif not (folder / "busybox").exists():
        raise SandboxError(
            "no static busybox is on this host, and sandboxes are run by it:"
            " install the package busybox-static",
            retryable=False,
        )


def _find_busybox() -> Path | None:
    path = shutil.which("busybox", path="/bin:/usr/bin:/usr/local/bin")
    return Path(path) if path and is_static(Path(path)) else None


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


def _put(path: Path, content: bytes, mode: int) -> None:
    if path.exists() and path.read_bytes() == content and stat.S_IMODE(path.stat().st_mode) == mode:
        return
    # Under a name of its own: several workers of one home may start at once.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "wb") as staged:
        staged.write(content)
        os.fchmod(descriptor, mode)
    Path(name).replace(path)
