"""A tree of files as a value: what lies where, with which mode and time, and the hash of each file.

Paths are bytes on Linux. A path that is UTF-8 stands in `path` as it is (never normalised to NFC);
of any other, `path` shows the name with U+FFFD and `path_bytes` keeps the bytes. Owners, special
files and setuid, setgid and sticky bits are never part of a tree."""

import base64
import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from director.domain.base import Shape

Kind = Literal["file", "directory", "symlink"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$")]

MAX_PATH = 4095
"""Bytes in a path, and in a symlink's target: what Linux takes in one call."""
MAX_NAME = 255
"""Bytes in one component of a path."""
MAX_DEPTH = 200
"""Components in a path: each level costs a descriptor while a tree is read or written."""

_MAX_NS = 2**63 - 1


class PathError(ValueError):
    """A path cannot stand in a tree; the message says why and reads on after the path."""


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


def _split(raw: bytes) -> tuple[str, str | None]:
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError:
        return shown(raw), base64.b64encode(raw).decode("ascii")


def _join(text: str, raw: str | None) -> bytes:
    return text.encode("utf-8") if raw is None else base64.b64decode(raw, validate=True)


class Entry(Shape):
    """A file, a folder or a symbolic link in a tree."""

    path: str
    path_bytes: Base64 | None = None
    """The path in base64, given only when it is not UTF-8; then `path` is only for people."""
    kind: Kind
    mode: int = Field(ge=0, le=0o777)
    mtime_ns: int = Field(ge=-_MAX_NS, le=_MAX_NS)
    size: int = Field(default=0, ge=0)
    hash: Sha256 | None = None
    """SHA-256 of a file's content."""
    target: str | None = None
    target_bytes: Base64 | None = None

    @classmethod
    def file(cls, path: bytes, mode: int, mtime_ns: int, size: int, hash: str) -> Self:
        """Describe a regular file; of `mode` only the permission bits count."""
        about = _common("file", path, mode, mtime_ns)
        return cls.model_validate({**about, "size": size, "hash": hash})

    @classmethod
    def directory(cls, path: bytes, mode: int, mtime_ns: int) -> Self:
        """Describe a folder."""
        return cls.model_validate(_common("directory", path, mode, mtime_ns))

    @classmethod
    def symlink(cls, path: bytes, target: bytes, mtime_ns: int) -> Self:
        """Describe a symbolic link. Linux gives every one the mode 0777."""
        text, raw = _split(target)
        about = _common("symlink", path, 0o777, mtime_ns)
        return cls.model_validate({**about, "target": text, "target_bytes": raw})

    @cached_property
    def raw_path(self) -> bytes:
        """The path as Linux has it."""
        return _join(self.path, self.path_bytes)

    @cached_property
    def raw_target(self) -> bytes:
        """The target of a symbolic link as Linux has it; empty for other kinds."""
        return _join(self.target or "", self.target_bytes)

    def moved(self, path: bytes) -> Self:
        """The same thing at another path."""
        text, raw = _split(path)
        fields = self.model_dump(by_alias=False)
        return self.model_validate({**fields, "path": text, "path_bytes": raw})

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.raw_path or normalise(self.raw_path) != self.raw_path:
            raise ValueError(f"path {self.path!r} is not a plain relative path")
        if (self.kind == "file") != (self.hash is not None):
            raise ValueError(f"{self.path!r}: a file, and nothing else, has a hash")
        if (self.kind == "symlink") != bool(self.target):
            raise ValueError(f"{self.path!r}: a symlink, and nothing else, has a target")
        if b"\0" in self.raw_target or len(self.raw_target) > MAX_PATH:
            raise ValueError(f"{self.path!r}: its target is not one that Linux takes")
        return self


def _common(kind: Kind, path: bytes, mode: int, mtime_ns: int) -> dict[str, object]:
    text, raw = _split(path)
    mtime_ns = min(max(mtime_ns, -_MAX_NS), _MAX_NS)
    where = {"path": text, "path_bytes": raw}
    return {**where, "kind": kind, "mode": mode & 0o777, "mtime_ns": mtime_ns}


class Tree(Shape):
    """Entries sorted by the bytes of their paths, each path once, nothing below a non-folder.

    Folders that hold something need no entry of their own."""

    version: Literal[1] = 1
    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self:
        """Make a tree of entries in any order."""
        return cls(entries=tuple(sorted(entries, key=lambda entry: entry.raw_path)))

    @property
    def file_count(self) -> int:
        """How many regular files there are."""
        return sum(entry.kind == "file" for entry in self.entries)

    @property
    def total_bytes(self) -> int:
        """The sum of the sizes of the files, in bytes."""
        return sum(entry.size for entry in self.entries)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: equal trees, equal hashes."""
        return hashlib.sha256(self.canonical_json()).hexdigest()

    def canonical_json(self) -> bytes:
        """Write the tree with sorted keys, without spaces and without absent fields, as UTF-8."""
        plain = self.model_dump(mode="json", exclude_none=True)
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @model_validator(mode="after")
    def _check(self) -> Self:
        solid: set[bytes] = set()
        before = b""
        for entry in self.entries:
            path = entry.raw_path
            if path <= before:
                raise ValueError(f"{entry.path!r} is there twice or not in order")
            if solid and any(parent in solid for parent in parents(path)):
                raise ValueError(f"{entry.path!r} lies below something that is no folder")
            if entry.kind != "directory":
                solid.add(path)
            before = path
        return self


def merge(trees: Iterable[Tree]) -> Tree:
    """Lay trees over each other; where two disagree the later one wins.

    A later file takes the place of a whole folder, and a later folder that of a file."""
    merged: dict[bytes, Entry] = {}
    for tree in trees:
        _overlay(merged, tree)
    return Tree.of(merged.values())


def _overlay(below: dict[bytes, Entry], tree: Tree) -> None:
    solid = {entry.raw_path for entry in tree.entries if entry.kind != "directory"}
    folders = {parent for entry in tree.entries for parent in parents(entry.raw_path)}
    for path, entry in list(below.items()):
        hidden = any(parent in solid for parent in parents(path))
        if hidden or (entry.kind != "directory" and path in folders):
            del below[path]
    below.update((entry.raw_path, entry) for entry in tree.entries)
