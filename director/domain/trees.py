"""A tree of files as a value: what lies where, with which mode and time, and the hash of each file.

Paths are bytes, as on Linux, and are never normalised to NFC. Owners, special files and setuid,
setgid and sticky bits are never part of a tree. `docs/checkpoints.md` describes the manifest."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, Self

Kind = Literal["file", "directory", "symlink"]

MAX_PATH = 4095
"""Bytes in a path, and in a symlink's target: what Linux takes in one call."""
MAX_NAME = 255
"""Bytes in one component of a path."""
MAX_DEPTH = 200
"""Components in a path: each level costs a descriptor while a tree is read or written."""

VERSION = 1
"""Of the manifest."""
HOLE = ""
"""In the place of a blob's name: zeros that lie nowhere."""

MAX_NS = 2**63 - 1


class PathError(ValueError):
    """A path cannot stand in a tree; the message says why and reads on after the path."""


class TreeError(ValueError):
    """A tree contradicts itself, or its manifest is none."""


def normalise(raw: bytes) -> bytes:
    """Resolve `.`, `..` and doubled slashes without looking at any disk; empty is the root.

    Raises PathError for a path that is absolute, leaves the root, or that Linux would not take."""
    if raw.startswith(b"/"):
        raise PathError("is absolute; paths are relative to the root of the tree")
    if b"\0" in raw:
        raise PathError("contains a NUL byte")
    parts: list[bytes] = []
    for part in raw.split(b"/"):
        if part == b".." and not parts:
            raise PathError("leads out of the tree with '..'")
        if part == b"..":
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return _measured(parts)


def _measured(parts: list[bytes]) -> bytes:
    if len(parts) > MAX_DEPTH:
        raise PathError(f"is nested deeper than {MAX_DEPTH} levels")
    if any(len(part) > MAX_NAME for part in parts):
        raise PathError(f"has a component longer than {MAX_NAME} bytes")
    path = b"/".join(parts)
    if len(path) > MAX_PATH:
        raise PathError(f"is longer than {MAX_PATH} bytes")
    return path


def shown(raw: bytes) -> str:
    """Spell a path for people; bytes that are not UTF-8 become U+FFFD."""
    return raw.decode("utf-8", "replace")


def parents(path: bytes) -> list[bytes]:
    """Every folder above a path, outermost first, without the root."""
    ends = [at for at, byte in enumerate(path) if byte == ord("/")]
    return [path[:end] for end in ends]


class Piece(NamedTuple):
    """A part of a file's content: so many bytes of a blob, from an offset, or of a hole."""

    blob: str
    offset: int
    size: int


class Entry(NamedTuple):
    """A file, a folder or a symbolic link in a tree."""

    raw_path: bytes
    kind: Kind
    mode: int
    mtime_ns: int
    size: int = 0
    hash: str | None = None
    """SHA-256 of a file's content."""
    raw_target: bytes = b""
    pieces: tuple[Piece, ...] = ()
    """Where the content lies; none: in the blob of its own hash."""

    @classmethod
    def file(cls, path: bytes, mode: int, mtime_ns: int, size: int, hash: str) -> Self:
        """Describe a regular file; of `mode` only the permission bits count."""
        return cls(path, "file", mode & 0o777, _bounded(mtime_ns), size, hash)

    @classmethod
    def directory(cls, path: bytes, mode: int, mtime_ns: int) -> Self:
        """Describe a folder."""
        return cls(path, "directory", mode & 0o777, _bounded(mtime_ns))

    @classmethod
    def symlink(cls, path: bytes, target: bytes, mtime_ns: int) -> Self:
        """Describe a symbolic link. Linux gives every one the mode 0777."""
        return cls(path, "symlink", 0o777, _bounded(mtime_ns), raw_target=target)

    @property
    def path(self) -> str:
        """The path for people."""
        return shown(self.raw_path)

    @property
    def target(self) -> str | None:
        """The target of a symbolic link for people."""
        return shown(self.raw_target) if self.kind == "symlink" else None

    @property
    def content(self) -> tuple[Piece, ...]:
        """Every piece of a file's content, in order."""
        if self.pieces or not self.size:
            return self.pieces
        return (Piece(self.hash or "", 0, self.size),)

    def moved(self, path: bytes) -> Self:
        """The same thing at another path."""
        return self._replace(raw_path=path)


def _bounded(mtime_ns: int) -> int:
    return min(max(mtime_ns, -MAX_NS), MAX_NS)


@dataclass(frozen=True)
class Tree:
    """Entries sorted by the bytes of their paths, each path once, nothing below a non-folder.

    Folders that hold something need no entry of their own."""

    entries: tuple[Entry, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each blob that a piece lies in."""

    @classmethod
    def of(cls, entries: Iterable[Entry], sizes: Mapping[str, int] | None = None) -> Self:
        """Make a tree of entries in any order; of `sizes` only blobs that are used are kept.
        Raises TreeError."""
        tree = cls(tuple(sorted(entries, key=lambda entry: entry.raw_path)))
        check_order(tree.entries)
        used = {piece.blob for entry in tree.entries for piece in entry.pieces} - {HOLE}
        known = sizes or {}
        return cls(tree.entries, {blob: known[blob] for blob in sorted(used)})

    @property
    def file_count(self) -> int:
        """How many regular files there are."""
        return sum(entry.kind == "file" for entry in self.entries)

    @property
    def total_bytes(self) -> int:
        """The sum of the sizes of the files, in bytes."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def blobs(self) -> dict[str, int]:
        """Every blob that a content lies in, with its size."""
        whole = (entry for entry in self.entries if entry.size and not entry.pieces)
        return {**self.sizes, **{entry.hash: entry.size for entry in whole if entry.hash}}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of what the tree says of its files, not of where they lie: equal trees, equal
        hashes."""
        plain = [entry_json(entry) for entry in self.entries]
        return hashlib.sha256(canonical([VERSION, plain])).hexdigest()


def canonical(value: Any) -> bytes:
    """Write JSON with sorted keys, without spaces and beyond ASCII only escapes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def entry_json(entry: Entry) -> list[Any]:
    """What an entry says of its file; bytes that are not UTF-8 are half surrogate pairs, as in
    Python's `os.fsdecode`."""
    path = entry.raw_path.decode("utf-8", "surrogateescape")
    if entry.kind == "file":
        return ["file", path, entry.mode, entry.mtime_ns, entry.size, entry.hash]
    if entry.kind == "directory":
        return ["directory", path, entry.mode, entry.mtime_ns]
    target = entry.raw_target.decode("utf-8", "surrogateescape")
    return ["symlink", path, entry.mode, entry.mtime_ns, target]


def check_order(entries: Sequence[Entry]) -> None:
    """Raise TreeError where entries are not sorted, or contradict each other."""
    solid: set[bytes] = set()
    open_folders = {b""}
    before = b""
    for entry in entries:
        path = entry.raw_path
        if path <= before:
            raise TreeError(f"{entry.path!r} is there twice or not in order")
        folder = path.rpartition(b"/")[0]
        if folder not in open_folders:
            if any(parent in solid for parent in _with_parents(folder)):
                raise TreeError(f"{entry.path!r} lies below something that is no folder")
            open_folders.add(folder)
        if entry.kind != "directory":
            solid.add(path)
        before = path


def _with_parents(folder: bytes) -> Iterator[bytes]:
    yield folder
    yield from parents(folder)


def merge(trees: Iterable[Tree]) -> Tree:
    """Lay trees over each other; where two disagree the later one wins.

    A later file takes the place of a whole folder, and a later folder that of a file."""
    merged: dict[bytes, Entry] = {}
    sizes: dict[str, int] = {}
    for tree in trees:
        _overlay(merged, tree)
        sizes.update(tree.sizes)
    return Tree.of(merged.values(), sizes)


def _overlay(below: dict[bytes, Entry], tree: Tree) -> None:
    solid = {entry.raw_path for entry in tree.entries if entry.kind != "directory"}
    folders = {parent for entry in tree.entries for parent in parents(entry.raw_path)}
    for path, entry in list(below.items()):
        hidden = any(parent in solid for parent in parents(path))
        if hidden or (entry.kind != "directory" and path in folders):
            del below[path]
    below.update((entry.raw_path, entry) for entry in tree.entries)
