"""Reads a folder into blobs, beside files whose owner is hostile.

Every step goes by a descriptor of the folder above and never through a symbolic link."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from director.blobs.folders import FOLDER, opened
from director.blobs.store import CHUNK, Blobs
from director.domain.errors import PayloadTooLargeError
from director.domain.trees import MAX_DEPTH, Entry, Tree, shown

FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""How a file is opened beside hostile ones: no link is followed and no FIFO waited for."""
_ZEROS = bytes(CHUNK)

_THREADS = 2
"""Measured on 2 cores: 2 take half the time of 1, with and without fsync; more gain nothing."""

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


@dataclass(frozen=True)
class Captured:
    """A folder as a tree, and what of it could not be taken."""

    tree: Tree
    skipped: list[Skipped]


def _go_on() -> None:
    """Never end a capture."""


def capture(
    root: Path,
    blobs: Blobs,
    limits: CaptureLimits | None = None,
    check: Callable[[], None] = _go_on,
    *,
    below: bytes = b"",
) -> Captured:
    """Read a folder into blobs, or only one that lies `below` it, to which no link leads. A file
    that changes meanwhile is taken as it was read.

    `check` is called for every entry and every chunk, from several threads at once; what it raises
    ends the capture and comes out as it is. Special files, and what may not be read or vanishes,
    are told in `skipped`. Raises PayloadTooLargeError over the limits, and OSError if the folder or
    the disk cannot be read."""
    watch = _Watch(check)
    with opened(descended(root, below)) as fd, ThreadPoolExecutor(_THREADS) as pool:
        walk = _Walk(blobs, limits or CaptureLimits(), pool, watch)
        with watch.noting():
            walk.folder(fd, b"", depth=0)
    watch.raise_noted()
    skipped = sorted(walk.skipped, key=lambda skip: skip.path)
    return Captured(Tree.of(walk.entries), skipped)


def descended(root: Path, below: bytes) -> int:
    """Open a folder below a root, to which no link leads. Raises OSError."""
    fd = os.open(root, FOLDER)
    for name in below.split(b"/") if below else []:
        with opened(fd):
            fd = os.open(name, FOLDER, dir_fd=fd)
    return fd


class _StoppedError(Exception):
    """Unwinds a thread, since another one, or its own check, has failed."""


class _Watch:
    """Ends all the threads of a capture after the first failure in one, and keeps that failure."""

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._noted: BaseException | None = None

    def __call__(self) -> None:
        if self._noted is None:
            with self.noting():
                self._check()
        if self._noted is not None:
            raise _StoppedError

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep what is raised inside, unless there is a failure already, and go on behind."""
        try:
            yield
        except BaseException as error:
            if self._noted is None:
                self._noted = error

    def raise_noted(self) -> None:
        """Raise the failure, if there was one, as it was raised first."""
        if self._noted is not None:
            raise self._noted


@dataclass
class _Walk:
    """One reading of a folder: what was found so far."""

    blobs: Blobs
    limits: CaptureLimits
    pool: ThreadPoolExecutor
    watch: _Watch
    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    entries_seen: int = 0
    bytes_seen: int = 0

    def folder(self, fd: int, path: bytes, depth: int) -> None:
        files: list[tuple[bytes, int]] = []
        folders: list[bytes] = []
        for name, about in self._listing(fd, path):
            if depth == MAX_DEPTH:
                self._skip(_below(path, name), f"is nested deeper than {MAX_DEPTH} levels")
            elif stat.S_ISREG(about.st_mode):
                files.append((name, about.st_size))
            elif stat.S_ISDIR(about.st_mode):
                folders.append(name)
            else:
                self._take(_link_or_skip(fd, name, _below(path, name), about))
        self._files(fd, path, files)
        for name in folders:
            self._subfolder(fd, name, _below(path, name), depth + 1)

    def _files(self, fd: int, path: bytes, files: list[tuple[bytes, int]]) -> None:
        """Read files in the pool. No thread is left behind that would use `fd` once it is shut."""
        shared = iter(files)
        threads = range(min(_THREADS, len(files)))
        readers = [self.pool.submit(self._read_files, fd, path, shared) for _ in threads]
        with self.watch.noting():
            wait(readers)
        wait(readers)  # an interruption of the first wait is noted, and lets the readers end
        self.watch()

    def _read_files(self, fd: int, path: bytes, shared: Iterator[tuple[bytes, int]]) -> None:
        with self.watch.noting():
            for name, size in shared:
                self._take(self._read_file(fd, name, _below(path, name), size))

    def _read_file(self, folder: int, name: bytes, path: bytes, size: int) -> Entry | Skipped:
        self.watch()
        try:
            fd = os.open(name, FILE, dir_fd=folder)
        except OSError as error:
            return Skipped(shown(path), _reason(error))
        with opened(fd):
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                return Skipped(shown(path), _REASONS[errno.ENXIO])
            head = _Head(fd, size, self.watch)
            hash = self.blobs.put_stream(head)
            return Entry.file(path, about.st_mode, about.st_mtime_ns, head.count, hash)

    def _listing(self, fd: int, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        with os.scandir(fd) as found:
            for item in found:
                self.watch()
                name = os.fsencode(item.name)
                try:
                    about = item.stat(follow_symlinks=False)
                except FileNotFoundError as error:
                    self._skip(_below(path, name), _reason(error))
                    continue
                self._count(about, _below(path, name))
                yield name, about

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

    def __init__(self, fd: int, size: int, watch: Callable[[], None]) -> None:
        self._fd = fd
        self._size = size
        self._watch = watch
        self._hole_end = 0
        self.count = 0

    def read(self, size: int, /) -> bytes:
        self._watch()
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
