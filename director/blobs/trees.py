"""Writes a tree into a folder, beside files whose owner is hostile: all of it or nothing.

Every step goes by a descriptor of the folder above and never through a symbolic link. The tree is
written, and every content checked, in a folder of its own inside of the target; only then does it
take its place."""

import fcntl
import hashlib
import os
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from director.blobs.folders import FOLDER, Folders, opened
from director.blobs.settling import MaterializeError, settle
from director.blobs.store import BlobCorruptError, Blobs
from director.domain.errors import DirectorError, NotFoundError
from director.domain.trees import HOLE, Entry, Tree

__all__ = ["STAGE", "DamagedError", "MaterializeError", "materialize"]

STAGE = b".director-"
"""How the name begins of a folder in which a tree is written until it is whole."""

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD_FILE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLOCK = 64 * 1024
_THREADS = 2
_AHEAD = 3
_ZEROS = memoryview(bytes(_BLOCK))


class DamagedError(DirectorError):
    """A file of a tree cannot be written, since its content is not in the blobs as it was."""

    def __init__(self, entry: Entry, others: int, reason: str) -> None:
        also = f" (so do {others} others)" if others else ""
        super().__init__(
            f"{entry.path!r} cannot be restored, and so nothing was: it lies in a blob that is"
            f" damaged or gone{also}: {reason}; bring the blob back from a backup",
            path=entry.path,
            others=others,
        )


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
    other things stay. `check` is called before every entry and chunk, and what it raises ends the
    writing.

    Raises MaterializeError where a folder lies in the place of a file, and DamagedError naming the
    file whose content is not right: then nothing in the folder has changed. A crash while the tree
    takes its place leaves a part of it; that may be repeated."""
    with opened(os.open(root, FOLDER)) as fd:
        with _staged(fd) as stage:
            with Folders(stage, uid, gid) as folders:
                _Writer(tree, folders, blobs, check).write()
            check()
            settle(stage, fd)
        with Folders(fd, uid, gid) as folders:
            for entry in reversed(tree.entries):
                if entry.kind == "directory":
                    folders.finish(folders.open(entry.raw_path), entry)


@contextmanager
def _staged(root: int) -> Iterator[int]:
    """Give a new folder inside of the root that nobody else may enter, and that is gone afterwards.
    Those that killed writers have left are removed: who lives holds a lock."""
    for name in os.listdir(root):
        if os.fsencode(name).startswith(STAGE):
            _remove_left(root, name)
    name = os.fsdecode(STAGE) + secrets.token_hex(8)
    os.mkdir(name, 0o700, dir_fd=root)
    try:
        with opened(os.open(name, FOLDER, dir_fd=root)) as stage:
            fcntl.flock(stage, fcntl.LOCK_EX)
            yield stage
    finally:
        shutil.rmtree(name, dir_fd=root)


def _remove_left(root: int, name: str) -> None:
    with suppress(OSError), opened(os.open(name, FOLDER, dir_fd=root)) as left:
        fcntl.flock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(name, dir_fd=root)


class _Use(NamedTuple):
    """A part of a blob that belongs to a file, and where in it."""

    entry: Entry
    offset: int
    size: int
    at: int


class _Writer:
    """Writes a tree into an empty folder, each blob read once."""

    def __init__(
        self, tree: Tree, folders: Folders, blobs: Blobs, check: Callable[[], None]
    ) -> None:
        self._tree, self._folders, self._blobs, self._check = tree, folders, blobs, check
        self._uses: dict[str, list[_Use]] = {}
        self._left: dict[bytes, int] = {}
        """How many parts are missing of a file that has several."""

    def write(self) -> None:
        """Write everything, but for the modes and times of folders."""
        for entry in self._tree.entries:
            self._check()
            _BEGINNERS[entry.kind](self, entry)
        for hash, content in self._contents():
            for use in self._uses[hash]:
                self._check()
                self._write_use(use, content)

    def folder(self, entry: Entry) -> None:
        self._folders.open(entry.raw_path)

    def link(self, entry: Entry) -> None:
        parent, _, name = entry.raw_path.rpartition(b"/")
        folder = self._folders.open(parent)
        os.symlink(entry.raw_target, name, dir_fd=folder)
        self._folders.own_link(folder, name)
        times = (entry.mtime_ns, entry.mtime_ns)
        os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)

    def file(self, entry: Entry) -> None:
        """Note where a file's content lies; one that is not in one piece begins as a hole."""
        at = count = 0
        for blob, offset, size in entry.content:
            if blob != HOLE:
                self._uses.setdefault(blob, []).append(_Use(entry, offset, size, at))
                count += 1
            at += size
        if count != 1 or at != entry.content[0].size:
            self._left[entry.raw_path] = count
            with opened(self._open(entry, _NEW_FILE)) as fd:
                os.ftruncate(fd, entry.size)
                if not count:
                    self._folders.finish(fd, entry)

    def _contents(self) -> Iterator[tuple[str, bytes]]:
        """Every blob with its content, read ahead."""
        with ThreadPoolExecutor(_THREADS) as pool:
            try:
                ahead: deque[tuple[str, Future[bytes]]] = deque()
                for hash in self._uses:
                    ahead.append((hash, pool.submit(self._blobs.get, hash)))
                    if len(ahead) > _AHEAD:
                        yield self._arrived(*ahead.popleft())
                while ahead:
                    yield self._arrived(*ahead.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _arrived(self, hash: str, content: Future[bytes]) -> tuple[str, bytes]:
        uses = self._uses[hash]
        try:
            return hash, content.result()
        except BlobCorruptError as error:
            wrong = _wrong(uses, error.readable)
            raise DamagedError(wrong[0].entry, len(wrong) - 1, str(error)) from None
        except NotFoundError as error:
            raise DamagedError(uses[0].entry, len(_wrong(uses, b"")) - 1, str(error)) from None

    def _write_use(self, use: _Use, content: bytes) -> None:
        entry = use.entry
        is_part = entry.raw_path in self._left
        fd = self._open(entry, _OLD_FILE if is_part else _NEW_FILE)
        try:
            _put(fd, memoryview(content)[use.offset : use.offset + use.size], use.at)
            if is_part:
                self._left[entry.raw_path] -= 1
            if not self._left.get(entry.raw_path):
                self._folders.finish(fd, entry)
        finally:
            os.close(fd)

    def _open(self, entry: Entry, how: int) -> int:
        parent, _, name = entry.raw_path.rpartition(b"/")
        return os.open(name, how, 0o600, dir_fd=self._folders.open(parent))


_BEGINNERS = {"directory": _Writer.folder, "file": _Writer.file, "symlink": _Writer.link}


def _put(fd: int, content: memoryview, at: int) -> None:
    """Write at a place; blocks of zeros become holes, as a sandbox's disk is small."""
    is_written = True
    for start in range(0, len(content), _BLOCK):
        block = content[start : start + _BLOCK]
        is_written = block != _ZEROS[: len(block)]
        if is_written:
            _write_all(fd, block, at + start)
    end = at + len(content)
    if not is_written and os.fstat(fd).st_size < end:
        os.ftruncate(fd, end)


def _write_all(fd: int, block: memoryview, at: int) -> None:
    while block:
        count = os.pwrite(fd, block, at)
        block, at = block[count:], at + count


def _wrong(uses: list[_Use], readable: bytes) -> list[_Use]:
    """The files whose content is not to be had, by what of their blob can be read."""
    found: dict[bytes, _Use] = {}
    for use in uses:
        part = readable[use.offset : use.offset + use.size]
        if hashlib.sha256(part).hexdigest() != use.entry.hash:
            found.setdefault(use.entry.raw_path, use)
    return list(found.values()) or uses[-1:]
