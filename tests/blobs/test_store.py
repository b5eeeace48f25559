"""Every store of blobs keeps what it is given, tells what is damaged, and loses nothing."""

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import zstandard

from director.blobs.captures import capture
from director.blobs.places import check_url, open_blobs
from director.blobs.s3 import S3Blobs
from director.blobs.store import (
    BlobCorruptError,
    Frames,
    LocalBlobs,
    get_tree,
    put_tree,
)
from director.blobs.touched import TouchedBlobs
from director.blobs.trees import DamagedError, materialize
from director.domain.errors import NotFoundError, UnavailableError
from director.domain.manifests import manifest
from director.domain.trees import Entry, Tree

NOISE = random.Random(7).randbytes(3_000_000)
NOW = timedelta(seconds=-60)
"""Older than in a minute: everything."""


def damaged(blobs: Frames, hash: str, at: int) -> None:
    frame = bytearray(blobs._read(hash))
    frame[at] ^= 0x10
    blobs._write(hash, bytes(frame))


@pytest.mark.parametrize("content", [b"", b"text" * 1000, NOISE], ids=["empty", "text", "noise"])
def test_what_is_put_comes_back_under_its_sha256(any_blobs: Frames, content: bytes) -> None:
    hash = any_blobs.put(content)
    assert hash == hashlib.sha256(content).hexdigest()
    assert any_blobs.get(hash) == content
    assert any_blobs.put(content) == hash
    assert any_blobs.exists(hash)
    assert list(any_blobs.names(NOW)) == [hash]


def test_blobs_lie_compressed_and_any_zstd_reads_them(blobs: LocalBlobs) -> None:
    hash = blobs.put(b"again and " * 10_000)
    (path,) = (path for path in blobs._root.rglob("*") if path.is_file())
    assert path.relative_to(blobs._root) == Path(hash[:2], hash)
    assert path.stat().st_size < 1000
    assert zstandard.ZstdDecompressor().decompress(path.read_bytes()) == b"again and " * 10_000


def test_what_is_written_with_fsync_is_the_same(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path, fsync=True)
    assert blobs.get(blobs.put(b"safe")) == b"safe"


@pytest.mark.parametrize("at", [0, 6, 40, 1_500_000, -1])
def test_a_flipped_byte_is_told_with_the_hash(any_blobs: Frames, at: int) -> None:
    hash = any_blobs.put(NOISE)
    damaged(any_blobs, hash, at)
    with pytest.raises(BlobCorruptError, match=hash):
        any_blobs.get(hash)


@pytest.mark.parametrize("keep", [0, 3, 20, 1_000_000, -1])
def test_a_blob_that_was_cut_off_is_told(blobs: LocalBlobs, keep: int) -> None:
    hash = blobs.put(NOISE)
    blobs._write(hash, blobs._read(hash)[:keep])
    with pytest.raises(BlobCorruptError, match=hash):
        blobs.get(hash)


def test_another_content_in_the_place_of_a_blob_is_told(any_blobs: Frames) -> None:
    hash = any_blobs.put(b"right" * 100_000)
    for wrong in (zstandard.compress(b"wrong"), any_blobs._read(hash) + zstandard.compress(b"x")):
        any_blobs._write(hash, wrong)
        with pytest.raises(BlobCorruptError, match=hash):
            any_blobs.get(hash)


@pytest.mark.parametrize("hash", ["0" * 64, "../../../../etc/passwd", "", "A" * 64])
def test_what_is_not_there_is_not_found(any_blobs: Frames, hash: str) -> None:
    assert not any_blobs.exists(hash)
    any_blobs.delete(hash)
    with pytest.raises(NotFoundError):
        any_blobs.get(hash)


def test_what_is_deleted_is_gone_and_can_be_put_again(any_blobs: Frames) -> None:
    hash, other = any_blobs.put(b"content"), any_blobs.put(b"other")
    any_blobs.delete(hash)
    assert not any_blobs.exists(hash)
    assert list(any_blobs.names(NOW)) == [other]
    any_blobs.put(b"content")
    assert any_blobs.get(hash) == b"content"
    assert list(any_blobs.names(timedelta(hours=1))) == []


def test_what_a_killed_writer_left_is_removed_when_it_is_old(blobs: LocalBlobs) -> None:
    (blobs._tmp / "tmpleft").write_bytes(b"half")
    assert list(blobs.names(timedelta(hours=1))) == []
    assert (blobs._tmp / "tmpleft").exists()
    assert list(blobs.names(NOW)) == []
    assert not (blobs._tmp / "tmpleft").exists()


def test_writers_of_the_same_contents_do_not_disturb_each_other(any_blobs: Frames) -> None:
    contents = [b"%d" % (number % 10) * 5000 for number in range(60)]
    with ThreadPoolExecutor(8) as pool:
        hashes = list(pool.map(any_blobs.put, contents))
    assert [any_blobs.get(hash) for hash in hashes] == contents
    assert len(list(any_blobs.names(NOW))) == 10


def test_a_blob_is_noted_before_it_is_looked_for(blobs: LocalBlobs) -> None:
    """Whoever removes it in between does no harm: it is written again."""
    hash = blobs.put(b"content")
    touched = TouchedBlobs(blobs, lambda noted: [blobs.delete(hash) for hash in noted] and None)
    assert touched.put(b"content") == hash
    assert touched.get(hash) == b"content"
    batch = touched.batch()
    assert batch.put(b"content") == hash
    batch.finish()
    assert touched.get(hash) == b"content"


def test_many_blobs_become_safe_together(
    any_blobs: Frames,
) -> None:
    batch = any_blobs.batch()
    hashes = [batch.put(content) for content in (b"one", b"two", b"one")]
    batch.finish()
    assert [any_blobs.get(hash) for hash in hashes] == [b"one", b"two", b"one"]


def test_nothing_is_left_of_blobs_that_are_dropped(blobs: LocalBlobs) -> None:
    batch = blobs.batch()
    assert not blobs.exists(batch.put(b"content"))
    batch.drop()
    assert [path for path in blobs._root.rglob("*") if path.is_file()] == []


def test_a_tree_is_kept_as_its_manifest(any_blobs: Frames) -> None:
    tree = Tree.of([Entry.file(b"\xff", 0o644, 1, 0, "0" * 64), Entry.symlink(b"l", b"x", 2)])
    hash = put_tree(any_blobs, tree)
    assert any_blobs.get(hash) == manifest(tree)
    assert get_tree(any_blobs, hash) == tree


def test_what_is_no_tree_is_told_with_its_hash(blobs: LocalBlobs) -> None:
    hash = blobs.put(b"no tree")
    with pytest.raises(BlobCorruptError, match=rf"{hash}.*no manifest"):
        get_tree(blobs, hash)


def test_a_folder_goes_to_any_store_and_comes_back_or_its_damage_is_told(
    any_blobs: Frames, tmp_path: Path
) -> None:
    source, target, other = (tmp_path / name for name in ("source", "target", "other"))
    for folder in (source, target, other):
        folder.mkdir()
    (source / "large").write_bytes(NOISE * 2)
    (source / "small").write_bytes(b"small")
    tree = get_tree(any_blobs, put_tree(any_blobs, capture(source, any_blobs).tree))
    materialize(tree, target, any_blobs)
    assert (target / "large").read_bytes() == NOISE * 2
    assert capture(target, any_blobs).tree.hash == tree.hash
    damaged(any_blobs, tree.entries[0].pieces[1].blob, 1000)
    with pytest.raises(DamagedError, match="'large' cannot be restored"):
        materialize(tree, other, any_blobs)
    assert list(other.iterdir()) == []


def test_a_bucket_that_is_away_or_refuses_is_told_without_secrets(
    bucket: S3Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnavailableError, match="s3://nowhere/x has no bucket") as refused:
        S3Blobs("nowhere", "x").put(b"content")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = S3Blobs("bucket", "x", patience=timedelta(seconds=0.2))
    with pytest.raises(UnavailableError, match="s3://bucket/x does not answer") as gone:
        away.get("0" * 64)
    for raised in (refused, gone):
        assert "canary" not in f"{raised.value} {raised.value.details}"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("/var/blobs", "begins neither"),
        ("http://host/bucket", "begins neither"),
        ("file://blobs", "no absolute path"),
        ("s3:///prefix", "names no bucket"),
        ("s3://key:secret@bucket/x", "no credentials"),
        ("s3://bucket?secret=canary77", "no options"),
    ],
)
def test_a_url_at_which_nothing_can_be_kept_is_refused(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        check_url(url)
    assert "secret" not in str(raised.value)


def test_a_url_says_where_blobs_are(bucket: S3Blobs, tmp_path: Path) -> None:
    hash = bucket.put(b"content")
    assert open_blobs(f"s3://bucket/{tmp_path.name}/").get(hash) == b"content"
    assert open_blobs((tmp_path / "a b").as_uri()).put(b"content") == hash
    assert (tmp_path / "a b" / hash[:2] / hash).exists()
