"""Tar archives of strangers, read once from front to back.

`tarfile` knows the formats (ustar, pax, GNU). It trusts headers, so what it reads of the stream
goes through a source that never goes back and gives a header only so much."""

import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from director.blobs.members import ArchiveError, Members
from director.blobs.store import CHUNK, Reader, read_fully

_MAX_HEADER = 64 * 1024
_HEADERS_PER_MEMBER = 4096
_DIGITS = re.compile(rb"[0-9]{300}")
_BROKEN = (tarfile.TarError, ValueError, OverflowError, LookupError, RecursionError)


def read_tar(stream: Reader, members: Members) -> None:
    """Read every member. Raises ArchiveError for what is refused, damaged or cut off."""
    limits = members.limits
    allowance = limits.max_bytes + (limits.max_entries + 1) * _HEADERS_PER_MEMBER
    source = _Source(stream, allowance)
    try:
        tar = tarfile.TarFile(
            fileobj=source,  # type: ignore[arg-type]
            encoding="utf-8",
            errors="surrogateescape",
        )
    except _BROKEN as error:
        raise _damaged(error) from None
    while (info := _next(tar)) is not None:
        _take(tar, source, info, members)
        tar.members.clear()  # type: ignore[attr-defined]
    source.finish()


def _next(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    try:
        return tar.next()
    except _BROKEN as error:
        raise _damaged(error) from None


def _damaged(error: Exception) -> ArchiveError:
    return ArchiveError(f"it is no tar or zip that can be read: damaged, or cut off ({error})")


def _take(tar: tarfile.TarFile, source: "_Source", info: tarfile.TarInfo, members: Members) -> None:
    raw = _bytes(info.name)
    if info.isdir():
        members.add_directory(raw, info.mode, _nanoseconds(info))
    elif info.issym():
        members.add_symlink(raw, _bytes(info.linkname), _nanoseconds(info))
    elif info.islnk():
        members.add_copy(raw, _bytes(info.linkname))
    elif info.isreg() and info.type in tarfile.SUPPORTED_TYPES:
        with source.content():
            members.add_file(raw, _Content(tar, info), info.mode, _nanoseconds(info))
    else:
        raise members.refused(raw, f"is {_SPECIAL.get(info.type, 'of a kind that is not taken')}")


_SPECIAL = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
}


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _nanoseconds(info: tarfile.TarInfo) -> int:
    try:
        return int(info.mtime * 10**9)
    except (ValueError, OverflowError):
        return 0


class _Content:
    """A member's bytes, with tarfile's errors told as ours."""

    def __init__(self, tar: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self._name = _bytes(info.name)
        self._file = tar.extractfile(info)

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size) if self._file else b""
        except _BROKEN as error:
            raise ArchiveError(f"is damaged or cut off ({error})", member=self._name) from None


class _Source:
    """The stream as tarfile sees it: a file that only goes forward, with bounded headers."""

    def __init__(self, stream: Reader, allowance: int) -> None:
        self._stream = stream
        self._allowance = allowance
        self._position = 0
        self._in_content = False
        self._last = b""

    @contextmanager
    def content(self) -> Iterator[None]:
        """Lift the bound of headers while a member's content is read."""
        self._in_content = True
        yield
        self._in_content = False

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int) -> int:
        if offset < self._position:
            raise tarfile.ReadError("a header leads backwards")
        while self._position < offset:
            if not self._pull(min(CHUNK, offset - self._position)):
                raise tarfile.ReadError("unexpected end of data")
        return self._position

    def read(self, size: int) -> bytes:
        if size < 0:
            raise tarfile.ReadError("a header has a negative size")
        if self._in_content:
            return self._pull(min(size, CHUNK))
        if size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header is longer than {_MAX_HEADER} bytes")
        self._last = self._pull(size)
        # tarfile's search in extended headers takes quadratic time over a run of digits
        if len(self._last) > tarfile.BLOCKSIZE and _DIGITS.search(self._last):
            raise tarfile.ReadError("an extended header holds a run of digits that is too long")
        return self._last

    def finish(self) -> None:
        """Read what is left, so that checksums of the compression are checked. tarfile takes
        garbage in the place of a header for the end: only a block of zeros is one."""
        if len(self._last) != tarfile.BLOCKSIZE or self._last.strip(b"\0"):
            raise ArchiveError("it is damaged or cut off: the mark at a tar's end is missing")
        while self._pull(CHUNK):
            pass

    def _pull(self, size: int) -> bytes:
        data = read_fully(self._stream, size)
        self._position += len(data)
        if self._position > self._allowance:
            raise ArchiveError(f"it unpacks to more than {self._allowance} bytes, headers included")
        return data
