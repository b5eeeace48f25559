"""Reads a folder into blobs, beside files whose owner is hostile."""

import os
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from director.blobs.contents import SMALL, Contents
from director.blobs.folders import FOLDER, opened
from director.blobs.reading import (
    TOO_DEEP,
    Head,
    Listed,
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
from director.domain.trees import HOLE, MAX_DEPTH, Entry, Piece, Tree, shown

_SETTLED_NS = 2 * 10**9
"""A file whose inode changed later than so long before a capture may change again in the same tick
of the clock: the next capture reads it again, whatever its times are."""

_WASTE = 2
"""A tree whose blobs are so many times as large as what it uses of them is taken anew."""


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


def capture(
    root: Path,
    blobs: Blobs,
    limits: ReadLimits | None = None,
    check: Callable[[], None] = go_on,
    *,
    previous: Captured | None = None,
) -> Captured:
    """Read a folder into blobs. A file that changes meanwhile is taken as it was read. What is as
    it was at a `previous` capture of the same folder is not read again: its blobs must still be
    there.

    `check` is called for every entry and every chunk; what it raises ends the capture and comes out
    as it is. Special files, and what may not be read or vanishes, are told in `skipped`. Raises
    PayloadTooLargeError over the limits, and OSError if the folder or the disk cannot be read."""
    before = _Before(previous)
    with opened(os.open(root, FOLDER)) as fd, Contents(blobs, before.known) as contents:
        walk = _Walk(contents, Listing(limits or ReadLimits()), check, before)
        walk.folder(fd, b"", depth=0)
        tree = contents.tree(walk.entries, before.sizes)
    skipped = sorted(walk.skipped, key=lambda skip: skip.path)
    return Captured(tree, skipped, walk.stamps)


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
    listing: Listing
    check: Callable[[], None]
    before: _Before
    entries: list[Entry] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    stamps: dict[bytes, Stamp] = field(default_factory=dict)
    settled_ns: int = field(default_factory=lambda: time.time_ns() - _SETTLED_NS)

    def folder(self, fd: int, path: bytes, depth: int) -> None:
        """Take what lies in a folder, in the order of names: equal folders fill equal packs."""
        folders: list[bytes] = []
        for name, about in self._listed(fd, path):
            self.check()
            inner = below(path, name)
            if isinstance(about, Skipped):
                self._take(about)
            elif depth == MAX_DEPTH:
                self._take(Skipped(shown(inner), TOO_DEEP))
            elif stat.S_ISREG(about.st_mode):
                self._take(self._unread(inner, about) or self._file(fd, name, inner, about.st_size))
            elif stat.S_ISDIR(about.st_mode):
                folders.append(name)
            else:
                self._take(link_or_skipped(fd, name, inner, about))
        for name in folders:
            self._subfolder(fd, name, below(path, name), depth + 1)

    def _listed(self, fd: int, path: bytes) -> list[Listed]:
        listed = []
        with closing(self.listing.of(fd, path)) as found:
            for one in found:
                self.check()
                listed.append(one)
        listed.sort(key=lambda one: one[0])
        return listed

    def _unread(self, path: bytes, about: os.stat_result) -> Entry | None:
        stamp = Stamp.of(about)
        if (entry := self.before.same(path, stamp)) is not None:
            self.stamps[path] = stamp
        return entry

    def _file(self, folder: int, name: bytes, path: bytes, counted: int) -> Entry | Skipped:
        """Read a file, of as many bytes as the limits have counted at most."""
        found = open_regular(folder, name, path)
        if isinstance(found, Skipped):
            return found
        with opened(found) as fd:
            about = os.fstat(fd)
            if about.st_ctime_ns < self.settled_ns and about.st_size == counted:
                self.stamps[path] = Stamp.of(about)
            hash, size = self._content(fd, min(about.st_size, counted))
            return Entry.file(path, about.st_mode, about.st_mtime_ns, size, hash)

    def _content(self, fd: int, size: int) -> tuple[str, int]:
        if size <= SMALL:
            content = os.pread(fd, size, 0)
            return self.contents.put_small(content), len(content)
        return self.contents.put_large(Head(fd, size, self.check))

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
