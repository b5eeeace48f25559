"""Disks of sandboxes: files with an ext4 in them, mounted where the sandbox's folders lie.

Bytes and inodes of such a disk are bounded, so that no sandbox fills the host's. Everything is
found again by names below the sandbox's folder, also after the worker was killed at any moment."""

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

from director.sandbox.probe import PATH
from director.sandbox.runtime import SandboxError

_MIB = 1024 * 1024
BYTES_PER_INODE = 8192
_OPTIONS = "loop,nosuid,nodev,noatime,discard"


class Disk(NamedTuple):
    """An image file and the folder where it is mounted."""

    image: Path
    place: Path

    def make(self, mib: int, uid: int) -> None:
        """Make the image, of which blocks are taken from the host as they are written. One that
        is there stays as it is."""
        if self.image.exists():
            return
        staged = self.image.with_suffix(".new")
        staged.unlink(missing_ok=True)
        with staged.open("wb") as file:
            file.truncate(_with_overhead(mib) * _MIB)
        extended = f"lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner={uid}:{uid}"
        journal = f"size={_journal(mib)}"
        features = ["-m", "0", "-i", str(BYTES_PER_INODE), "-E", extended, "-J", journal]
        _run(["mkfs.ext4", "-q", "-F", *features, str(staged)])
        staged.replace(self.image)

    def mount(self) -> None:
        """Mount it, checked, unless it is."""
        if not self.image.exists() or self.place.is_mount():
            return
        self.place.mkdir(exist_ok=True)
        try:
            _run(["mount", "-o", _OPTIONS, "-t", "ext4", str(self.image), str(self.place)])
        except SandboxError:
            _run(["e2fsck", "-p", "-f", str(self.image)], fine=(0, 1))
            _run(["mount", "-o", _OPTIONS, "-t", "ext4", str(self.image), str(self.place)])
        lost = self.place / "lost+found"
        if lost.is_dir() and not lost.is_symlink():
            _run(["rm", "-rf", "--", str(lost)])


def bind(source: Path, place: Path) -> None:
    """Show a folder at another place too, unless it is shown there."""
    source.mkdir(exist_ok=True)
    place.mkdir(exist_ok=True)
    if not place.is_mount():
        _run(["mount", "--bind", str(source), str(place)])


def release(folder: Path) -> None:
    """Unmount everything at and below a folder, and give back its loop devices. Idempotent.

    Raises SandboxError where something is still in use."""
    for place in sorted(mounts_below(folder), reverse=True):
        _run(["umount", "--", place])
    for device in loops_below(folder):
        try:
            _run(["losetup", "-d", device])
        except SandboxError:
            if device in loops_below(folder):  # else the kernel gave it back by itself
                raise


def mounts_below(folder: Path) -> list[str]:
    """Where something is mounted at or below a folder; a place is named as often as it is."""
    root, found = str(folder), []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        place = _unescaped(line.split(" ")[4])
        if place == root or place.startswith(f"{root}/"):
            found.append(place)
    return found


def loops_below(folder: Path) -> list[str]:
    """Loop devices whose file lies below a folder, also where it was removed meanwhile."""
    root, found = f"{folder}/", []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if backing.read_text(errors="surrogateescape").startswith(root):
                found.append(f"/dev/{backing.parts[3]}")
        except OSError:
            continue  # it was given back meanwhile
    return found


def _with_overhead(mib: int) -> int:
    """How large a file must be to hold so much: inodes, groups and the journal take their part."""
    return mib + mib // 22 + _journal(mib) + 3


def _journal(mib: int) -> int:
    return min(max(4, mib // 16), 64)


def _unescaped(text: str) -> str:
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, char)
    return text


def _run(argv: list[str], fine: tuple[int, ...] = (0,)) -> None:
    environment = os.environ | {"PATH": PATH, "LC_ALL": "C"}
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=environment)
    if done.returncode not in fine:
        said = (done.stderr or done.stdout).strip()[-300:]
        raise SandboxError(f"{argv[0]} for a sandbox's disk failed: {said}", retryable=True)
