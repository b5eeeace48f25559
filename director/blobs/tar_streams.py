"""A file, or a folder as a tar, given out while it is read, beside files whose owner is hostile.

However large it is, it costs a few hundred KiB of memory, and a descriptor for each level."""

import errno
import os
import stat
import tarfile
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from director.blobs.folders import opened
from director.blobs.reading import (
    FILE,
    Head,
    Listing,
    ReadLimits,
    Skipped,
    below,
    descended,
    open_folder,
    open_regular,
    reason,
)
from director.domain.errors import (
    BrokenOffError,
    ConflictError,
    NotFoundError,
    PayloadTooLargeError,
)
from director.domain.trees import MAX_DEPTH, normalise, shown

BLOCK = 256 * 1024
"""Bytes that are handed on at a time; a file of at most so many is read before its header is
written, so that it is in there as long as it was."""

_END = bytes(tarfile.RECORDSIZE)


@dataclass(frozen=True)
class Taken:
    """An open file or folder, whose bytes can be read once. Close it at the end."""

    fd: int
    size: int | None
    """Bytes of the file; None for a folder, which comes as a tar."""
    limits: ReadLimits

    def blocks(self) -> Generator[bytes, None, None]:
        """The bytes. Raises BrokenOffError where they do not come to an end that is whole."""
        return _file(self.fd, self.size) if self.size is not None else _tar(self.fd, self.limits)

    def close(self) -> None:
        """Let go of it."""
        os.close(self.fd)


def take(root: Path, path: bytes, limits: ReadLimits | None = None) -> Taken:
    """Open what lies at a path below a folder, to which no link leads.

    Raises PathError for a path that leads out, NotFoundError where no file and no folder is there,
    ConflictError where it may not be opened now, PayloadTooLargeError where it holds more than the
    limits, and OSError where the disk cannot be read."""
    path, limits = normalise(path), limits or ReadLimits()
    folder, _, name = path.rpartition(b"/")
    try:
        with opened(descended(root, folder)) as above:
            fd = _open_plain(above, name or b".")
    except BlockingIOError as error:
        message = f"{shown(path)!r} is held by a process of the sandbox: nobody else may open it"
        raise ConflictError(message) from error
    except OSError as error:
        reason(error)
        raise NotFoundError("file", f"/workspace/{shown(path)}") from error
    try:
        return _judged(fd, limits)
    except BaseException:
        os.close(fd)
        raise


def _open_plain(folder: int, name: bytes) -> int:
    """Open a file or folder; what is neither is not even opened, unless it was one just before."""
    if _is_plain(os.stat(name, dir_fd=folder, follow_symlinks=False)):
        fd = os.open(name, FILE, dir_fd=folder)
        if _is_plain(os.fstat(fd)):
            return fd
        os.close(fd)
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _is_plain(about: os.stat_result) -> bool:
    return stat.S_ISREG(about.st_mode) or stat.S_ISDIR(about.st_mode)


def _judged(fd: int, limits: ReadLimits) -> Taken:
    about = os.fstat(fd)
    if stat.S_ISDIR(about.st_mode):
        for _ in _walk(fd, b"", 0, Listing(limits)):
            pass  # what is too much is refused before anything is given
        return Taken(fd, None, limits)
    if about.st_size > limits.max_bytes:
        message = f"the file is over {limits.max_bytes} bytes: read it in parts, by a command"
        raise PayloadTooLargeError(message, limitBytes=limits.max_bytes)
    return Taken(fd, about.st_size, limits)


def _file(fd: int, size: int) -> Generator[bytes, None, None]:
    head = Head(fd, size)
    while block := head.read(BLOCK):
        yield block
    if head.count < size:
        raise BrokenOffError("the file became shorter while it was read")


class _Found(NamedTuple):
    """Something in a folder; of a folder in there, `inner` is open while it is looked at."""

    folder: int
    name: bytes
    path: bytes
    about: os.stat_result
    inner: int | None = None


def _walk(folder: int, path: bytes, depth: int, listing: Listing) -> Iterator[_Found]:
    """Everything that lies in a folder, each folder before what is in it; what vanishes, or may
    not be read, is left out."""
    for name, about in listing.of(folder, path) if depth < MAX_DEPTH else ():
        if isinstance(about, Skipped):
            continue
        inside = below(path, name)
        if not stat.S_ISDIR(about.st_mode):
            yield _Found(folder, name, inside, about)
            continue
        found = open_folder(folder, name, inside)
        if isinstance(found, int):
            with opened(found):
                yield _Found(folder, name, inside, os.fstat(found), found)
                yield from _walk(found, inside, depth + 1, listing)


def _tar(fd: int, limits: ReadLimits) -> Generator[bytes, None, None]:
    """The parts of a tar, put together to blocks."""
    ready = bytearray()
    for part in _parts(fd, limits):
        ready += part
        if len(ready) >= BLOCK:
            yield bytes(ready)
            ready.clear()
    yield bytes(ready)


def _parts(fd: int, limits: ReadLimits) -> Iterator[bytes]:
    try:
        for found in _walk(fd, b"", 0, Listing(limits)):
            yield from _member(found)
    except PayloadTooLargeError as error:
        raise BrokenOffError(error.message) from error
    if not os.fstat(fd).st_nlink:
        raise BrokenOffError("the folder was removed while it was read")
    yield _END


def _member(found: _Found) -> Iterator[bytes]:
    if found.inner is not None:
        yield _header(found.path, found.about, tarfile.DIRTYPE)
    elif stat.S_ISREG(found.about.st_mode):
        file = open_regular(found.folder, found.name, found.path)
        if isinstance(file, int):
            with opened(file):
                yield from _content(file, found)
    elif stat.S_ISLNK(found.about.st_mode):
        target = _target(found)
        if target is not None:
            yield _header(found.path, found.about, tarfile.SYMTYPE, target=target)


def _target(link: _Found) -> bytes | None:
    try:
        return os.readlink(link.name, dir_fd=link.folder)
    except OSError as error:
        reason(error)
        return None


def _content(fd: int, found: _Found) -> Iterator[bytes]:
    """A file with its header, which says how long it is. One that becomes shorter behind that is
    filled up with zeros, as any tar does it; what is added to one meanwhile is left out."""
    about = os.fstat(fd)
    size = min(about.st_size, found.about.st_size)  # the size that was counted
    head = Head(fd, size)
    first = head.read(BLOCK)
    size = size if size > BLOCK else len(first)
    yield _header(found.path, about, tarfile.REGTYPE, size)
    yield first
    while block := head.read(BLOCK):
        yield block
    missing = size - head.count + -size % tarfile.BLOCKSIZE
    while missing:
        yield bytes(min(missing, BLOCK))
        missing -= min(missing, BLOCK)


def _header(
    path: bytes, about: os.stat_result, kind: bytes, size: int = 0, target: bytes = b""
) -> bytes:
    member = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
    member.type, member.mode, member.size = kind, about.st_mode & 0o777, size
    member.mtime = about.st_mtime_ns // 10**9
    member.linkname = target.decode("utf-8", "surrogateescape")
    return member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
