"""Opens and makes folders below a root, component by component and never through a link."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from director.domain.trees import Entry

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""How a folder is opened: a link, or anything else, in its place is an error."""


class Folders:
    """The open folders from a root down to where the last entry was written."""

    def __init__(self, root: int, uid: int | None, gid: int | None) -> None:
        self._root = root
        self._owner = (-1 if uid is None else uid, -1 if gid is None else gid)
        self._open: list[tuple[bytes, int]] = []

    def __enter__(self) -> "Folders":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave(0)

    def open(self, path: bytes) -> int:
        """Open a folder, made where it is missing, in place of any file or link in the way."""
        names = path.split(b"/") if path else []
        same = 0
        while same < min(len(names), len(self._open)) and names[same] == self._open[same][0]:
            same += 1
        self._leave(same)
        for name in names[same:]:
            self._open.append((name, self._enter(self._here(), name)))
        return self._here()

    def own(self, fd: int) -> None:
        """Give an open file or folder to the owner, if there is one."""
        if self._owner != (-1, -1):
            os.fchown(fd, *self._owner)

    def own_link(self, folder: int, name: bytes) -> None:
        """Give a symbolic link to the owner, not what it leads to."""
        if self._owner != (-1, -1):
            os.chown(name, *self._owner, dir_fd=folder, follow_symlinks=False)

    def finish(self, fd: int, entry: Entry) -> None:
        """Set owner, mode and time, in this order: each would spoil the one before."""
        self.own(fd)
        os.fchmod(fd, entry.mode)
        os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))

    def _here(self) -> int:
        return self._open[-1][1] if self._open else self._root

    def _leave(self, depth: int) -> None:
        while len(self._open) > depth:
            os.close(self._open.pop()[1])

    def _enter(self, parent: int, name: bytes) -> int:
        try:
            return os.open(name, FOLDER, dir_fd=parent)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            os.unlink(name, dir_fd=parent)
        os.mkdir(name, 0o755, dir_fd=parent)
        fd = os.open(name, FOLDER, dir_fd=parent)
        os.fchmod(fd, 0o755)
        self.own(fd)
        return fd


@contextmanager
def opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)
