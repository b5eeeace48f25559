"""A folder as a tree whose contents stay where they lie, to be written elsewhere from there."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from director.blobs.captures import Captured, capture
from director.blobs.folders import opened
from director.blobs.reading import FILE, descended
from director.blobs.store import BlobCorruptError, Blobs, Met
from director.domain.trees import HOLE, Entry


class _Part(NamedTuple):
    """So many bytes of a file, from an offset."""

    path: bytes
    at: int
    size: int


class BorrowedBlobs:
    """The contents of a folder that nobody changes meanwhile, beside those of other blobs: a blob
    of it is put together from the files that it is made of whenever it is asked for."""

    def __init__(self, root: Path, others: Blobs) -> None:
        self._root, self._others = root, others
        self._blobs: dict[str, dict[int, _Part]] = {}
        """By hash, the parts of a blob by where they begin in it."""
        self.put, self.delete, self.names = others.put, others.delete, others.names

    def captured(self, check: Callable[[], None]) -> Captured:
        """Read the folder; from now on its contents are here. Raises as `capture`."""
        found = capture(self._root, self, check=check)
        for entry in found.tree.entries:
            self._borrow(entry)
        return found

    def _borrow(self, entry: Entry) -> None:
        at = 0
        for blob, offset, size in entry.content:
            if blob != HOLE:
                self._blobs.setdefault(blob, {})[offset] = _Part(entry.raw_path, at, size)
            at += size

    def batch(self, _: "Met | None" = None) -> "_Told":
        """Begin to tell the hashes of many contents."""
        return _Told()

    def get(self, hash: str) -> bytes:
        """Read a content, checked against its hash. Raises NotFoundError or BlobCorruptError."""
        if (parts := self._blobs.get(hash)) is None:
            return self._others.get(hash)
        content = b"".join(self._read(part) for part in _row(parts))
        if hashlib.sha256(content).hexdigest() != hash:
            raise BlobCorruptError(hash, "the files that it lies in have changed", content)
        return content

    def _read(self, part: _Part) -> bytes:
        folder, _, name = part.path.rpartition(b"/")
        with (
            opened(descended(self._root, folder)) as above,
            opened(os.open(name, FILE, dir_fd=above)) as fd,
        ):
            return os.pread(fd, part.size, part.at)

    def exists(self, hash: str) -> bool:
        """Tell whether there is a content of that hash."""
        return hash in self._blobs or self._others.exists(hash)


class _Told:
    """Contents of which only the hashes are told: they are kept where they lie."""

    def put(self, content: bytes) -> str:
        """Tell the hash of a content."""
        return hashlib.sha256(content).hexdigest()

    def finish(self) -> None:
        """Nothing is to be made safe."""

    def drop(self) -> None:
        """Nothing is to be forgotten."""


def _row(parts: dict[int, _Part]) -> Iterator[_Part]:
    """The parts one behind the other. Equal blobs may be cut differently: what begins in the middle
    of a part is another cut's."""
    end = 0
    for offset, part in sorted(parts.items()):
        if offset == end:
            yield part
            end += part.size
