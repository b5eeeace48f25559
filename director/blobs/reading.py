"""How files of strangers are read: by a descriptor of the folder above, never through a link, and
so that whoever owns them can neither hold the reader up nor let it read without end."""

import errno
import os
import stat
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from director.blobs.folders import FOLDER, opened
from director.blobs.store import CHUNK
from director.domain.errors import PayloadTooLargeError
from director.domain.trees import MAX_DEPTH, Entry, shown

FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened: what is no regular file is seen then, before anything is read of it."""

TOO_DEEP = f"is nested deeper than {MAX_DEPTH} levels"

_ZEROS = bytes(CHUNK)

_OTHER = "turned into something else while the folder was read"
_REASONS = {
    errno.ENOENT: "vanished while the folder was read",
    errno.ENOTDIR: _OTHER,
    errno.ELOOP: _OTHER,
    errno.ENXIO: _OTHER,
    errno.EINVAL: _OTHER,
    errno.EAGAIN: "is held by a process of its owner, so that nobody else may open it",
    errno.EACCES: "may not be read",
    errno.EPERM: "may not be read",
}


@dataclass(frozen=True)
class ReadLimits:
    """How much of a folder is read before it is refused."""

    max_bytes: int = 64 * 1024**3
    max_entries: int = 1_000_000


@dataclass(frozen=True)
class Skipped:
    """Something that lay in the folder and is not in what was read."""

    path: str
    reason: str


def go_on() -> None:
    """Never end a reading."""


Listed = tuple[bytes, os.stat_result | Skipped]
"""A name in a folder, and what is known of it."""


class Listing:
    """Lists folders, and counts what lies in them against the limits."""

    def __init__(self, limits: ReadLimits) -> None:
        self._limits = limits
        self._entries = self._bytes = 0

    def of(self, fd: int, path: bytes) -> Generator[Listed, None, None]:
        """The names in an open folder, and what is known of each. Raises PayloadTooLargeError over
        the limits."""
        with os.scandir(fd) as found:
            for item in found:
                name = os.fsencode(item.name)
                try:
                    about = item.stat(follow_symlinks=False)
                except FileNotFoundError as error:
                    yield name, Skipped(shown(below(path, name)), reason(error))
                    continue
                self._count(about, below(path, name))
                yield name, about

    def _count(self, about: os.stat_result, path: bytes) -> None:
        self._entries += 1
        self._bytes += about.st_size if stat.S_ISREG(about.st_mode) else 0
        if self._bytes > self._limits.max_bytes:
            raise _over(path, f"{self._limits.max_bytes} bytes")
        if self._entries > self._limits.max_entries:
            raise _over(path, f"{self._limits.max_entries} entries")


def _over(path: bytes, what: str) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the folder holds more than {what}; reading stopped at {shown(path)!r}"
    )


def descended(root: Path, path: bytes) -> int:
    """Open a folder below a root, to which no link leads. Raises OSError."""
    fd = os.open(root, FOLDER)
    for name in path.split(b"/") if path else []:
        with opened(fd):
            fd = os.open(name, FOLDER, dir_fd=fd)
    return fd


def below(folder: bytes, name: bytes) -> bytes:
    """The path of a name in a folder."""
    return folder + b"/" + name if folder else name


def reason(error: OSError) -> str:
    """Say why something is left out; what is no fault of the folder's owner is raised again."""
    if error.errno not in _REASONS:
        raise error
    return _REASONS[error.errno]


def open_regular(folder: int, name: bytes, path: bytes) -> int | Skipped:
    """Open a regular file to read it; anything else is told as skipped."""
    try:
        fd = os.open(name, FILE, dir_fd=folder)
    except OSError as error:
        return Skipped(shown(path), reason(error))
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    return Skipped(shown(path), _OTHER)


def open_folder(folder: int, name: bytes, path: bytes) -> int | Skipped:
    """Open a folder to read it; anything else is told as skipped."""
    try:
        return os.open(name, FOLDER, dir_fd=folder)
    except OSError as error:
        return Skipped(shown(path), reason(error))


def link_or_skipped(fd: int, name: bytes, path: bytes, about: os.stat_result) -> Entry | Skipped:
    """What is neither a file nor a folder: a link is read, anything else is told."""
    if not stat.S_ISLNK(about.st_mode):
        return Skipped(shown(path), f"is {_SPECIAL.get(stat.S_IFMT(about.st_mode), 'no file')}")
    try:
        target = os.readlink(name, dir_fd=fd)
    except OSError as error:
        return Skipped(shown(path), reason(error))
    return Entry.symlink(path, target, about.st_mtime_ns)


_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class Head:
    """The first bytes of a file, so that one which grows without end is still read to an end.

    Where the file system knows of a hole, zeros stand in for it and nothing is read. A hole counts
    as it was when it was met: to ask again for every chunk would let a file of countless extents
    cost their number each time."""

    def __init__(self, fd: int, size: int, check: Callable[[], None] = go_on) -> None:
        self._fd = fd
        self._size = size
        self._check = check
        self._hole_end = 0
        self.count = 0

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        self._check()
        size = min(size, self._size - self.count, CHUNK)
        if size and self._hole_end <= self.count:
            self._hole_end = _next_data(self._fd, self.count)
        if self._hole_end - self.count >= size:
            chunk = _ZEROS[:size]
        else:
            chunk = os.pread(self._fd, size, self.count)
        self.count += len(chunk)
        return chunk


def _next_data(fd: int, at: int) -> int:
    """Tell where the hole at `at` ends; a file system that knows of no holes has data there."""
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        return os.fstat(fd).st_size if error.errno == errno.ENXIO else at
