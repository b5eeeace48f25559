import asyncio
import errno
import hashlib
import itertools
import os
import random
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from director.blobs.captures import capture
from director.blobs.contents import Reading
from director.blobs.reading import ReadLimits
from director.blobs.store import LocalBlobs
from director.blobs.trees import DamagedError, MaterializeError, materialize
from director.domain.errors import PayloadTooLargeError
from director.domain.trees import MAX_DEPTH, Entry, Tree

SECOND = 1_700_000_000 * 10**9
MIB = 1024**2
ENDLESS = 60 * 1024**3
"""Bytes of a sparse file that no test could read to its end in its time."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return folder(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return folder(tmp_path / "target")


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def content_in(blobs: LocalBlobs, entry: Entry) -> bytes:
    return b"".join(Reading(blobs).chunks(entry))


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def test_a_folder_comes_back_as_it_was(source: Path, target: Path, blobs: LocalBlobs) -> None:
    (source / "empty").mkdir(mode=0o700)
    (source / "deep/er").mkdir(parents=True)
    (source / "deep/er/run.sh").write_text("#!/bin/sh\n")
    (source / "deep/er/run.sh").chmod(0o750)
    (source / "deep.txt").write_bytes(b"")
    (source / "link").symlink_to("deep/er/run.sh")
    (source / "broken").symlink_to("/nowhere")
    os.utime(source / "deep/er/run.sh", ns=(SECOND, SECOND + 123_456_789))
    os.utime(source / "link", ns=(SECOND, SECOND + 5), follow_symlinks=False)
    os.utime(source / "empty", ns=(SECOND, SECOND + 7))
    captured = capture(source, blobs)
    materialize(captured.tree, target, blobs)
    assert captured.skipped == []
    assert captured.tree.file_count == 2
    assert capture(target, blobs).tree == captured.tree
    assert stat.S_IMODE((target / "deep/er/run.sh").stat().st_mode) == 0o750
    assert (target / "deep/er/run.sh").stat().st_mtime_ns == SECOND + 123_456_789
    assert (target / "link").readlink() == Path("deep/er/run.sh")
    assert (target / "link").lstat().st_mtime_ns == SECOND + 5
    assert (target / "empty").stat().st_mtime_ns == SECOND + 7


def test_names_that_are_not_utf8_come_back(source: Path, target: Path, blobs: LocalBlobs) -> None:
    raw = os.fsencode(source)
    Path(os.fsdecode(raw + b"/caf\xe9")).write_bytes(b"coffee")
    os.symlink(b"caf\xe9", raw + b"/\xfe")
    materialize(capture(source, blobs).tree, target, blobs)
    assert sorted(os.listdir(os.fsencode(target))) == [b"caf\xe9", b"\xfe"]
    assert content_of(target / os.fsdecode(b"\xfe")) == b"coffee"


def test_setuid_setgid_and_sticky_are_stripped(
    source: Path, target: Path, blobs: LocalBlobs
) -> None:
    (source / "su").write_bytes(b"x")
    (source / "su").chmod(0o6755)
    (source / "tmp").mkdir()
    (source / "tmp").chmod(0o1777)
    materialize(capture(source, blobs).tree, target, blobs)
    assert stat.S_IMODE((target / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "tmp").stat().st_mode) == 0o777


def test_special_files_are_skipped_and_told(source: Path, blobs: LocalBlobs) -> None:
    os.mkfifo(source / "fifo")
    (source / "file").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        captured = capture(source, blobs)
    assert [entry.path for entry in captured.tree.entries] == ["file"]
    assert [(skip.path, skip.reason) for skip in captured.skipped] == [
        ("fifo", "is a FIFO"),
        ("socket", "is a socket"),
    ]


def test_a_link_is_recorded_and_never_followed(source: Path, blobs: LocalBlobs) -> None:
    (source / "passwd").symlink_to("/etc/passwd")
    (source / "etc").symlink_to("/etc")
    captured = capture(source, blobs)
    assert {entry.path: entry.target for entry in captured.tree.entries} == {
        "etc": "/etc",
        "passwd": "/etc/passwd",
    }
    assert captured.tree.total_bytes == 0


def test_a_root_that_is_a_link_is_refused(source: Path, tmp_path: Path, blobs: LocalBlobs) -> None:
    (tmp_path / "link").symlink_to(source)
    with pytest.raises(OSError, match="link"):
        capture(tmp_path / "link", blobs)
    with pytest.raises(OSError, match="link"):
        materialize(Tree(), tmp_path / "link", blobs)


def test_a_large_sparse_file_comes_back_sparse(
    source: Path, target: Path, blobs: LocalBlobs
) -> None:
    size = 50_000_000
    with (source / "disk").open("wb") as file:
        file.seek(size // 2)
        file.write(b"middle")
        file.truncate(size)
    materialize(capture(source, blobs).tree, target, blobs)
    about = (target / "disk").stat()
    assert about.st_size == size
    assert about.st_blocks * 512 < 1_000_000
    with (target / "disk").open("rb") as file:
        file.seek(size // 2 - 1)
        assert file.read(8) == b"\0middle\0"


def at_call(number: int, do: Callable[[], object]) -> Callable[[], None]:
    """A check that does something once, at its so-manyeth call."""
    calls = itertools.count(1)

    def check() -> None:
        if next(calls) == number:
            do()

    return check


def test_a_file_that_grows_while_it_is_read_is_consistent(source: Path, blobs: LocalBlobs) -> None:
    (source / "log").write_bytes(b"first" * MIB)

    def grow() -> None:
        with (source / "log").open("ab") as file:
            file.write(b"and more" * MIB)

    (entry,) = capture(source, blobs, check=at_call(4, grow)).tree.entries
    assert content_in(blobs, entry) == b"first" * MIB
    assert entry.size == 5 * MIB


def test_what_vanishes_meanwhile_does_not_spoil_the_rest(source: Path, blobs: LocalBlobs) -> None:
    (source / "log").write_bytes(b"first")
    (source / "victim").write_bytes(b"x")
    (source / "sub").mkdir()
    captured = capture(source, blobs, check=at_call(4, (source / "victim").unlink))
    assert [entry.path for entry in captured.tree.entries] == ["log", "sub"]
    assert [skip.reason for skip in captured.skipped] == ["vanished while the folder was read"]


def test_folders_nested_without_end_are_told(source: Path, blobs: LocalBlobs) -> None:
    fd = os.open(source, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 50):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    captured = capture(source, blobs)
    assert len(captured.tree.entries) == MAX_DEPTH
    assert [skip.reason for skip in captured.skipped] == ["is nested deeper than 200 levels"]


@pytest.mark.parametrize(
    ("limits", "message"),
    [(ReadLimits(max_bytes=15), "15 bytes"), (ReadLimits(max_entries=2), "2 entries")],
)
def test_a_folder_over_the_limits_is_refused(
    source: Path, blobs: LocalBlobs, limits: ReadLimits, message: str
) -> None:
    for name in "abc":
        (source / name).write_bytes(b"0123456789")
    with pytest.raises(PayloadTooLargeError, match=message):
        capture(source, blobs, limits)


def test_files_replace_files_and_others_stay(source: Path, target: Path, blobs: LocalBlobs) -> None:
    (source / "a").write_bytes(b"new")
    (source / "d").mkdir()
    (source / "d/x").write_bytes(b"new")
    (target / "a").write_bytes(b"old and longer")
    (target / "d").write_bytes(b"a file where a folder belongs")
    (target / "other").write_bytes(b"stays")
    materialize(capture(source, blobs).tree, target, blobs)
    assert content_of(target / "a") == b"new"
    assert content_of(target / "d/x") == b"new"
    assert content_of(target / "other") == b"stays"


def test_a_hostile_link_is_replaced_and_nothing_is_written_through_it(
    source: Path, target: Path, tmp_path: Path, blobs: LocalBlobs
) -> None:
    outside = folder(tmp_path / "outside")
    (outside / "file").write_bytes(b"precious")
    (outside / "file").chmod(0o600)
    (source / "dir").mkdir()
    (source / "dir/file").write_bytes(b"tree")
    (source / "file").write_bytes(b"tree")
    (source / "file").chmod(0o777)
    (target / "dir").symlink_to(outside)
    (target / "file").symlink_to(outside / "file")
    materialize(capture(source, blobs).tree, target, blobs)
    assert content_of(outside / "file") == b"precious"
    assert stat.S_IMODE((outside / "file").stat().st_mode) == 0o600
    assert sorted(outside.iterdir()) == [outside / "file"]
    assert content_of(target / "dir/file") == b"tree"
    assert not (target / "file").is_symlink()


def test_a_folder_in_the_way_of_a_file_is_told_and_kept(
    source: Path, target: Path, blobs: LocalBlobs
) -> None:
    (source / "name").write_bytes(b"x")
    (target / "name").mkdir()
    (target / "name/inner").write_bytes(b"kept")
    with pytest.raises(MaterializeError, match="'name'"):
        materialize(capture(source, blobs).tree, target, blobs)
    assert os.listdir(target) == ["name"]
    assert content_of(target / "name/inner") == b"kept"


def test_folders_without_an_entry_are_made(target: Path, blobs: LocalBlobs) -> None:
    tree = Tree.of([Entry.file(b"a/b/c", 0o644, SECOND, 1, blobs.put(b"c"))])
    materialize(tree, target, blobs)
    assert content_of(target / "a/b/c") == b"c"
    assert stat.S_IMODE((target / "a").stat().st_mode) == 0o755


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def test_what_a_killed_writer_left_is_cleared(
    source: Path, target: Path, tmp_path: Path, blobs: LocalBlobs
) -> None:
    (source / "file").write_bytes(b"content")
    tree = capture(source, blobs).tree

    class Killed(LocalBlobs):
        def get(self, hash: str) -> bytes:
            os._exit(9)

    if (child := os.fork()) == 0:
        materialize(tree, target, Killed(tmp_path / "blobs"))
    os.waitpid(child, 0)
    assert len(os.listdir(target)) == 1
    materialize(tree, target, blobs)
    assert os.listdir(target) == ["file"]


def test_two_writers_into_one_folder_do_not_disturb_each_other(
    source: Path, target: Path, blobs: LocalBlobs
) -> None:
    (source / "file").write_bytes(b"content")
    tree = capture(source, blobs).tree
    other = Tree.of([entry.moved(b"other") for entry in tree.entries])
    meanwhile = at_call(2, lambda: materialize(other, target, blobs))
    materialize(tree, target, blobs, check=meanwhile)
    assert sorted(os.listdir(target)) == ["file", "other"]


@pytest.mark.parametrize("at", [0, 20, 0.4, 0.7, -1])
def test_a_flipped_byte_is_told_with_the_files_name_and_nothing_is_restored(
    source: Path, target: Path, blobs: LocalBlobs, at: float
) -> None:
    noise = random.Random(3)
    for number in range(12):
        (source / f"{number}").write_bytes(noise.randbytes(60_000))
    (target / "5").write_bytes(b"old")
    tree = capture(source, blobs).tree
    (pack,) = tree.sizes
    path = blobs._path(pack)
    flip(path, int(at * path.stat().st_size) if 0 < at < 1 else int(at))
    with pytest.raises(DamagedError, match=rf"cannot be restored.*{pack}") as raised:
        materialize(tree, target, blobs)
    if 0 < at < 1:
        order = [entry.path for entry in tree.entries]
        assert raised.value.details["path"] == order[int(at * 12)]
    assert os.listdir(target) == ["5"]
    assert content_of(target / "5") == b"old"


def test_a_chunk_of_a_large_file_that_is_gone_is_told_and_nothing_is_restored(
    source: Path, target: Path, blobs: LocalBlobs
) -> None:
    (source / "large").write_bytes(random.Random(1).randbytes(9 * MIB))
    (source / "small").write_bytes(b"x")
    tree = capture(source, blobs).tree
    blobs.delete(tree.entries[0].pieces[1].blob)
    with pytest.raises(DamagedError, match=r"'large' cannot be restored.*does not exist"):
        materialize(tree, target, blobs)
    assert os.listdir(target) == []


def test_everything_written_belongs_to_the_sandbox(
    source: Path, target: Path, blobs: LocalBlobs
) -> None:
    (source / "d").mkdir()
    (source / "d/f").write_bytes(b"x")
    (source / "l").symlink_to("d")
    tree = capture(source, blobs).tree
    own = [entry for entry in tree.entries if entry.kind != "directory"]
    uid, gid = (200_001, 200_002) if os.getuid() == 0 else (os.getuid(), os.getgid())
    for number, written in enumerate([tree, Tree.of(own)]):
        place = folder(target / str(number))
        materialize(written, place, blobs, uid, gid)
        owners = {(p.lstat().st_uid, p.lstat().st_gid) for p in place.rglob("*")}
        assert owners == {(uid, gid)}


def random_tree(rng: random.Random, root: Path, depth: int = 0) -> None:
    for number in range(rng.randint(0, 6)):
        name = rng.choice(["a", "B", "é", "-rf", "a b", "x\ny", os.fsdecode(b"\xff")]) + str(number)
        path = root / name
        kind = rng.choice(["file", "file", "link", "folder"])
        if kind == "folder" and depth < 4:
            path.mkdir(mode=rng.choice([0o755, 0o700, 0o711]))
            random_tree(rng, path, depth + 1)
        elif kind == "link":
            path.symlink_to(rng.choice(["..", "/etc/passwd", "a0", "é/../x", name]))
        else:
            path.write_bytes(rng.randbytes(rng.choice([0, 1, 511, 512, 70_000])))
            path.chmod(rng.randint(0o400, 0o777))


@pytest.mark.parametrize("seed", range(12))
def test_any_tree_comes_back_equal(
    source: Path, target: Path, blobs: LocalBlobs, seed: int
) -> None:
    rng = random.Random(seed)
    random_tree(rng, source)
    random_tree(rng, folder(source / "more"))
    tree = capture(source, blobs).tree
    materialize(tree, target, blobs)
    assert capture(target, blobs).tree.hash == tree.hash


def sparse(path: Path, size: int, *data: tuple[int, bytes]) -> None:
    with path.open("wb") as file:
        for at, content in data:
            file.seek(at)
            file.write(content)
        file.truncate(size)


class Alarm:
    """A check that raises once, at a given call, and never again."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at = at
        self.error = error
        self.calls = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.calls += 1
            due = self.calls == self.at
        if due:
            raise self.error


def assert_stopped_by(alarm: Alarm, source: Path, blobs: LocalBlobs) -> None:
    threads, descriptors = set(threading.enumerate()), os.listdir("/proc/self/fd")
    with pytest.raises(type(alarm.error)) as raised:
        capture(source, blobs, check=alarm)
    assert raised.value is alarm.error
    assert (raised.value.__cause__, raised.value.__context__) == (None, None)
    assert alarm.calls <= alarm.at + 2
    assert set(threading.enumerate()) == threads
    assert os.listdir("/proc/self/fd") == descriptors
    assert os.listdir(blobs._tmp) == []


@pytest.mark.parametrize("at", [1, 3, 40])
def test_a_check_ends_the_reading_of_large_sparse_files(
    source: Path, blobs: LocalBlobs, at: int
) -> None:
    for name in ("a", "b", "c"):
        sparse(source / name, ENDLESS // 3, (5 * MIB, b"data"))
    assert_stopped_by(Alarm(at, RuntimeError("stop")), source, blobs)


def test_a_check_ends_the_reading_of_a_large_file_without_holes(
    source: Path, blobs: LocalBlobs
) -> None:
    (source / "dense").write_bytes(b"dense" * 10 * MIB)
    assert_stopped_by(Alarm(10, RuntimeError("stop")), source, blobs)


@pytest.mark.parametrize("at", [1, 250, 500, 700, 999])
def test_a_check_ends_the_reading_of_a_folder_of_many_entries(
    source: Path, blobs: LocalBlobs, at: int
) -> None:
    for number in range(500):
        (source / f"{number}").write_bytes(b"%d" % number)
    assert_stopped_by(Alarm(at, RuntimeError("stop")), source, blobs)


def test_a_check_ends_the_reading_between_folders(source: Path, blobs: LocalBlobs) -> None:
    for number in range(100):
        (source / f"{number}").mkdir()
    assert_stopped_by(Alarm(150, RuntimeError("stop")), source, blobs)


@pytest.mark.parametrize("at", [1, 4, 6])
@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "like a file that vanished"),
        StopIteration(),
        GeneratorExit(),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_check_raises_comes_out_as_it_is(
    source: Path, blobs: LocalBlobs, error: BaseException, at: int
) -> None:
    (source / "sub").mkdir()
    sparse(source / "sub/large", ENDLESS)
    assert_stopped_by(Alarm(at, error), source, blobs)


def test_a_failing_disk_ends_the_reading_of_the_other_files(source: Path, tmp_path: Path) -> None:
    class Full(LocalBlobs):
        def stage(self, hash: str, frame: bytes) -> Path:
            raise OSError(errno.ENOSPC, "the disk is full")

    blobs = Full(tmp_path / "blobs", fsync=False)
    sparse(source / "large", ENDLESS, (0, b"x"))
    with pytest.raises(OSError, match="the disk is full"):
        capture(source, blobs)
    assert os.listdir(blobs._tmp) == []


@pytest.mark.parametrize("content", [b"", b"dense" * 10 * MIB], ids=["hole", "data"])
def test_a_check_is_called_for_every_16_mib_and_every_entry(
    source: Path, blobs: LocalBlobs, content: bytes
) -> None:
    sparse(source / "large", 100 * MIB, (0, content))
    for number in range(1000):
        (source / f"{number}").symlink_to("large")
    alarm = Alarm(0, RuntimeError("never"))
    capture(source, blobs, check=alarm)
    assert alarm.calls >= 1001 + 100 / 16


LAYOUTS: dict[str, tuple[int, list[tuple[int, bytes]]]] = {
    "nothing but a hole": (5 * MIB + 7, []),
    "a hole shorter than a block": (100, []),
    "data first": (9 * MIB, [(0, b"first" * MIB)]),
    "data last": (9 * MIB, [(9 * MIB - 4, b"last")]),
    "data across chunks": (9 * MIB + 1, [(3 * MIB - 2, b"over"), (6 * MIB, b"x" * 5000)]),
    "short holes": (3 * MIB, [(at, b"y" * 4096) for at in range(0, 3 * MIB, 12_288)]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_with_holes_has_the_content_that_reading_it_gives(
    source: Path, blobs: LocalBlobs, layout: str
) -> None:
    size, data = LAYOUTS[layout]
    sparse(source / "file", size, *data)
    (entry,) = capture(source, blobs).tree.entries
    assert entry.hash == hashlib.sha256(content_of(source / "file")).hexdigest()
    assert content_in(blobs, entry) == content_of(source / "file")
    assert entry.size == size


def bytes_read() -> int:
    """What this process has taken out of files so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_holes_are_not_read(source: Path, blobs: LocalBlobs) -> None:
    sparse(source / "file", 300 * MIB, (150 * MIB, b"middle"))
    before = bytes_read()
    capture(source, blobs)
    assert bytes_read() - before < 5 * MIB


@pytest.mark.parametrize("size", [0, 3 * MIB, 50 * MIB])
def test_a_sparse_file_that_is_cut_while_it_is_read_is_consistent(
    source: Path, blobs: LocalBlobs, size: int
) -> None:
    calls = itertools.count(1)

    def cut() -> None:
        if next(calls) == 10:
            os.truncate(source / "file", size)

    sparse(source / "file", 100 * MIB, (60 * MIB, b"data"))
    (entry,) = capture(source, blobs, check=cut).tree.entries
    assert entry.size == sum(piece.size for piece in entry.content)
    assert entry.size == 60 * MIB, "the hole counts as it was met, and nothing behind it"
