"""Writes a tree into a folder, beside files whose owner is hostile.

Every step goes by a descriptor of the folder above and never through a symbolic link."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from director.blobs.folders import FOLDER, Folders, opened
from director.blobs.store import Blobs
from director.domain.errors import ConflictError
from director.domain.trees import Entry, Tree

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 64 * 1024


class MaterializeError(ConflictError):
    """A tree does not fit into a folder, since a folder lies where something else belongs."""


def _go_on() -> None:
    """Nothing keeps it from going on."""


def materialize(
    tree: Tree,
    root: Path,
    blobs: Blobs,
    uid: int | None = None,
    gid: int | None = None,
    *,
    check: Callable[[], None] = _go_on,
) -> None:
    """Write a tree into an existing folder, over what lies there: files and links are replaced,
    other things stay. Idempotent: after a crash it may be repeated. `check` is called before every
    entry, and what it raises ends the writing.

    Raises MaterializeError where a folder is in the way, and NotFoundError or BlobCorruptError for
    a content that is not right; no file appears under its name before it is whole."""
    with opened(os.open(root, FOLDER)) as fd, Folders(fd, uid, gid) as folders:
        for entry in tree.entries:
            check()
            with _told(entry):
                _WRITERS[entry.kind](folders, entry, blobs)
        for entry in reversed(tree.entries):
            if entry.kind == "directory":
                folders.finish(folders.open(entry.raw_path), entry)


@contextmanager
def _told(entry: Entry) -> Iterator[None]:
    try:
        yield
    except IsADirectoryError:
        raise MaterializeError(
            f"a folder lies where the {entry.kind} {entry.path!r} belongs; remove it first"
        ) from None


def _write_folder(folders: Folders, entry: Entry, _: Blobs) -> None:
    folders.open(entry.raw_path)


def _write_file(folders: Folders, entry: Entry, blobs: Blobs) -> None:
    with _replacing(folders, entry) as (folder, new), _new_file(folder, new) as file:
        _fill(file, entry, blobs)
        folders.finish(file.fileno(), entry)


def _write_link(folders: Folders, entry: Entry, _: Blobs) -> None:
    with _replacing(folders, entry) as (folder, new):
        os.symlink(entry.raw_target, new, dir_fd=folder)
        folders.own_link(folder, new)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(new, ns=times, dir_fd=folder, follow_symlinks=False)


_WRITERS = {"directory": _write_folder, "file": _write_file, "symlink": _write_link}


def _new_file(folder: int, name: bytes) -> IO[bytes]:
    return os.fdopen(os.open(name, _NEW_FILE, 0o600, dir_fd=folder), "wb")


@contextmanager
def _replacing(folders: Folders, entry: Entry) -> Iterator[tuple[int, bytes]]:
    """Give a folder and a name to write to; then that takes the place of the entry at once.

    The name is always the same for an entry, so that a repetition clears what a crash left."""
    parent, _, name = entry.raw_path.rpartition(b"/")
    folder = folders.open(parent)
    new = b".director-" + hashlib.sha256(name).hexdigest()[:16].encode()
    with suppress(FileNotFoundError):
        os.unlink(new, dir_fd=folder)
    try:
        yield folder, new
        os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(new, dir_fd=folder)
        raise


def _fill(file: IO[bytes], entry: Entry, blobs: Blobs) -> None:
    """Write a content; blocks of zeros become holes, as a sandbox's disk is small."""
    with blobs.open(entry.hash or "") as content:
        while block := content.read(_BLOCK):
            if block.strip(b"\0"):
                file.write(block)
            else:
                file.seek(len(block), os.SEEK_CUR)
    file.truncate()
    file.flush()
