import random
from pathlib import Path

import pytest

from director.blobs.borrowed import BorrowedBlobs
from director.blobs.captures import capture
from director.blobs.store import CHUNK, LocalBlobs
from director.blobs.trees import DamagedError, materialize


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Files that are packed, and some that are cut; the end of one is a whole pack of others."""
    path = tmp_path / "source"
    (path / "sub").mkdir(parents=True)
    noise = random.Random(5)
    for number in range(40):
        (path / f"sub/{number}").write_bytes(noise.randbytes(60_000))
    (path / "copy").write_bytes((path / "sub/7").read_bytes())
    (path / "empty").touch()
    with (path / "large").open("wb") as file:
        file.write(noise.randbytes(CHUNK))
        file.seek(CHUNK, 1)
        file.write(noise.randbytes(50_000))
    return path


def test_a_folder_is_written_elsewhere_though_no_content_of_it_was_kept(
    source: Path, tmp_path: Path, blobs: LocalBlobs
) -> None:
    tree = capture(source, blobs).tree
    last = next(entry for entry in reversed(tree.entries) if entry.pieces)
    pack = blobs.get(last.pieces[0].blob)
    (source / "z").write_bytes(bytes(CHUNK) + pack)
    assert len(pack) > last.size, "it is a pack of several"
    others = LocalBlobs(tmp_path / "others", fsync=False)

    borrowed = BorrowedBlobs(source, others)
    tree = borrowed.captured(lambda: None).tree
    (target := tmp_path / "target").mkdir()
    materialize(tree, target, borrowed)

    assert tree == capture(source, blobs).tree
    assert capture(target, blobs).tree == tree
    assert not any(path.is_file() for path in (tmp_path / "others").rglob("*"))


def test_a_file_that_changed_is_told_and_other_contents_are_the_others(
    source: Path, tmp_path: Path, blobs: LocalBlobs
) -> None:
    borrowed = BorrowedBlobs(source, blobs)
    assert borrowed.get(borrowed.put(b"other")) == blobs.get(blobs.put(b"other"))
    tree = borrowed.captured(lambda: None).tree
    (source / "sub/9").write_bytes(b"shorter")
    (target := tmp_path / "target").mkdir()
    with pytest.raises(DamagedError, match="have changed"):
        materialize(tree, target, borrowed)
    assert list(target.iterdir()) == []
