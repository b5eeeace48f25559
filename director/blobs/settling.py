"""Lets a folder that was written aside take its place in another, which holds things already."""

import errno
import os
import stat
from contextlib import suppress

from director.blobs.folders import FOLDER, opened
from director.domain.errors import ConflictError
from director.domain.trees import shown


class MaterializeError(ConflictError):
    """A tree does not fit into a folder, since a folder lies where something else belongs."""


def settle(stage: int, root: int) -> None:
    """Move everything in one open folder into another one, which keeps what else it holds; files
    and links are replaced. Raises MaterializeError, before anything is moved, where a folder lies
    in the place of a file."""
    _check(stage, root, b"")
    _move(stage, root, b"")


def _check(stage: int, root: int, above: bytes) -> None:
    for name in map(os.fsencode, os.listdir(stage)):
        there = _kind(name, root)
        if there is None or not stat.S_ISDIR(there):
            continue
        path = above + name
        if not stat.S_ISDIR(_kind(name, stage) or 0):
            raise _in_the_way(path)
        with (
            suppress(FileNotFoundError, NotADirectoryError),  # its owner has just removed it
            opened(os.open(name, FOLDER, dir_fd=stage)) as ours,
            opened(os.open(name, FOLDER, dir_fd=root)) as theirs,
        ):
            _check(ours, theirs, path + b"/")


def _move(stage: int, root: int, above: bytes) -> None:
    for name in map(os.fsencode, os.listdir(stage)):
        if not _renamed(name, stage, root, above + name):
            with (
                opened(os.open(name, FOLDER, dir_fd=stage)) as ours,
                opened(os.open(name, FOLDER, dir_fd=root)) as theirs,
            ):
                _move(ours, theirs, above + name + b"/")


def _renamed(name: bytes, stage: int, root: int, path: bytes) -> bool:
    """Whether it could be moved as a whole; a folder that holds something is filled up instead."""
    for _ in range(2):
        try:
            os.rename(name, name, src_dir_fd=stage, dst_dir_fd=root)
        except NotADirectoryError:
            os.unlink(name, dir_fd=root)  # a file, or a link, in the place of a folder
        except IsADirectoryError:
            raise _in_the_way(path) from None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        else:
            return True
    return False


def _kind(name: bytes, folder: int) -> int | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None


def _in_the_way(path: bytes) -> MaterializeError:
    message = f"a folder lies where the file {shown(path)!r} belongs; remove it first"
    return MaterializeError(message)
