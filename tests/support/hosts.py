"""What an escape from a sandbox would have changed, as the host itself shows it."""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KERNEL = (
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/domainname",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/panic",
    "/proc/sys/kernel/poweroff_cmd",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/sysrq",
    "/proc/sys/fs/suid_dumpable",
    "/proc/sys/vm/overcommit_memory",
    "/sys/kernel/uevent_helper",
)
_FILES = ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/var/run/docker.sock")


class Canary:
    """A process of the host's and a file with a secret, which nobody in a sandbox may touch."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.folder = folder / "host"
        self.folder.mkdir(mode=0o755)
        self.secret = self.folder / "secret"
        self.secret.write_text(f"the host's own {os.urandom(8).hex()}")
        self.process = subprocess.Popen(["sleep", "600"], user=uid)
        while self._status()[0] != "State:\tS (sleeping)" or self._name() != b"sleep":
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """Its number on the host."""
        return self.process.pid

    def end(self) -> None:
        """Let it go."""
        self.process.kill()
        self.process.wait()

    def state(self) -> tuple[object, ...]:
        """How both are; the same for ever, unless somebody came to them."""
        about = self.secret.stat()
        return (
            self._status(),
            sorted(entry.name for entry in self.folder.iterdir()),
            (about.st_mode, about.st_uid, about.st_nlink, about.st_mtime_ns),
            (self.folder.stat().st_uid, self.folder.stat().st_mode),
            self.secret.read_text(),
        )

    def _status(self) -> list[str]:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return [line for line in lines if line.startswith(("State", "TracerPid", "Uid"))]

    def _name(self) -> bytes:
        return Path(f"/proc/{self.pid}/cmdline").read_bytes().partition(b"\0")[0]


def looks(home: Path) -> dict[str, object]:
    """How a host stands: settings of its kernel, its files, and the tools that sandboxes share."""
    found: dict[str, object] = {path: _text(Path(path)) for path in _KERNEL}
    tools = sorted((home / "tools").iterdir())
    found |= {str(path): _about(path) for path in (*map(Path, _FILES), *tools)}
    return found


@contextmanager
def unharmed(home: Path, canary: Canary) -> Iterator[None]:
    """Fail unless the host is afterwards as it was before."""
    before, clock = (looks(home), canary.state()), time.time() - time.monotonic()
    yield
    assert (looks(home), canary.state()) == before
    assert abs(time.time() - time.monotonic() - clock) < 1, "somebody set the clock"


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _about(path: Path) -> tuple[object, ...] | None:
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    content = path.read_bytes() if path.is_file() else b""
    digest = hashlib.sha256(content).hexdigest()
    return about.st_mode, about.st_uid, about.st_gid, about.st_nlink, digest
