import bz2
import gzip
import io
import lzma
import random
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable

import pytest
import zstandard

from director.blobs.archives import ArchiveError, ArchiveLimits, files_tree, read_archive
from director.blobs.contents import Reading
from director.blobs.store import LocalBlobs
from director.domain.manifests import manifest, parse
from director.domain.trees import Entry

Member = tuple[str, bytes | None, dict[str, object]]


def tar(*members: Member, format: int = tarfile.PAX_FORMAT, end: bool = True) -> bytes:
    """A tar of (name, content, further fields of TarInfo)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, content, fields in members:
            info = tarfile.TarInfo(name)
            info.size = len(content or b"")
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content or b""))
        size = archive.offset
    return out.getvalue() if end else out.getvalue()[:size]


def file(name: str, content: bytes = b"x", **fields: object) -> Member:
    return name, content, fields


def special(name: str, type: bytes, linkname: str = "") -> Member:
    return name, None, {"type": type, "linkname": linkname}


def zipped(*members: tuple[str, bytes, int], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of (name, content, Unix mode or 0 for none)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name, (2024, 2, 29, 12, 0, 0))
            info.external_attr = mode << 16
            info.create_system = 3 if mode else 0
            info.compress_type = compression
            archive.writestr(info, content)
    return out.getvalue()


def read(data: bytes, blobs: LocalBlobs, **limits: int) -> dict[str, Entry]:
    tree = read_archive(io.BytesIO(data), blobs, ArchiveLimits(**limits))
    return {entry.path: entry for entry in tree.entries}


def content(blobs: LocalBlobs, entry: Entry) -> bytes:
    return b"".join(Reading(blobs).chunks(entry))


PROJECT = tar(
    special("./", tarfile.DIRTYPE),
    file("./src/main.py", b"print(1)\n", mode=0o755, mtime=1_700_000_000),
    special("src/link", tarfile.SYMTYPE, "../src/main.py"),
    special("empty", tarfile.DIRTYPE),
    special("src/copy.py", tarfile.LNKTYPE, "./src/main.py"),
)


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.compress]
)
def test_a_tar_is_read_however_it_is_compressed(
    blobs: LocalBlobs, pack: Callable[[bytes], bytes]
) -> None:
    found = read(pack(PROJECT), blobs)
    assert sorted(found) == ["empty", "src/copy.py", "src/link", "src/main.py"]
    assert content(blobs, found["src/main.py"]) == b"print(1)\n"
    assert found["src/main.py"].mode == 0o755
    assert found["src/main.py"].mtime_ns == 1_700_000_000 * 10**9
    assert found["src/copy.py"].hash == found["src/main.py"].hash
    assert found["src/link"].target == "../src/main.py"
    assert found["empty"].kind == "directory"


def test_a_zip_is_read_with_its_modes_and_links(blobs: LocalBlobs) -> None:
    data = zipped(
        ("bin/run", b"#!/bin/sh\n", stat.S_IFREG | 0o4755),
        ("bin/again", b"run", stat.S_IFLNK | 0o777),
        ("docs/", b"", 0),
        ("plain", b"", 0),
    )
    found = read(data, blobs)
    assert found["bin/run"].mode == 0o755
    assert (found["bin/again"].kind, found["bin/again"].target) == ("symlink", "run")
    assert (found["docs"].kind, found["docs"].mode) == ("directory", 0o755)
    assert (found["plain"].mode, found["plain"].size) == (0o644, 0)
    assert found["plain"].mtime_ns == 1_709_208_000 * 10**9


class Pipe(io.RawIOBase):
    """A stream that gives a few bytes at a time and cannot be sought in."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def read(self, size: int = -1, /) -> bytes:
        return self._data.read(min(size, 777))


@pytest.mark.parametrize("data", [PROJECT, gzip.compress(PROJECT), zipped(("a", b"x" * 9999, 0))])
def test_an_archive_may_come_from_a_pipe(blobs: LocalBlobs, data: bytes) -> None:
    assert read_archive(Pipe(data), blobs) == read_archive(io.BytesIO(data), blobs)


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_of_pax_and_gnu_come_whole(blobs: LocalBlobs, format: int) -> None:
    name = "/".join(["part" * 40] * 5) + "/ü"
    assert list(read(tar(file(name), format=format), blobs)) == [name]


def test_names_that_are_not_utf8_survive(blobs: LocalBlobs) -> None:
    for format in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        data = tar(file("caf\udce9"), format=format)
        (entry,) = read(data, blobs).values()
        assert entry.raw_path == b"caf\xe9"


def test_zip_names_are_read_with_and_without_the_utf8_flag(blobs: LocalBlobs) -> None:
    flagged = zipped(("ü", b"", 0))
    assert list(read(flagged, blobs)) == ["ü"]
    assert list(read(zipped(("__", b"", 0)).replace(b"__", "ü".encode()), blobs)) == ["ü"]
    assert list(read(zipped(("_", b"", 0)).replace(b"_", b"\x81"), blobs)) == ["ü"]


def test_the_last_of_two_members_wins(blobs: LocalBlobs) -> None:
    assert content(blobs, read(tar(file("a", b"1"), file("./a", b"2")), blobs)["a"]) == b"2"
    with pytest.warns(UserWarning, match="Duplicate"):
        data = zipped(("a", b"1", 0), ("a", b"2", 0))
    assert content(blobs, read(data, blobs)["a"]) == b"2"


REFUSED_TARS: dict[str, tuple[list[Member], str]] = {
    "absolute": ([file("/etc/cron.d/x")], "'/etc/cron.d/x' is absolute"),
    "up": ([file("a/../../x")], "leads out of the tree"),
    "device": ([special("null", tarfile.CHRTYPE)], "'null' is a character device"),
    "disk": ([special("sda", tarfile.BLKTYPE)], "'sda' is a block device"),
    "fifo": ([special("pipe", tarfile.FIFOTYPE)], "'pipe' is a FIFO"),
    "unknown kind": ([special("vol", b"V")], "'vol' is of a kind"),
    "link out": ([special("l", tarfile.SYMTYPE, "../x")], "'../x', which leaves the tree"),
    "deep link out": ([special("a/l", tarfile.SYMTYPE, "./../../x")], "which leaves the tree"),
    "absolute link": ([special("l", tarfile.SYMTYPE, "/etc/passwd")], "which is absolute"),
    "empty link": ([special("l", tarfile.SYMTYPE, "")], "no target"),
    "chain of links": (
        [special("a/b/s", tarfile.SYMTYPE, ".."), special("t", tarfile.SYMTYPE, "a/b/s/../..")],
        "down and up again",
    ),
    "file below a link": (
        [special("a", tarfile.SYMTYPE, "b"), file("a/x")],
        "'a/x' lies below 'a', which is a symlink",
    ),
    "link above a file": ([file("a/x"), special("a", tarfile.SYMTYPE, "b")], "lie below it"),
    "file below a file": ([file("a"), file("a/b/c")], "lies below 'a', which is a file"),
    "two kinds": ([special("a", tarfile.DIRTYPE), file("a")], "as a directory and as a file"),
    "hard link out": ([special("h", tarfile.LNKTYPE, "../../etc/passwd")], "hard link"),
    "absolute hard link": ([special("h", tarfile.LNKTYPE, "/etc/passwd")], "hard link"),
    "hard link to nothing": ([special("h", tarfile.LNKTYPE, "later"), file("later")], "no file"),
    "hard link that moves a link": (
        [special("a/l", tarfile.SYMTYPE, "../x"), special("h", tarfile.LNKTYPE, "a/l")],
        "'h' is a symbolic link to '../x', which leaves",
    ),
    "file as root": ([file(".")], "root"),
    "long name": ([file("x" * 300)], "longer than 255"),
    "deep": ([file("d/" * 250 + "x")], "deeper than 200"),
}


@pytest.mark.parametrize("case", REFUSED_TARS)
def test_a_hostile_tar_is_refused_with_the_member_and_the_reason(
    blobs: LocalBlobs, case: str
) -> None:
    members, message = REFUSED_TARS[case]
    with pytest.raises(ArchiveError, match=message):
        read(tar(*members), blobs)


REFUSED_ZIPS = {
    "absolute": (zipped(("/etc/x", b"", 0)), "'/etc/x' is absolute"),
    "up": (zipped(("../x", b"", 0)), "leads out of the tree"),
    "windows up": (zipped(("..\\x", b"", 0)), "leads out"),
    "nul": (zipped(("a_b", b"", 0)).replace(b"a_b", b"a\0b"), "NUL"),
    "link out": (zipped(("l", b"../../x", stat.S_IFLNK | 0o777)), "leaves the tree"),
    "endless link": (zipped(("l", b"x" * 10**6, stat.S_IFLNK | 0o777)), "no target"),
    "fifo": (zipped(("p", b"", stat.S_IFIFO | 0o644)), "'p' is a device, FIFO"),
    "lzma": (zipped(("a", b"x", 0), compression=zipfile.ZIP_LZMA), "'a' is compressed by method"),
    "below a link": (
        zipped(("a", b"b", stat.S_IFLNK | 0o777), ("a/x", b"", 0)),
        "lies below 'a', which is a symlink",
    ),
}


@pytest.mark.parametrize("case", REFUSED_ZIPS)
def test_a_hostile_zip_is_refused_with_the_member_and_the_reason(
    blobs: LocalBlobs, case: str
) -> None:
    data, message = REFUSED_ZIPS[case]
    with pytest.raises(ArchiveError, match=message):
        read(data, blobs)


def test_an_encrypted_member_is_refused(blobs: LocalBlobs) -> None:
    data = bytearray(zipped(("secret", b"x", 0)))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    data[6] |= 1
    with pytest.raises(ArchiveError, match="'secret' is encrypted"):
        read(bytes(data), blobs)


def test_a_bomb_stops_at_the_limit(blobs: LocalBlobs) -> None:
    zeros = bytes(20_000_000)
    packed = tar(file("small"), file("zeros", zeros))
    for data in (packed, gzip.compress(packed), lzma.compress(packed), zipped(("zeros", zeros, 0))):
        with pytest.raises(ArchiveError, match="'zeros' takes the unpacked content over the limit"):
            read(data, blobs, max_bytes=1_000_000)
        assert read(data, blobs, max_bytes=20_000_001)["zeros"].size == 20_000_000


def test_zeros_after_the_end_are_a_bomb_too(blobs: LocalBlobs) -> None:
    data = gzip.compress(tar(file("a")) + bytes(20_000_000))
    with pytest.raises(ArchiveError, match="headers included"):
        read(data, blobs, max_bytes=1000, max_entries=10)


def test_hard_links_to_one_file_count_each(blobs: LocalBlobs) -> None:
    links = [special(f"link{number}", tarfile.LNKTYPE, "file") for number in range(10)]
    data = tar(file("file", b"x" * 1000), *links)
    assert len(read(data, blobs, max_bytes=11_000)) == 11
    with pytest.raises(ArchiveError, match="'link9' takes the unpacked content over the limit"):
        read(data, blobs, max_bytes=10_999)


def test_a_sparse_member_counts_with_its_full_size(blobs: LocalBlobs) -> None:
    fields = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.name": "huge",
              "GNU.sparse.size": str(10**12), "GNU.sparse.map": "0,1"}  # fmt: skip
    data = tar(file("huge", b"x", pax_headers=fields))
    with pytest.raises(ArchiveError, match="'huge' takes the unpacked content over the limit"):
        read(data, blobs, max_bytes=5_000_000)


def test_a_zip_that_lies_about_sizes_is_counted_and_refused(blobs: LocalBlobs) -> None:
    data = bytearray(zipped(("a", bytes(5_000_000), 0)))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    with pytest.raises(ArchiveError, match="'a'"):
        read(bytes(data), blobs, max_bytes=1_000_000)


def test_too_many_members_are_refused(blobs: LocalBlobs) -> None:
    names = [f"{number}" for number in range(6)]
    for data in (tar(*map(file, names)), zipped(*((name, b"", 0) for name in names))):
        assert len(read(data, blobs, max_entries=6)) == 6
        with pytest.raises(ArchiveError, match="more than 5 members"):
            read(data, blobs, max_entries=5)


@pytest.mark.parametrize(
    "header", [b"1" * 60_000, b"100000 path=" + b"x" * 99_000], ids=["digits", "long"]
)
def test_an_extended_header_that_eats_time_or_memory_is_refused(
    blobs: LocalBlobs, header: bytes
) -> None:
    data = tar(("x", header, {"type": tarfile.XHDTYPE}), file("a"))
    with pytest.raises(ArchiveError, match="header"):
        read(data, blobs)


@pytest.mark.parametrize("keep", [1, 100, 512, 700, 1024, 20_000, 41_000])
def test_a_tar_that_was_cut_off_is_refused(blobs: LocalBlobs, keep: int) -> None:
    data = tar(file("a", b"x" * 20_000), file("b", b"y" * 20_000), end=False)
    with pytest.raises(ArchiveError, match="cut off"):
        read(data[:keep], blobs)


def test_a_tar_that_ends_between_two_members_is_refused(blobs: LocalBlobs) -> None:
    with pytest.raises(ArchiveError, match="mark at a tar's end is missing"):
        read(tar(file("a"), end=False), blobs)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstandard.compress])
def test_a_compressed_tar_that_was_cut_off_is_refused(
    blobs: LocalBlobs, pack: Callable[[bytes], bytes]
) -> None:
    data = pack(tar(file("a", random.Random(1).randbytes(50_000))))
    for keep in (7, 1000, len(data) // 2, len(data) - 40):
        with pytest.raises(ArchiveError, match="cut off"):
            read(data[:keep], blobs)


def test_a_zip_that_was_cut_off_is_refused(blobs: LocalBlobs) -> None:
    data = zipped(("a", random.Random(1).randbytes(50_000), 0))
    for keep in (7, 1000, len(data) // 2, len(data) - 1):
        with pytest.raises(ArchiveError, match="cut off"):
            read(data[:keep], blobs)


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"<html>not found</html>", b"\x1f\x8b\x08", b"PK\x03\x04", b"\xff" * 5000,
             gzip.compress(b"no tar", mtime=0), b"%PDF-1.7" + b"x" * 1000]
)  # fmt: skip
def test_what_is_no_archive_is_refused(blobs: LocalBlobs, data: bytes) -> None:
    with pytest.raises(ArchiveError):
        read(data, blobs)


def test_an_archive_without_members_is_an_empty_tree(blobs: LocalBlobs) -> None:
    assert read(tar(), blobs) == {}
    assert read(zipped(), blobs) == {}


@pytest.mark.parametrize("seed", range(150))
def test_damage_anywhere_is_refused_or_harmless(blobs: LocalBlobs, seed: int) -> None:
    rng = random.Random(seed)
    pax = tar(file("ü" * 100, b"x" * 2000), special("l", tarfile.SYMTYPE, "ü"), file("b", b"y"))
    plain = rng.choice([PROJECT, pax, zipped(("a/b", b"z" * 3000, 0o100644), ("c", b"", 0))])
    data = bytearray(plain)
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data))] = rng.choice([0, 0xFF, rng.randrange(256)])
    packed = gzip.compress(bytes(data), 1) if rng.random() < 0.3 else bytes(data)
    try:
        tree = read_archive(io.BytesIO(packed), blobs, ArchiveLimits(10_000_000, 1000))
    except ArchiveError:
        return
    assert parse(manifest(tree)) == tree


def test_files_of_a_request_become_a_tree(blobs: LocalBlobs) -> None:
    files = {"src/a.py": "print('ü')\n", "./run.sh": "#!/bin/sh\necho hi\n", "empty": ""}
    tree = files_tree(files, blobs)
    found = {entry.path: entry for entry in tree.entries}
    assert sorted(found) == ["empty", "run.sh", "src/a.py"]
    assert content(blobs, found["src/a.py"]) == "print('ü')\n".encode()
    assert (found["run.sh"].mode, found["src/a.py"].mode) == (0o755, 0o644)
    assert files_tree(dict(reversed(files.items())), blobs).hash == tree.hash


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"/etc/passwd": ""}, "'/etc/passwd' is absolute"),
        ({"a/../../b": ""}, "'a/../../b' leads out"),
        ({"": ""}, "'' is a file in the place of the root"),
        ({"a/": ""}, "'a/' ends with"),
        ({"a": "", "./a": ""}, "'./a' is there twice"),
        ({"a": "", "a/b": ""}, "'a/b' lies below 'a'"),
        ({"a\0b": ""}, "NUL"),
        ({"a": "\ud800"}, "'a' holds half a surrogate"),
        ({"\udcff": ""}, "half a surrogate"),
        ({"a": "x" * 101}, "'a' takes the unpacked content over the limit of 100 bytes"),
        ({"a": "", "b": "", "c": ""}, "more than 2 members"),
    ],
)
def test_a_wrong_path_in_a_request_is_named(
    blobs: LocalBlobs, files: dict[str, str], message: str
) -> None:
    with pytest.raises(ArchiveError, match=message) as caught:
        files_tree(files, blobs, ArchiveLimits(max_bytes=100, max_entries=2))
    assert caught.value.details["field"] == "workspace.files"
