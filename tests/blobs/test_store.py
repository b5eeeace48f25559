import hashlib
import io
import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard

from director.blobs.store import BlobCorruptError, LocalBlobs, get_tree, put_tree
from director.domain.errors import NotFoundError
from director.domain.trees import Entry, Tree

NOISE = random.Random(7).randbytes(3_000_000)


def stored(blobs: LocalBlobs) -> list[Path]:
    """Every file in the store, what is left of unfinished writes included."""
    return sorted(path for path in blobs._root.rglob("*") if path.is_file())


@pytest.mark.parametrize("content", [b"", b"text" * 1000, NOISE], ids=["empty", "text", "noise"])
def test_what_is_put_comes_back_under_its_sha256(blobs: LocalBlobs, content: bytes) -> None:
    hash = blobs.put(content)
    assert hash == hashlib.sha256(content).hexdigest()
    assert blobs.get(hash) == content
    assert blobs.size(hash) == len(content)
    assert blobs.put_stream(io.BytesIO(content)) == hash
    assert len(stored(blobs)) == 1


@pytest.mark.parametrize("content", [b"", b"x" * 1024**2, NOISE], ids=["empty", "chunk", "noise"])
def test_a_stream_comes_back_whole(blobs: LocalBlobs, content: bytes) -> None:
    hash = blobs.put_stream(io.BytesIO(content))
    with blobs.open(hash) as reader:
        assert b"".join(iter(lambda: reader.read(1000), b"")) == content
    assert blobs.size(hash) == len(content)
    assert blobs.put(content) == hash
    assert len(stored(blobs)) == 1


def test_blobs_lie_compressed_two_levels_deep_and_any_zstd_reads_them(blobs: LocalBlobs) -> None:
    hash = blobs.put(b"again and " * 10_000)
    (path,) = stored(blobs)
    assert path.relative_to(blobs._root) == Path(hash[:2], hash[2:4], hash)
    assert path.stat().st_size < 1000
    assert zstandard.ZstdDecompressor().decompress(path.read_bytes()) == b"again and " * 10_000


def test_what_is_written_with_fsync_is_the_same(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path, fsync=True)
    assert blobs.get(blobs.put(b"safe")) == b"safe"
    assert blobs.get(blobs.put_stream(io.BytesIO(NOISE))) == NOISE


@pytest.mark.parametrize("at", [0, 6, 40, 1_500_000, -1])
def test_a_flipped_byte_is_told_with_the_hash(blobs: LocalBlobs, at: int) -> None:
    hash = blobs.put(NOISE)
    (path,) = stored(blobs)
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(BlobCorruptError, match=hash):
        blobs.get(hash)


@pytest.mark.parametrize("keep", [0, 3, 20, 1_000_000, -1])
def test_a_blob_that_was_cut_off_is_told(blobs: LocalBlobs, keep: int) -> None:
    hash = blobs.put(NOISE)
    (path,) = stored(blobs)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BlobCorruptError, match=hash):
        blobs.get(hash)


def test_a_reader_never_has_the_whole_of_a_wrong_content(blobs: LocalBlobs) -> None:
    hash = blobs.put(b"right" * 100_000)
    (path,) = stored(blobs)
    path.write_bytes(zstandard.compress(b"wrong" * 100_000))
    got: list[bytes] = []

    def read_all() -> None:
        with blobs.open(hash) as reader:
            while block := reader.read(1000):
                got.append(block)

    with pytest.raises(BlobCorruptError):
        read_all()
    assert 0 < sum(map(len, got)) < 500_000


@pytest.mark.parametrize("hash", ["0" * 64, "../../../../etc/passwd", "", "A" * 64])
def test_what_is_not_there_is_not_found(blobs: LocalBlobs, hash: str) -> None:
    assert not blobs.exists(hash)
    for ask in (blobs.get, blobs.open, blobs.size):
        with pytest.raises(NotFoundError):
            ask(hash)


class Failing(io.BytesIO):
    """A stream that breaks after its first two million bytes."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > 2_000_000:
            raise ConnectionResetError("gone")
        return super().read(size)


def test_a_stream_that_breaks_leaves_nothing_behind(blobs: LocalBlobs) -> None:
    with pytest.raises(ConnectionResetError):
        blobs.put_stream(Failing(NOISE))
    assert stored(blobs) == []


def test_writers_of_the_same_contents_do_not_disturb_each_other(blobs: LocalBlobs) -> None:
    contents = [b"%d" % (number % 10) * 5000 for number in range(200)]
    with ThreadPoolExecutor(8) as pool:
        hashes = list(pool.map(blobs.put, contents))
    assert [blobs.get(hash) for hash in hashes] == contents
    assert len(stored(blobs)) == 10


class Zeros:
    """A stream of so many zeros, without holding them."""

    def __init__(self, size: int) -> None:
        self.left = size

    def read(self, size: int, /) -> bytes:
        count = min(size, self.left)
        self.left -= count
        return bytes(count)


def test_a_large_stream_takes_little_memory(blobs: LocalBlobs) -> None:
    size = 64 * 1024**2
    tracemalloc.start()
    hash = blobs.put_stream(Zeros(size))
    assert blobs.size(hash) == size
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4


def test_a_tree_is_kept_under_its_own_hash(blobs: LocalBlobs) -> None:
    tree = Tree.of([Entry.file(b"\xff", 0o644, 1, 0, blobs.put(b"")), Entry.symlink(b"l", b"x", 2)])
    assert put_tree(blobs, tree) == tree.hash
    assert get_tree(blobs, tree.hash) == tree
