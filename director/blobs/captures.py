"""Reads a folder into blobs, beside files whose owner is hostile.

Every step goes by a descriptor of the folder above and never through a symbolic link."""

import errno
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from director.blobs.contents import SMALL, Contents
from director.blobs.folders import FOLDER, opened
from director.blobs.store import CHUNK, Blobs
from director.domain.errors import PayloadTooLargeError
from director.domain.trees import HOLE, MAX_DEPTH, Entry, Piece, Tree, shown

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ZEROS = bytes(CHUNK)

_SETTLED_NS = 2 * 10**9
"""A file whose inode changed later than so long before a capture may change again in the same tick
of the clock: the next capture reads it again, whatever its times are."""

_WASTE = 2
"""A tree whose blobs are so many times as large as what it uses of them is taken anew."""

_REASONS = {
    errno.ENOENT: "vanished while the folder was read",
    errno.ENOTDIR: "turned into something else while the folder was read",
    errno.ELOOP: "turned into something else while the folder was read",
    errno.ENXIO: "turned into something else while the folder was read",
    errno.EINVAL: "turned into something else while the folder was read",
    errno.EAGAIN: "is held by a process of its owner, so that nobody else may open it",
    errno.EACCES: "may not be read",
    errno.EPERM: "may not be read",
}


@dataclass(frozen=True)
class CaptureLimits:
    """How much of a folder is read before it is refused."""

    max_bytes: int = 64 * 1024**3
    max_entries: int = 1_000_000


@dataclass(frozen=True)
class Skipped:
    """Something that lay in the folder and is not in the tree."""

    path: str
    reason: str


class Stamp(NamedTuple):
    """What tells that a file was not written to: a process can set the time of its content, but
    not that of its inode."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, about: os.stat_result) -> "Stamp":
        """The stamp of a file."""
        return cls(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


@dataclass(frozen=True)
class Captured:
    """A folder as a tree, and what of it could not be taken."""

    tree: Tree
    skipped: list[Skipped]
    stamps: Mapping[bytes, Stamp]
    """Of files that the next capture need not read again, by their paths."""


def _go_on() -> None:
    """Never end a capture."""


def capture(
    root: Path,
    blobs: Blobs,
    limits: CaptureLimits | None = None,
    check: Callable[[], None] = _go_on,
    *,
    below: bytes = b"",
    previous: Captured | None = None,
) -> Captured:
    """Read a folder into blobs, or only one that lies `below` it, to which no link leads. A file
    that changes meanwhile is taken as it was read. What is as it was at a `previous` capture of the
    same folder is not read again: its blobs must still be there.

    `check` is called for every entry and every chunk; what it raises ends the capture and comes out
    as it is. Special files, and what may not be read or vanishes, are told in `skipped`. Raises
    PayloadTooLargeError over the limits, and OSError if the folder or the disk cannot be read."""
    before = _Before(previous)
    with opened(_descended(root, below)) as fd, Contents(blobs, before.known) as contents:
        walk = _Walk(contents, limits or CaptureLimits(), check, before)
        walk.folder(fd, b"", depth=0)
        tree = contents.tree(walk.entries, before.sizes)
    skipped = sorted(walk.skipped, key=lambda skip: skip.path)
    return Captured(tree, skipped, walk.stamps)


def _descended(root: Path, below: bytes) -> int:
    fd = os.open(root, FOLDER)
    for name in below.split(b"/") if below else []:
        with opened(fd):
            fd = os.open(name, FOLDER, dir_fd=fd)
    return fd


class _Before:
    """What an earlier capture of the folder found."""

    def __init__(self, previous: Captured | None) -> None:
        if previous is not None and _is_wasteful(previous.tree):
            previous = None
        self._entries = previous.tree.entries if previous else ()
        self._by_path = {entry.raw_path: entry for entry in self._entries}
        self._stamps = previous.stamps if previous else {}
        self.sizes = previous.tree.sizes if previous else {}

    def same(self, path: bytes, stamp: Stamp) -> Entry | None:
        """The entry of a file that has not changed since."""
        return self._by_path.get(path) if self._stamps.get(path) == stamp else None

    def known(self) -> dict[str, tuple[Piece, ...]]:
        """Where contents lie already."""
        return {entry.hash: entry.content for entry in self._entries if entry.hash}


def _is_wasteful(tree: Tree) -> bool:
    """Whether packs are kept for the sake of a few files in them."""
    used = {piece for entry in tree.entries for piece in entry.pieces if piece.blob != HOLE}
    return sum(tree.sizes.values()) > _WASTE * sum(piece.size for piece in used)


@dataclass
class _Walk:
    """One reading of a folder: what was found so far."""

    contents: Contents
    limits: CaptureLimits
    check: Callable[[], None]
    before: _Before
    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    stamps: dict[bytes, Stamp] = field(default_factory=dict)
    settled_ns: int = field(default_factory=lambda: time.time_ns() - _SETTLED_NS)
    entries_seen: int = 0
    bytes_seen: int = 0

    def folder(self, fd: int, path: bytes, depth: int) -> None:
        """Take what lies in a folder, in the order of names: equal folders fill equal packs."""
        folders: list[bytes] = []
        for name, about in self._listing(fd, path):
            self.check()
            inner = _below(path, name)
            if depth == MAX_DEPTH:
                self._skip(inner, f"is nested deeper than {MAX_DEPTH} levels")
            elif stat.S_ISREG(about.st_mode):
                self._take(self._unread(inner, about) or self._file(fd, name, inner))
            elif stat.S_ISDIR(about.st_mode):
                folders.append(name)
            else:
                self._take(_link_or_skip(fd, name, inner, about))
        for name in folders:
            self._subfolder(fd, name, _below(path, name), depth + 1)

    def _unread(self, path: bytes, about: os.stat_result) -> Entry | None:
        stamp = Stamp.of(about)
        if (entry := self.before.same(path, stamp)) is not None:
            self.stamps[path] = stamp
        return entry

    def _file(self, folder: int, name: bytes, path: bytes) -> Entry | Skipped:
        try:
            fd = os.open(name, _FILE, dir_fd=folder)
        except OSError as error:
            return Skipped(shown(path), _reason(error))
        with opened(fd):
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                return Skipped(shown(path), _REASONS[errno.ENXIO])
            if about.st_ctime_ns < self.settled_ns:
                self.stamps[path] = Stamp.of(about)
            hash, size = self._content(fd, about.st_size)
            return Entry.file(path, about.st_mode, about.st_mtime_ns, size, hash)

    def _content(self, fd: int, size: int) -> tuple[str, int]:
        if size <= SMALL:
            content = os.pread(fd, size, 0)
            return self.contents.put_small(content), len(content)
        return self.contents.put_large(_Head(fd, size, self.check))

    def _listing(self, fd: int, path: bytes) -> list[tuple[bytes, os.stat_result]]:
        listing = []
        with os.scandir(fd) as found:
            for item in found:
                self.check()
                name = os.fsencode(item.name)
                try:
                    about = item.stat(follow_symlinks=False)
                except FileNotFoundError as error:
                    self._skip(_below(path, name), _reason(error))
                    continue
                self._count(about, _below(path, name))
                listing.append((name, about))
        listing.sort(key=lambda one: one[0])
        return listing

    def _count(self, about: os.stat_result, path: bytes) -> None:
        self.entries_seen += 1
        self.bytes_seen += about.st_size if stat.S_ISREG(about.st_mode) else 0
        if self.bytes_seen > self.limits.max_bytes:
            raise _over(path, f"{self.limits.max_bytes} bytes")
        if self.entries_seen > self.limits.max_entries:
            raise _over(path, f"{self.limits.max_entries} entries")

    def _subfolder(self, parent: int, name: bytes, path: bytes, depth: int) -> None:
        try:
            fd = os.open(name, FOLDER, dir_fd=parent)
        except OSError as error:
            self._skip(path, _reason(error))
            return
        with opened(fd):
            about = os.fstat(fd)
            self.entries.append(Entry.directory(path, about.st_mode, about.st_mtime_ns))
            self.folder(fd, path, depth)

    def _take(self, found: Entry | Skipped) -> None:
        if isinstance(found, Entry):
            self.entries.append(found)
        else:
            self.skipped.append(found)

    def _skip(self, path: bytes, reason: str) -> None:
        self.skipped.append(Skipped(shown(path), reason))


def _below(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _over(path: bytes, what: str) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the folder holds more than {what}; reading stopped at {shown(path)!r}"
    )


def _reason(error: OSError) -> str:
    """Say why something is left out; what is no fault of the folder's owner is raised again."""
    if error.errno not in _REASONS:
        raise error
    return _REASONS[error.errno]


def _link_or_skip(fd: int, name: bytes, path: bytes, about: os.stat_result) -> Entry | Skipped:
    if not stat.S_ISLNK(about.st_mode):
        return Skipped(shown(path), f"is {_SPECIAL.get(stat.S_IFMT(about.st_mode), 'no file')}")
    try:
        target = os.readlink(name, dir_fd=fd)
    except OSError as error:
        return Skipped(shown(path), _reason(error))
    return Entry.symlink(path, target, about.st_mtime_ns)


_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class _Head:
    """The first bytes of a file, so that one which grows without end is still read to an end.

    Where the file system knows of a hole, zeros stand in for it and nothing is read. A hole counts
    as it was when it was met: to ask again for every chunk would let a file of countless extents
    cost their number each time."""

    def __init__(self, fd: int, size: int, check: Callable[[], None]) -> None:
        self._fd = fd
        self._size = size
        self._check = check
        self._hole_end = 0
        self.count = 0

    def read(self, size: int, /) -> bytes:
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
