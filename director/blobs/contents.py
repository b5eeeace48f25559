"""Contents of files on their way to the blobs and back: small ones are packed, large ones cut.

A blob costs a write through to the disk, or a request: so contents up to 128 KiB share blobs of one
to four MiB, and of a longer one each four MiB are a blob, unless they are zeros only. Where a pack
ends depends on what lies in it, so that similar folders share most packs."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from director.blobs.store import CHUNK, Blobs, Reader, Rejoined, read_fully
from director.domain.trees import HOLE, Entry, Piece, Tree

SMALL = 128 * 1024
"""Bytes of a content that is packed with others."""

_PACK = 1024 * 1024
_CUT = 16
"""Of so many contents one ends its pack, if that has at least `_PACK` bytes."""
_THREADS = 2
"""Measured on 2 cores: 2 take half the time of 1, with and without fsync; more gain nothing."""
_AHEAD = 4
_ZEROS = memoryview(bytes(CHUNK))

Pieces = tuple[Piece, ...]

_Chunk = tuple[Future[str] | None, int]
"""On its way to a blob, and its size; None: zeros."""


class Contents:
    """Puts contents into blobs, each once, in threads of its own; used in a `with` block, by one
    thread. Where they lie is known when all are in."""

    def __init__(self, blobs: Blobs, known: Callable[[], Mapping[str, Pieces]] = dict) -> None:
        """`known` tells where contents lie already; it is asked only if there is anything new."""
        self._batch = blobs.batch()
        self._ask_known = known
        self._known: Mapping[str, Pieces] | None = None
        self._pool = ThreadPoolExecutor(_THREADS)
        self._room = threading.Semaphore(_AHEAD)
        self._sizes: dict[str, int] = {}
        self._packed: dict[str, tuple[_Pack, int, int]] = {}
        self._cut: dict[str, list[_Chunk]] = {}
        self._pack = _Pack()
        self._failure: BaseException | None = None

    def __enter__(self) -> "Contents":
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._batch.drop()

    def put(self, reader: Reader) -> tuple[str, int]:
        """Take a content of any length, in constant memory; gives its hash and size."""
        head = read_fully(reader, SMALL + 1)
        if len(head) <= SMALL:
            return self.put_small(head), len(head)
        return self.put_large(Rejoined(head, reader))

    def put_small(self, content: bytes) -> str:
        """Take a content of at most `SMALL` bytes; gives its hash."""
        digest = hashlib.sha256(content)
        hash = digest.hexdigest()
        if content and not self._has(hash):
            pack = self._pack
            offset = pack.add(content)
            self._packed[hash] = (pack, offset, len(content))
            ends = pack.size >= _PACK and digest.digest()[0] < 256 // _CUT
            if ends or pack.size >= CHUNK - SMALL:
                self._seal()
        return hash

    def put_large(self, reader: Reader) -> tuple[str, int]:
        """Take a content by chunks; gives its hash and size."""
        digest, size = hashlib.sha256(), 0
        chunks: list[_Chunk] = []
        while chunk := read_fully(reader, CHUNK):
            self._raise_failure()
            digest.update(chunk)
            size += len(chunk)
            is_hole = chunk == _ZEROS[: len(chunk)]
            chunks.append((None if is_hole else self._submit(chunk), len(chunk)))
        hash = digest.hexdigest()
        if not self._has(hash):
            self._cut[hash] = chunks
        return hash, size

    def tree(self, entries: list[Entry], sizes: Mapping[str, int] | None = None) -> Tree:
        """Wait until all contents are safe, and make a tree that tells where they lie; entries
        with contents that were not put here keep what they say, of blobs of these `sizes`."""
        self._seal()
        found = {hash: _cut(chunks) for hash, chunks in self._cut.items()}
        for hash, (pack, offset, size) in self._packed.items():
            found[hash] = (Piece(pack.blob(), offset, size),)
        self._batch.finish()
        known = self._known or {}

        def placed(entry: Entry) -> Entry:
            if entry.pieces or not entry.size:
                return entry
            pieces = found.get(entry.hash or "") or known.get(entry.hash or "", ())
            whole = len(pieces) == 1 and pieces[0] == (entry.hash, 0, entry.size)
            return entry if whole else entry._replace(pieces=pieces)

        return Tree.of(map(placed, entries), {**(sizes or {}), **self._sizes})

    def _has(self, hash: str) -> bool:
        if self._known is None:
            self._known = self._ask_known()
        return hash in self._packed or hash in self._cut or hash in self._known

    def _seal(self) -> None:
        pack, self._pack = self._pack, _Pack()
        if pack.size:
            pack.future = self._submit(pack.content())

    def _submit(self, content: bytes) -> Future[str]:
        """Begin to put a blob, once there is room for it in memory."""
        self._room.acquire()
        self._raise_failure()
        future = self._pool.submit(self._put, content)
        future.add_done_callback(self._done)
        return future

    def _done(self, future: Future[str]) -> None:
        if not future.cancelled() and self._failure is None:
            self._failure = future.exception()
        self._room.release()

    def _raise_failure(self) -> None:
        """What fails for one blob, such as a full disk, ends the whole."""
        if self._failure is not None:
            raise self._failure

    def _put(self, content: bytes) -> str:
        hash = self._batch.put(content)
        self._sizes[hash] = len(content)
        return hash


def _cut(chunks: list[_Chunk]) -> Pieces:
    pieces: list[Piece] = []
    for future, size in chunks:
        if future is not None:
            pieces.append(Piece(future.result(), 0, size))
        elif pieces and pieces[-1].blob == HOLE:
            pieces[-1] = Piece(HOLE, 0, pieces[-1].size + size)
        else:
            pieces.append(Piece(HOLE, 0, size))
    return tuple(pieces)


class _Pack:
    """Small contents, one after the other, that become one blob."""

    def __init__(self) -> None:
        self.future: Future[str] | None = None
        self.size = 0
        self._parts: list[bytes] = []

    def add(self, content: bytes) -> int:
        """Gives where it begins."""
        offset = self.size
        self._parts.append(content)
        self.size += len(content)
        return offset

    def content(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)

    def blob(self) -> str:
        if self.future is None:
            raise RuntimeError("a pack is asked for its blob before it is sealed")
        return self.future.result()


class Reading:
    """Reads contents of a tree, one after the other; files that share a blob should follow each
    other, as they do in a tree, since only the last blob is kept."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._hash = ""
        self._content = memoryview(b"")

    def chunks(self, entry: Entry) -> Iterator[bytes]:
        """A file's content in chunks. Raises NotFoundError or BlobCorruptError."""
        for blob, offset, size in entry.content:
            if blob == HOLE:
                yield from _zeros(size)
            else:
                yield bytes(self._blob(blob)[offset : offset + size])

    def _blob(self, hash: str) -> memoryview:
        if hash != self._hash:
            self._hash, self._content = hash, memoryview(self._blobs.get(hash))
        return self._content


def _zeros(size: int) -> Iterator[bytes]:
    while size:
        count = min(size, CHUNK)
        yield bytes(_ZEROS[:count])
        size -= count
