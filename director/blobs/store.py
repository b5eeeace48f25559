"""Content-addressed storage: a blob is named by the SHA-256 of its plain content and never changes.

A blob is stored as one zstd frame, so that `zstd -d` reads it without any of this code. It is read
and written in one go: contents of files come in chunks, see `contents`."""

import hashlib
import os
import re
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import zstandard

from director.domain import manifests
from director.domain.errors import DirectorError, NotFoundError, UnavailableError
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


class Puts(Protocol):
    """Contents that become safe together, which costs much less than one by one."""

    def put(self, content: bytes) -> str:
        """Take a content and tell its hash; from several threads at once."""

    def finish(self) -> None:
        """Make all of them safe from a power cut, and only then to be found. Raises
        UnavailableError where one that was there already has been removed meanwhile."""

    def drop(self) -> None:
        """Forget those that were not finished."""


class Blobs(Protocol):
    """Where contents are kept. Every method may be called from several threads at once."""

    def batch(self, met: "Met | None" = None) -> Puts:
        """Begin to keep many contents. One that is there already is told to `met` before it is
        relied on."""

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
        if not self.has(hash):
            self._write(hash, compressed(content))
        return hash

    def get(self, hash: str) -> bytes:
        """Read a content, checked against its hash."""
        if not _HASH.fullmatch(hash):
            raise NotFoundError("blob", hash)
        return _checked(self._read(hash), hash)

    def batch(self, met: "Met | None" = None) -> "Batch":
        """Begin to keep many contents."""
        return Batch(self, met)

    def exists(self, hash: str) -> bool:
        """Tell whether there is a blob of that name, without reading it."""
        return bool(_HASH.fullmatch(hash)) and self.has(hash)

    def delete(self, hash: str) -> None:
        """Remove a blob, if it is there."""
        if _HASH.fullmatch(hash):
            self._remove(hash)

    @abstractmethod
    def names(self, older_than: timedelta) -> Iterator[str]:
        """Every blob that was written so long ago, in no order."""

    @abstractmethod
    def has(self, hash: str) -> bool:
        """Whether there is a blob of a name that is one."""

    @abstractmethod
    def stage(self, hash: str, frame: bytes) -> Path | None:
        """Take a frame; it need not be safe yet, nor to be found."""

    @abstractmethod
    def settle(self, staged: Mapping[str, Path | None]) -> None:
        """Make frames that were staged safe from a power cut, and then to be found."""

    def _write(self, hash: str, frame: bytes) -> None:
        self.settle({hash: self.stage(hash, frame)})

    @abstractmethod
    def _read(self, hash: str) -> bytes:
        """The frame. Raises NotFoundError."""

    @abstractmethod
    def _remove(self, hash: str) -> None: ...


class Batch:
    """Contents for a store of frames that become safe together."""

    def __init__(self, store: Frames, met: "Met | None") -> None:
        self._store, self._met = store, met
        self._there: set[str] = set()
        self._staged: dict[str, Path | None] = {}

    def put(self, content: bytes) -> str:
        """Take a content and tell its hash."""
        hash = hashlib.sha256(content).hexdigest()
        if self._is_there(hash, len(content)):
            self._there.add(hash)
        elif hash not in self._staged:
            self._staged[hash] = self._store.stage(hash, compressed(content))
        return hash

    def _is_there(self, hash: str, size: int) -> bool:
        if not self._store.has(hash):
            return False
        if self._met is not None:
            self._met({hash: size})
        return self._met is None or self._store.has(hash)

    def finish(self) -> None:
        """Make all of them safe from a power cut, and only then to be found."""
        self._store.settle(self._staged)
        self._staged = {}
        if gone := [hash for hash in self._there if not self._store.has(hash)]:
            raise UnavailableError(f"blob {gone[0]} was removed while it was put; try again")

    def drop(self) -> None:
        """Forget those that were not finished."""
        for path in self._staged.values():
            if path is not None:
                path.unlink(missing_ok=True)


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

    def has(self, hash: str) -> bool:
        """Whether there is a blob of a name that is one."""
        return self._path(hash).exists()

    def _read(self, hash: str) -> bytes:
        try:
            return self._path(hash).read_bytes()
        except FileNotFoundError:
            raise NotFoundError("blob", hash) from None

    def stage(self, hash: str, frame: bytes) -> Path:
        """Write a frame aside. The disk begins to write at once, so that not all is left to the
        end; several of one content do not disturb each other."""
        with tempfile.NamedTemporaryFile(dir=self._tmp, prefix=hash[:8], delete=False) as file:
            file.write(frame)
            file.flush()
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return Path(file.name)

    def settle(self, staged: Mapping[str, Path | None]) -> None:
        """Sync all files, then give them their names, then sync their folders: the disk's journal
        is written a few times, not for every file. Two writers of one content may meet here: both
        are right, since a name stands for one content only."""
        folders = {self._path(hash).parent for hash in staged}
        for path in staged.values():
            self._sync(path)
        for folder in folders:
            folder.mkdir(exist_ok=True)
        for hash, path in staged.items():
            if path is not None:
                path.replace(self._path(hash))
        for folder in [*folders, self._root] if folders else []:
            self._sync(folder)

    def _remove(self, hash: str) -> None:
        self._path(hash).unlink(missing_ok=True)

    def _sync(self, path: Path | None) -> None:
        if self._fsync and path is not None:
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def compressed(content: bytes) -> bytes:
    """A content as it is stored."""
    return zstandard.ZstdCompressor(level=_LEVEL).compress(content)


Met = Callable[[Mapping[str, int]], None]
"""Takes note of blobs, by hash with their sizes."""


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
