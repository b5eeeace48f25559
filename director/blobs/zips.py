"""Zip archives of strangers."""

import calendar
import os
import stat
import struct
import zipfile
import zlib
from typing import IO

from director.blobs.members import ArchiveError, Members
from director.blobs.store import CHUNK
from director.domain.trees import MAX_PATH

_UNIX = 3
_DOS = 0
_ENCRYPTED = 0x1
_UTF8 = 0x800
_MEMBER = b"PK\x01\x02"
_DIRECTORY_BYTES_PER_MEMBER = 4096
_BROKEN = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, OverflowError, LookupError,
    EOFError, NotImplementedError,
)  # fmt: skip


def read_zip(file: IO[bytes], members: Members) -> None:
    """Read every member of a file that can be sought in. Raises ArchiveError."""
    source = _Source(file, members)
    try:
        archive = zipfile.ZipFile(source)
    except _BROKEN as error:
        raise ArchiveError(f"it is a zip that is damaged or cut off ({error})") from None
    source.listed = True
    for info in archive.infolist():
        _take(archive, info, members)


def _take(archive: zipfile.ZipFile, info: zipfile.ZipInfo, members: Members) -> None:
    raw = _name(info)
    mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
    kind = stat.S_IFMT(mode)
    if raw.endswith(b"/") or kind == stat.S_IFDIR:
        members.add_directory(raw, mode & 0o777 or 0o755, _nanoseconds(info))
    elif kind == stat.S_IFLNK:
        target = _Content(archive, info, raw, members).read(MAX_PATH + 1)
        members.add_symlink(raw, target, _nanoseconds(info))
    elif kind in (0, stat.S_IFREG):
        content = _Content(archive, info, raw, members)
        members.add_file(raw, content, mode & 0o777 or 0o644, _nanoseconds(info))
    else:
        raise members.refused(raw, "is a device, FIFO or socket")


def _name(info: zipfile.ZipInfo) -> bytes:
    """The name as bytes. Without the UTF-8 flag it should be code page 437; most writers put
    UTF-8 there all the same, so what reads as UTF-8 is taken as that."""
    raw = info.orig_filename.encode()
    if not info.flag_bits & _UTF8:
        plain = info.orig_filename.encode("cp437")
        raw = plain if _is_utf8(plain) else raw
    return raw.replace(b"\\", b"/") if info.create_system == _DOS else raw


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _nanoseconds(info: zipfile.ZipInfo) -> int:
    """The time of a member. A zip does not say in which zone it is; it is taken as UTC."""
    try:
        return calendar.timegm((*info.date_time, 0, 0, 0)) * 10**9
    except ValueError:
        return 0


class _Content:
    """A member's bytes, with zipfile's errors told as ours."""

    def __init__(
        self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, raw: bytes, members: Members
    ) -> None:
        self._refused = members.refused
        self._raw = raw
        if info.flag_bits & _ENCRYPTED:
            raise members.refused(raw, "is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            issue = f"is compressed by method {info.compress_type}; only deflate (8) is taken"
            raise members.refused(raw, issue)
        try:
            self._file = archive.open(info)
        except _BROKEN as error:
            raise self._damaged(error) from None

    def read(self, size: int, /) -> bytes:
        try:
            return self._file.read(size)
        except _BROKEN as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> ArchiveError:
        return self._refused(self._raw, f"is damaged or cut off ({error})")


class _Source:
    """The file as zipfile sees it. The list of members is read in one go and each of them costs
    memory, so that they are counted before zipfile makes anything of them."""

    def __init__(self, file: IO[bytes], members: Members) -> None:
        self.listed = False
        self._file = file
        self._max_entries = members.limits.max_entries
        self._max_read = max(CHUNK, self._max_entries * _DIRECTORY_BYTES_PER_MEMBER)

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(self._max_read + 1 if size < 0 else min(size, self._max_read + 1))
        if len(data) > self._max_read:
            raise ArchiveError("its list of members is too long, or damaged")
        in_list = size >= 0 and not self.listed
        if in_list and data.count(_MEMBER) > self._max_entries:
            raise ArchiveError(f"it has more than {self._max_entries} members")
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("a header leads to before the file")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True
