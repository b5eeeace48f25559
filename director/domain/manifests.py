"""The manifest of a tree: canonical JSON, described in `docs/checkpoints.md`."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from director.domain.trees import (
    HOLE,
    MAX_NS,
    MAX_PATH,
    VERSION,
    Entry,
    Piece,
    Tree,
    TreeError,
    canonical,
    check_order,
    entry_json,
)

_HASH = re.compile(r"[0-9a-f]{64}")
_COMPONENT = rb"(?!\.{1,2}(?:/|\Z))[^/\0]{1,255}"
_PLAIN = re.compile(rb"%s(?:/%s){0,199}" % (_COMPONENT, _COMPONENT))
"""What `normalise` leaves as it is, but for the length."""


def manifest(tree: Tree) -> bytes:
    """A tree as bytes: what it says of its files, and where they lie."""
    numbers = {blob: number for number, blob in enumerate(tree.sizes)}
    numbers[HOLE] = -1
    entries = [entry_json(entry) + _pieces_json(entry, numbers) for entry in tree.entries]
    blobs = [list(pair) for pair in tree.sizes.items()]
    return canonical({"blobs": blobs, "entries": entries, "version": VERSION})


def parse(manifest: bytes) -> Tree:
    """Read a manifest. Raises TreeError for what is none, or would not be safe to write."""
    try:
        told = json.loads(manifest)
        if told["version"] != VERSION:
            raise TreeError(f"version {told['version']} of trees is not known")
        blobs = [(_hash(hash), _natural(size)) for hash, size in told["blobs"]]
        entries = tuple(_entry(fields, blobs) for fields in told["entries"])
    except TreeError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise TreeError(f"this is no manifest of a tree ({error})") from None
    check_order(entries)
    return Tree(entries, dict(blobs))


Sized = tuple[str, int]
"""A blob and its size."""


def _pieces_json(entry: Entry, numbers: Mapping[str, int]) -> list[Any]:
    return [[numbers[blob], offset, size] for blob, offset, size in entry.pieces]


def _entry(fields: Sequence[Any], blobs: Sequence[Sized]) -> Entry:
    kind, path, mode, mtime_ns, *more = fields
    raw = path.encode("utf-8", "surrogateescape")
    if not _PLAIN.fullmatch(raw) or len(raw) > MAX_PATH:
        raise TreeError(f"path {path!r} is not a plain relative path")
    if not 0 <= _natural(mode) <= 0o777 or abs(_integer(mtime_ns)) > MAX_NS:
        raise TreeError(f"{path!r}: its mode or time is none that Linux takes")
    if kind == "file":
        size, hash, *pieces = more
        found = tuple(_piece(one, blobs) for one in pieces)
        if found and sum(piece.size for piece in found) != size:
            raise TreeError(f"{path!r}: its pieces are not its content")
        return Entry(raw, kind, mode, mtime_ns, _natural(size), _hash(hash), b"", found)
    if kind == "symlink":
        (target,) = more
        return Entry(raw, kind, mode, mtime_ns, raw_target=_target(path, target))
    if kind != "directory" or more:
        raise TreeError(f"{path!r} is of no known kind")
    return Entry(raw, kind, mode, mtime_ns)


def _piece(fields: Sequence[Any], blobs: Sequence[Sized]) -> Piece:
    number, offset, size = map(_integer, fields)
    if number == -1:
        return Piece(HOLE, 0, _natural(size))
    blob, whole = blobs[_natural(number)]
    if not 0 <= offset <= offset + _natural(size) <= whole:
        raise TreeError(f"a piece lies outside of blob {blob}")
    return Piece(blob, offset, size)


def _integer(value: Any) -> int:
    if type(value) is not int:
        raise TreeError(f"{value!r} is no whole number")
    return value


def _natural(value: Any) -> int:
    if _integer(value) < 0:
        raise TreeError(f"{value!r} is less than nothing")
    return int(value)


def _hash(value: Any) -> str:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise TreeError(f"{value!r} is no SHA-256")
    return value


def _target(path: str, target: str) -> bytes:
    raw = target.encode("utf-8", "surrogateescape")
    if not raw or b"\0" in raw or len(raw) > MAX_PATH:
        raise TreeError(f"{path!r}: its target is not one that Linux takes")
    return raw
