"""Content-addressed storage: a blob is named by the SHA-256 of its plain content and never changes.

On disk a blob is one zstd frame, so that `zstd -d` reads it without any of this code."""

import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol

import zstandard

from director.domain.errors import DirectorError, NotFoundError
from director.domain.trees import Tree

CHUNK = 1024 * 1024
"""Bytes that are handled at a time; a blob of any size costs a few of these in memory."""

_BLOCK = 128 * 1024
_LEVEL = 3
_FRAME_HEADER = 18
_HASH = re.compile(r"[0-9a-f]{64}")


class BlobCorruptError(DirectorError):
    """What lies in the store under this hash is no longer that content; a backup must bring it."""

    def __init__(self, hash: str, reason: str) -> None:
        super().__init__(f"blob {hash} is corrupt: {reason}", hash=hash)
        self.hash = hash


class Reader(Protocol):
    """Anything that gives bytes until it gives none."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; empty at the end."""


class Blobs(Protocol):
    """Where contents are kept. Every method may be called from several threads at once."""

    def put(self, content: bytes) -> str:
        """Keep a content and tell its hash. Idempotent; when it returns, a power cut loses
        nothing."""

    def put_stream(self, reader: Reader) -> str:
        """Keep what a reader gives until its end, in constant memory."""

    def open(self, hash: str) -> io.BufferedReader:
        """Read a content in constant memory. The last bytes come only after the hash was found
        right. Raises NotFoundError here, BlobCorruptError while reading."""

    def get(self, hash: str) -> bytes:
        """Read a whole content into memory. Raises NotFoundError or BlobCorruptError."""

    def exists(self, hash: str) -> bool:
        """Tell whether there is a blob of that name, without reading it."""

    def size(self, hash: str) -> int:
        """Bytes of the plain content. Raises NotFoundError."""


class LocalBlobs:
    """Blobs in a folder, as `ab/cd/abcd…`; what is being written lies in `tmp`.

    `fsync=False` trades safety in a power cut for speed: for tests and throw-away data."""

    def __init__(self, root: Path, *, fsync: bool = True) -> None:
        self._root = root
        self._fsync = fsync
        self._tmp = root / "tmp"
        self._tmp.mkdir(parents=True, exist_ok=True)

    def put(self, content: bytes) -> str:
        """Keep a content and tell its hash."""
        hash = hashlib.sha256(content).hexdigest()
        if not self.exists(hash):
            with self._new_file() as file:
                file.write(zstandard.ZstdCompressor(level=_LEVEL).compress(content))
                self._keep(file, hash)
        return hash

    def put_stream(self, reader: Reader) -> str:
        """Keep what a reader gives until its end, in constant memory."""
        head = read_fully(reader, CHUNK)
        if len(head) < CHUNK:
            return self.put(head)
        digest = hashlib.sha256()
        with self._new_file() as file:
            compressor = zstandard.ZstdCompressor(level=_LEVEL)
            with compressor.stream_writer(file, closefd=False) as frame:
                while head:
                    digest.update(head)
                    frame.write(head)
                    head = reader.read(CHUNK)
            self._keep(file, digest.hexdigest())
        return digest.hexdigest()

    def open(self, hash: str) -> io.BufferedReader:
        """Read a content in constant memory, checked against its hash."""
        return io.BufferedReader(_Checked(self._open_file(hash), hash), _BLOCK)

    def get(self, hash: str) -> bytes:
        """Read a whole content into memory, checked against its hash."""
        with self.open(hash) as reader:
            return b"".join(_chunks(reader))

    def exists(self, hash: str) -> bool:
        """Tell whether there is a blob of that name, without reading it."""
        return bool(_HASH.fullmatch(hash)) and self._path(hash).exists()

    def size(self, hash: str) -> int:
        """Bytes of the plain content; a blob that came as a long stream is read for it."""
        with self._open_file(hash) as file:
            known = _size_in_frame(file.read(_FRAME_HEADER))
        if known is not None:
            return known
        with self.open(hash) as reader:
            return sum(map(len, _chunks(reader)))

    def _path(self, hash: str) -> Path:
        return self._root / hash[:2] / hash[2:4] / hash

    def _open_file(self, hash: str) -> IO[bytes]:
        if not _HASH.fullmatch(hash):
            raise NotFoundError("blob", hash)
        try:
            return self._path(hash).open("rb")
        except FileNotFoundError:
            raise NotFoundError("blob", hash) from None

    @contextmanager
    def _new_file(self) -> Iterator[IO[bytes]]:
        with tempfile.NamedTemporaryFile(dir=self._tmp, delete=False) as file:
            try:
                yield file
            finally:
                Path(file.name).unlink(missing_ok=True)

    def _keep(self, file: IO[bytes], hash: str) -> None:
        """Give a finished file its name. Two writers of one content may meet here: both are right,
        since a name stands for one content only."""
        file.flush()
        if self._fsync:
            os.fsync(file.fileno())
        path = self._path(hash)
        fresh = [folder for folder in (path.parent, path.parent.parent) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(file.name).replace(path)
        if self._fsync:
            _sync_folders([path.parent, *(folder.parent for folder in fresh)])


class _Checked(io.RawIOBase):
    """Plain bytes of a stored frame, whose last bytes are held back until the hash is right."""

    def __init__(self, file: IO[bytes], hash: str) -> None:
        self._file = file
        self._hash = hash
        self._chunks = self._checked_chunks()
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._ready:
            self._ready = memoryview(next(self._chunks, b""))
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

    def _checked_chunks(self) -> Iterator[bytes]:
        said = _size_in_frame(self._file.read(_FRAME_HEADER))
        self._file.seek(0)
        digest, size, held = hashlib.sha256(), 0, b""
        for chunk in self._plain_chunks():
            digest.update(chunk)
            size += len(chunk)
            if held:
                yield held
            held = chunk
        if digest.hexdigest() != self._hash:
            raise BlobCorruptError(self._hash, f"its content has the hash {digest.hexdigest()}")
        if said not in (None, size):
            raise BlobCorruptError(self._hash, f"its header says {said} bytes, it has {size}")
        yield held

    def _plain_chunks(self) -> Iterator[bytes]:
        frame = zstandard.ZstdDecompressor().stream_reader(self._file, closefd=False)
        try:
            while chunk := frame.read(_BLOCK):
                yield chunk
        except zstandard.ZstdError as error:
            raise BlobCorruptError(self._hash, f"it cannot be decompressed ({error})") from None


def put_tree(blobs: Blobs, tree: Tree) -> str:
    """Keep a tree's manifest as a blob; its hash is the tree's own. Its files come first, so that
    a manifest that is there is whole."""
    return blobs.put(tree.canonical_json())


def get_tree(blobs: Blobs, hash: str) -> Tree:
    """Read a tree by its hash. Raises NotFoundError or BlobCorruptError."""
    return Tree.model_validate_json(blobs.get(hash))


def _chunks(reader: Reader) -> Iterator[bytes]:
    return iter(lambda: reader.read(CHUNK), b"")


def read_fully(reader: Reader, size: int) -> bytes:
    """Read `size` bytes; less only at the end."""
    parts: list[bytes] = []
    while size and (part := reader.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _size_in_frame(header: bytes) -> int | None:
    try:
        size = int(zstandard.frame_content_size(header))
    except zstandard.ZstdError:
        return None
    return size if size >= 0 else None


def _sync_folders(folders: list[Path]) -> None:
    for folder in folders:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
