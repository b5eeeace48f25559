import io
import os
import shutil
import socket
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from director.blobs.reading import ReadLimits
from director.blobs.tar_streams import BLOCK, take
from director.domain.errors import BrokenOffError, NotFoundError, PayloadTooLargeError
from director.domain.trees import MAX_DEPTH, PathError

LONG = b"long" * 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    return path


def taken(root: Path, path: bytes = b"", limits: ReadLimits | None = None) -> bytes:
    """All that is given of a path."""
    found = take(root, path, limits)
    try:
        return b"".join(found.blocks())
    finally:
        found.close()


def meddled(root: Path, path: bytes, meddle: Callable[[], object]) -> Iterator[bytes]:
    """The blocks of a path, under which something happens behind the first one."""
    found = take(root, path)
    try:
        for number, block in enumerate(found.blocks()):
            yield block
            if not number:
                meddle()
    finally:
        found.close()


def read(path: bytes) -> bytes:
    return Path(os.fsdecode(path)).read_bytes()


def members(content: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {member.name: member for member in tar}


def content_of(tar: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        found = opened.extractfile(name)
        assert found is not None
        return found.read()


def test_a_folder_comes_as_it_is(source: Path, tmp_path: Path) -> None:
    deep = os.fsencode(source) + b"/sub/" + b"/".join([LONG] * 3)
    os.makedirs(deep)
    for name, content in (
        (b"/\xff\n name", b"odd"),
        (b"/empty", b""),
        (b"/big", os.urandom(3 * BLOCK)),
    ):
        with open(deep + name, "wb") as file:
            file.write(content)
    (source / "sub").chmod(0o700)
    (source / "run").write_bytes(b"x" * 512)
    (source / "run").chmod(0o6755)
    (source / "link").symlink_to("/etc/passwd")
    (source / "none").mkdir()
    with tarfile.open(fileobj=io.BytesIO(taken(source))) as tar:
        tar.extractall(tmp_path / "target", filter="fully_trusted")
    for folder, folders, files in os.walk(os.fsencode(source)):
        there = folder.replace(os.fsencode(source), os.fsencode(tmp_path / "target"), 1)
        assert sorted(os.listdir(there)) == sorted([*folders, *files])
        for name in files:
            mine, other = folder + b"/" + name, there + b"/" + name
            if os.path.islink(mine):
                assert os.readlink(other) == os.readlink(mine)
            else:
                assert read(other) == read(mine)
                assert stat.S_IMODE(os.stat(other).st_mode) == os.stat(mine).st_mode & 0o777
                assert int(os.stat(other).st_mtime) == int(os.stat(mine).st_mtime)
    assert stat.S_IMODE(os.stat(tmp_path / "target/sub").st_mode) == 0o700


def test_what_lies_below_is_taken_alone_and_through_no_link(source: Path, tmp_path: Path) -> None:
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/a").write_text("a")
    (source / "beside").write_text("b")
    assert list(members(taken(source, b"deep/er"))) == ["a"]
    assert taken(source, b"deep/er/a") == b"a"
    (source / "link").symlink_to(source / "deep")
    (tmp_path / "outside/er").mkdir(parents=True)
    (source / "out").symlink_to(tmp_path / "outside")
    os.mkfifo(source / "fifo")
    for path in (b"link/er", b"link", b"out/er", b"nothing", b"beside/x", b"fifo"):
        with pytest.raises(NotFoundError):
            take(source, path)
    for path in (b"..", b"deep/../../outside", b"/etc", b"nul\0"):
        with pytest.raises(PathError):
            take(source, path)


def test_what_is_neither_file_nor_folder_nor_link_is_left_out(source: Path) -> None:
    os.mkfifo(source / "fifo")
    (source / "file").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        assert list(members(taken(source))) == ["file"]


@pytest.mark.parametrize("size", [0, 10, 2 * BLOCK, 20 * BLOCK])
def test_a_tar_is_whole_though_its_files_change_while_they_are_read(
    source: Path, size: int
) -> None:
    for name in "abc":
        (source / name).write_bytes(name.encode() * 5 * BLOCK)

    def change() -> None:
        for name in "abc":
            os.truncate(source / name, size)

    content = b"".join(meddled(source, b"", change))
    found = members(content)
    assert set(found) == set("abc")
    for name in "abc":
        assert not content_of(content, name).strip(name.encode() + b"\0")


def test_what_takes_the_place_of_a_file_meanwhile_is_not_read(source: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("the host's")
    names = [f"{number}" for number in range(20)]
    for name in names:
        (source / name).write_bytes(b"x" * BLOCK)

    def replace() -> None:
        for number, name in enumerate(names):
            (source / name).unlink()
            if number % 2:
                os.mkfifo(source / name)
            else:
                (source / name).symlink_to(tmp_path / "secret")

    content = b"".join(meddled(source, b"", replace))
    assert b"the host's" not in content
    files = [name for name, member in members(content).items() if member.isreg()]
    assert 0 < len(files) < 20


def test_a_file_that_becomes_shorter_is_cut_off(source: Path) -> None:
    (source / "log").write_bytes(b"x" * 3 * BLOCK)
    with pytest.raises(BrokenOffError, match="shorter"):
        list(meddled(source, b"log", lambda: os.truncate(source / "log", BLOCK)))


def test_a_folder_that_is_removed_meanwhile_is_cut_off(source: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub/file").write_bytes(b"x" * 3 * BLOCK)
    with pytest.raises(BrokenOffError, match="removed"):
        list(meddled(source, b"sub", lambda: shutil.rmtree(source / "sub")))


@pytest.mark.parametrize(
    ("limits", "message"),
    [(ReadLimits(max_bytes=15), "15 bytes"), (ReadLimits(max_entries=2), "2 entries")],
)
def test_what_is_over_the_limits_is_refused_before_anything_is_given(
    source: Path, limits: ReadLimits, message: str
) -> None:
    for name in "abc":
        (source / name).write_bytes(b"0123456789")
    with pytest.raises(PayloadTooLargeError, match=message):
        take(source, b"", limits)
    (source / "a").write_bytes(b"x" * 16)
    if limits.max_bytes == 15:
        with pytest.raises(PayloadTooLargeError, match=message):
            take(source, b"a", limits)


def test_a_folder_that_grows_over_the_limits_meanwhile_is_cut_off(source: Path) -> None:
    found = take(source, b"", ReadLimits(max_entries=1))
    for name in "abc":
        (source / name).write_bytes(b"0123456789")
    with pytest.raises(BrokenOffError, match="1 entries"):
        list(found.blocks())
    found.close()


def test_however_large_it_is_it_comes_in_small_blocks(source: Path) -> None:
    with (source / "sparse").open("wb") as file:
        file.truncate(200 * 1024**2)
    found = take(source, b"")
    sizes = [len(block) for block in found.blocks()]
    found.close()
    assert sum(sizes) > 200 * 1024**2
    assert max(sizes) <= 2 * BLOCK


def test_folders_nested_without_end_come_to_an_end(source: Path) -> None:
    fd = os.open(source, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 50):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    assert len(members(taken(source))) == MAX_DEPTH
