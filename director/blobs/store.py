"""Content-addressed storage: a blob is named by the SHA-256 of its plain content and never changes.

A blob is stored as one zstd frame, so that `zstd -d` reads it without any of this code. It is read
and written in one go: contents of files come in chunks, see `contents`."""

import hashlib
import os
import re
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import zstandard

from director.domain import manifests
from director.domain.errors import DirectorError, NotFoundError
from director.domain.trees import Tree, TreeError

CHUNK = 4 * 1024 * 1024
"""Bytes that are handled at a time; a blob is at most so large, but for manifests."""

_LEVEL = 3
_HASH = re.compile(r"[0-9a-f]{64}")


class BlobCorruptError(DirectorError):
    """What lies in the store under this hash is no longer that content; a backup must bring it."""

    def __init__(self, hash: str, reason: str, readable: bytes = b"") -> None:
        super().__init__(f"blob {hash} is corrupt: {reason}", hash=hash)
        self.hash = hash
        self.readable = readable
        """What could be read of it, right or wrong."""


class Reader(Protocol):
    """Anything that gives bytes until it gives none."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""


class Rejoined:
    """A reader whose first bytes were read already."""

    def __init__(self, head: bytes, reader: Reader) -> None:
        self._head = head
        self._reader = reader

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""
        if not self._head:
            return self._reader.read(size)
        head, self._head = self._head[:size], self._head[size:]
        return head


class Blobs(Protocol):
    """Where contents are kept. Every method may be called from several threads at once."""

    def put(self, content: bytes) -> str:
        """Keep a content and tell its hash. Idempotent; when it returns, a power cut loses
        nothing."""

    def get(self, hash: str) -> bytes:
        """Read a content, checked against its hash. Raises NotFoundError or BlobCorruptError."""

    def exists(self, hash: str) -> bool:
        """Tell whether there is a blob of that name, without reading it."""

    def delete(self, hash: str) -> None:
        """Remove a blob, if it is there. Only for who knows that nobody relies on it."""

    def names(self, older_than: timedelta) -> Iterator[str]:
        """Every blob that was written so long ago, in no order."""


class Frames(ABC):
    """What stores of frames have in common, wherever those lie."""

    def put(self, content: bytes) -> str:
        """Keep a content and tell its hash."""
        hash = hashlib.sha256(content).hexdigest()
        if not self._has(hash):
            self._write(hash, zstandard.ZstdCompressor(level=_LEVEL).compress(content))
        return hash

    def get(self, hash: str) -> bytes:
        """Read a content, checked against its hash."""
        if not _HASH.fullmatch(hash):
            raise NotFoundError("blob", hash)
        return _checked(self._read(hash), hash)

    def exists(self, hash: str) -> bool:
        """Tell whether there is a blob of that name, without reading it."""
        return bool(_HASH.fullmatch(hash)) and self._has(hash)

    def delete(self, hash: str) -> None:
        """Remove a blob, if it is there."""
        if _HASH.fullmatch(hash):
            self._remove(hash)

    @abstractmethod
    def names(self, older_than: timedelta) -> Iterator[str]:
        """Every blob that was written so long ago, in no order."""

    @abstractmethod
    def _has(self, hash: str) -> bool: ...

    @abstractmethod
    def _read(self, hash: str) -> bytes:
        """The frame. Raises NotFoundError."""

    @abstractmethod
    def _write(self, hash: str, frame: bytes) -> None:
        """Keep a frame, safe from a power cut."""

    @abstractmethod
    def _remove(self, hash: str) -> None: ...


class LocalBlobs(Frames):
    """Blobs in a folder, as `ab/abcd…`; what is being written lies in `tmp`.

    `fsync=False` trades safety in a power cut for speed: for tests and throw-away data."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self._root = root
        self._fsync = fsync
        self._tmp = root / "tmp"
        self._tmp.mkdir(parents=True, exist_ok=True)

    def names(self, older_than: timedelta) -> Iterator[str]:
        """Every blob that was written so long ago; what a killed writer left is removed."""
        before = time.time() - older_than.total_seconds()
        for left in _old(self._tmp, before):
            left.unlink(missing_ok=True)
        for folder in sorted(self._root.glob("[0-9a-f][0-9a-f]")):
            yield from (path.name for path in _old(folder, before) if _HASH.fullmatch(path.name))

    def _path(self, hash: str) -> Path:
        return self._root / hash[:2] / hash

    def _has(self, hash: str) -> bool:
        return self._path(hash).exists()

    def _read(self, hash: str) -> bytes:
        try:
            return self._path(hash).read_bytes()
        except FileNotFoundError:
            raise NotFoundError("blob", hash) from None

    def _write(self, hash: str, frame: bytes) -> None:
        """Give a finished file its name. Two writers of one content may meet here: both are right,
        since a name stands for one content only."""
        path = self._path(hash)
        with tempfile.NamedTemporaryFile(dir=self._tmp, delete=False) as file:
            try:
                file.write(frame)
                file.flush()
                self._sync(file.fileno())
                if not path.parent.exists():
                    path.parent.mkdir(exist_ok=True)
                    self._sync_folder(self._root)
                Path(file.name).replace(path)
            finally:
                Path(file.name).unlink(missing_ok=True)
        self._sync_folder(path.parent)

    def _remove(self, hash: str) -> None:
        self._path(hash).unlink(missing_ok=True)

    def _sync(self, fd: int) -> None:
        if self._fsync:
            os.fsync(fd)

    def _sync_folder(self, folder: Path) -> None:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._sync(fd)
        finally:
            os.close(fd)


class TouchedBlobs:
    """A store whose blobs are noted, by hash and size, before anybody relies on them: collection
    spares what was noted not long ago."""

    def __init__(self, blobs: Blobs, touch: Callable[[str, int], None]) -> None:
        self._blobs, self._touch = blobs, touch
        self.get, self.exists = blobs.get, blobs.exists
        self.delete, self.names = blobs.delete, blobs.names

    def put(self, content: bytes) -> str:
        """Keep a content and tell its hash; it is noted before it is looked for."""
        self._touch(hashlib.sha256(content).hexdigest(), len(content))
        return self._blobs.put(content)


def _old(folder: Path, before: float) -> Iterator[Path]:
    with os.scandir(folder) as found:
        for item in found:
            with suppress(FileNotFoundError):
                if item.stat(follow_symlinks=False).st_mtime < before:
                    yield Path(item.path)


def _checked(frame: bytes, hash: str) -> bytes:
    decoder, parts = zstandard.ZstdDecompressor().decompressobj(), []
    try:
        for start in range(0, len(frame), CHUNK):
            parts.append(decoder.decompress(frame[start : start + CHUNK]))
    except zstandard.ZstdError as error:
        reason = f"it cannot be decompressed ({error})"
        raise BlobCorruptError(hash, reason, _readable(frame)) from None
    content = b"".join(parts)
    if not decoder.eof or decoder.unused_data:
        raise BlobCorruptError(hash, "it is cut off, or something follows it", content)
    if (found := hashlib.sha256(content).hexdigest()) != hash:
        raise BlobCorruptError(hash, f"its content has the hash {found}", content)
    return content


def _readable(frame: bytes) -> bytes:
    """What comes out of a frame up to where it is damaged."""
    parts: list[bytes] = []
    with suppress(zstandard.ZstdError):
        reader = zstandard.ZstdDecompressor().stream_reader(frame)
        while part := reader.read(4096):
            parts.append(part)
    return b"".join(parts)


def put_tree(blobs: Blobs, tree: Tree) -> str:
    """Keep a tree's manifest as a blob, and tell its hash. Its files come first, so that a manifest
    that is there is whole."""
    return blobs.put(manifests.manifest(tree))


def get_tree(blobs: Blobs, hash: str) -> Tree:
    """Read a tree by the hash of its manifest. Raises NotFoundError or BlobCorruptError."""
    try:
        return manifests.parse(blobs.get(hash))
    except TreeError as error:
        raise BlobCorruptError(hash, str(error)) from None


def read_fully(reader: Reader, size: int) -> bytes:
    """Read `size` bytes; less only at the end."""
    parts: list[bytes] = []
    while size and (part := reader.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
