"""A second capture of a folder reads and keeps only what has changed."""

import os
import random
from pathlib import Path

import pytest

from director.blobs import captures
from director.blobs.captures import Captured, capture
from director.blobs.contents import SMALL
from director.blobs.store import CHUNK, LocalBlobs, get_tree, put_tree
from director.blobs.trees import materialize
from director.domain.trees import Entry, Tree


class Counting(LocalBlobs):
    """Counts the bytes that are new to it."""

    new = 0

    def stage(self, hash: str, frame: bytes) -> Path:
        self.new += len(frame)
        return super().stage(hash, frame)


@pytest.fixture
def blobs(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "blobs", fsync=False)


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that are as good as old."""
    monkeypatch.setattr(captures, "_SETTLED_NS", -(10**12))
    folder = tmp_path / "source"
    folder.mkdir()
    rng = random.Random(5)
    for number in range(200):
        (folder / f"{number:03}").write_bytes(rng.randbytes(rng.randint(1, 30_000)))
    (folder / "large").write_bytes(rng.randbytes(3 * CHUNK + 5))
    return folder


def unreadable(folder: Path, blobs: LocalBlobs, previous: Captured) -> list[str]:
    """The files that a capture opens: those that are not as they were."""
    opened: list[str] = []
    real = os.open

    def noting(name: object, *args: object, **more: object) -> int:
        if isinstance(name, bytes):
            opened.append(os.fsdecode(name))
        return real(name, *args, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captures.os, "open", noting)
        capture(folder, blobs, previous=previous)
    return opened


def named(tree: Tree) -> dict[str, Entry]:
    return {entry.path: entry for entry in tree.entries}


def test_what_has_not_changed_is_not_opened_and_nothing_is_written(
    source: Path, blobs: Counting
) -> None:
    first = capture(source, blobs)
    hash = put_tree(blobs, first.tree)
    before = blobs.new
    assert unreadable(source, blobs, first) == []
    again = capture(source, blobs, previous=first)
    assert again.tree == first.tree
    assert put_tree(blobs, again.tree) == hash
    assert blobs.new == before


def test_a_change_of_the_same_size_with_the_time_put_back_is_seen(
    source: Path, blobs: Counting, tmp_path: Path
) -> None:
    first = capture(source, blobs)
    path = source / "007"
    about, content = path.stat(), path.read_bytes()
    with path.open("r+b") as file:
        file.write(bytes([content[0] ^ 1]))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    second = capture(source, blobs, previous=first)
    was, now = named(first.tree)["007"], named(second.tree)["007"]
    assert (now.size, now.mtime_ns) == (was.size, was.mtime_ns)
    assert now.hash != was.hash
    assert second.tree.hash == capture(source, blobs).tree.hash
    (tmp_path / "target").mkdir()
    materialize(get_tree(blobs, put_tree(blobs, second.tree)), tmp_path / "target", blobs)
    assert (tmp_path / "target/007").read_bytes() == path.read_bytes()


def test_a_file_that_changed_just_before_a_capture_is_read_again_by_the_next(
    source: Path, blobs: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captures, "_SETTLED_NS", 10**12)
    first = capture(source, blobs)
    assert first.stamps == {}
    assert len(unreadable(source, blobs, first)) == 201


def test_only_what_is_new_is_written(source: Path, blobs: Counting) -> None:
    first = capture(source, blobs)
    (source / "new").write_bytes(b"new" * 100)
    (source / "008").rename(source / "moved")
    with (source / "large").open("r+b") as file:
        file.seek(CHUNK + 10)
        file.write(b"one chunk of four")
    before = blobs.new
    second = capture(source, blobs, previous=first)
    assert CHUNK <= blobs.new - before < CHUNK + 5000
    was, now = named(first.tree), named(second.tree)
    assert now["moved"].pieces == was["008"].pieces
    assert [a == b for a, b in zip(now["large"].pieces, was["large"].pieces, strict=True)] == [
        True, False, True, True,
    ]  # fmt: skip


def test_similar_folders_share_packs_without_knowing_of_each_other(
    source: Path, blobs: Counting, tmp_path: Path
) -> None:
    (source / "large").unlink()
    capture(source, blobs)
    before = blobs.new
    (source / "000-first").write_bytes(b"moves all that follows")
    capture(source, blobs)
    assert blobs.new - before < before * 0.8


def test_a_tree_that_uses_little_of_its_packs_is_taken_anew(source: Path, blobs: Counting) -> None:
    first = capture(source, blobs)
    for number in range(190):
        (source / f"{number:03}").unlink()
    (source / "large").unlink()
    second = capture(source, blobs, previous=first)
    third = capture(source, blobs, previous=second)
    assert sum(second.tree.sizes.values()) > second.tree.total_bytes * 2
    assert sum(third.tree.sizes.values()) == third.tree.total_bytes
    assert third.tree.hash == second.tree.hash


def test_equal_contents_are_kept_once(source: Path, blobs: Counting) -> None:
    for name in ("a", "b"):
        (source / f"same-{name}").write_bytes(b"same" * 1000)
        (source / f"zeros-{name}").write_bytes(bytes(SMALL + 1))
    found = named(capture(source, blobs).tree)
    assert found["same-a"].pieces == found["same-b"].pieces
    assert [piece.blob for piece in found["zeros-a"].pieces] == [""]


def test_many_small_files_become_few_blobs(source: Path, blobs: Counting) -> None:
    tree = capture(source, blobs).tree
    small = {piece.blob for entry in tree.entries if entry.size <= SMALL for piece in entry.pieces}
    assert 1 <= len(small) <= 4
    assert len(tree.sizes) == len(small) + 4
