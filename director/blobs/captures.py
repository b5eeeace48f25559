"""Reads a folder into blobs, beside files whose owner is hostile."""

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from director.blobs.folders import FOLDER, opened
from director.blobs.reading import (
    TOO_DEEP,
    Head,
    Listing,
    ReadLimits,
    Skipped,
    below,
    go_on,
    link_or_skipped,
    open_folder,
    open_regular,
)
from director.blobs.store import Blobs
from director.domain.trees import MAX_DEPTH, Entry, Tree, shown

_THREADS = 2
"""Measured on 2 cores: 2 take half the time of 1, with and without fsync; more gain nothing."""


@dataclass(frozen=True)
class Captured:
    """A folder as a tree, and what of it could not be taken."""

    tree: Tree
    skipped: list[Skipped]


def capture(
    root: Path,
    blobs: Blobs,
    limits: ReadLimits | None = None,
    check: Callable[[], None] = go_on,
) -> Captured:
    """Read a folder into blobs. A file that changes meanwhile is taken as it was read.

    `check` is called for every entry and every chunk, from several threads at once; what it raises
    ends the capture and comes out as it is. Special files, and what may not be read or vanishes,
    are told in `skipped`. Raises PayloadTooLargeError over the limits, and OSError if the folder or
    the disk cannot be read."""
    watch = _Watch(check)
    with opened(os.open(root, FOLDER)) as fd, ThreadPoolExecutor(_THREADS) as pool:
        walk = _Walk(blobs, Listing(limits or ReadLimits(), watch), pool, watch)
        with watch.noting():
            walk.folder(fd, b"", depth=0)
    watch.raise_noted()
    skipped = sorted(walk.skipped, key=lambda skip: skip.path)
    return Captured(Tree.of(walk.entries), skipped)


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
    listing: Listing
    pool: ThreadPoolExecutor
    watch: _Watch
    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    def folder(self, fd: int, path: bytes, depth: int) -> None:
        files: list[tuple[bytes, int]] = []
        folders: list[bytes] = []
        for name, about in self.listing.of(fd, path):
            if isinstance(about, Skipped):
                self._take(about)
            elif depth == MAX_DEPTH:
                self._take(Skipped(shown(below(path, name)), TOO_DEEP))
            elif stat.S_ISREG(about.st_mode):
                files.append((name, about.st_size))
            elif stat.S_ISDIR(about.st_mode):
                folders.append(name)
            else:
                self._take(link_or_skipped(fd, name, below(path, name), about))
        self._files(fd, path, files)
        for name in folders:
            self._subfolder(fd, name, below(path, name), depth + 1)

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
                self._take(self._read_file(fd, name, below(path, name), size))

    def _read_file(self, folder: int, name: bytes, path: bytes, size: int) -> Entry | Skipped:
        self.watch()
        found = open_regular(folder, name, path)
        if isinstance(found, Skipped):
            return found
        with opened(found) as fd:
            about = os.fstat(fd)
            head = Head(fd, size, self.watch)
            hash = self.blobs.put_stream(head)
            return Entry.file(path, about.st_mode, about.st_mtime_ns, head.count, hash)

    def _subfolder(self, parent: int, name: bytes, path: bytes, depth: int) -> None:
        found = open_folder(parent, name, path)
        if isinstance(found, Skipped):
            self._take(found)
            return
        with opened(found) as fd:
            about = os.fstat(fd)
            self.entries.append(Entry.directory(path, about.st_mode, about.st_mtime_ns))
            self.folder(fd, path, depth)

    def _take(self, found: Entry | Skipped) -> None:
        if isinstance(found, Entry):
            self.entries.append(found)
        else:
            self.skipped.append(found)
