"""A folder as a tree whose contents stay where they lie, to be written elsewhere from there."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path

from director.blobs.captures import Captured, capture
from director.blobs.folders import opened
from director.blobs.reading import FILE, descended
from director.blobs.store import CHUNK, Blobs, Reader


class BorrowedBlobs:
    """The contents of a folder that nobody changes meanwhile, beside those of other blobs."""

    def __init__(self, root: Path, others: Blobs) -> None:
        self._root, self._others = root, others
        self._paths: dict[str, bytes] = {}

    def captured(self, check: Callable[[], None]) -> Captured:
        """Read the folder; from now on its contents are here. Raises as `capture`."""
        found = capture(self._root, self, check=check)
        files = ((entry.hash, entry.raw_path) for entry in found.tree.entries)
        self._paths = {hash: path for hash, path in files if hash is not None}
        return found

    def put(self, content: bytes) -> str:
        """Keep a content in the other blobs."""
        return self._others.put(content)

    def put_stream(self, reader: Reader) -> str:
        """Tell the hash of what a reader gives until its end, and keep nothing."""
        digest = hashlib.sha256()
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
        return digest.hexdigest()

    def open(self, hash: str) -> io.BufferedReader:
        """Read a content in constant memory. Raises NotFoundError."""
        if (path := self._paths.get(hash)) is None:
            return self._others.open(hash)
        folder, _, name = path.rpartition(b"/")
        with opened(descended(self._root, folder)) as fd:
            return io.BufferedReader(io.FileIO(os.open(name, FILE, dir_fd=fd)))

    def get(self, hash: str) -> bytes:
        """Read a whole content into memory. Raises NotFoundError."""
        with self.open(hash) as reader:
            return reader.read()

    def exists(self, hash: str) -> bool:
        """Tell whether there is a content of that hash."""
        return hash in self._paths or self._others.exists(hash)

    def size(self, hash: str) -> int:
        """Bytes of a content. Raises NotFoundError."""
        with self.open(hash) as reader:
            return reader.seek(0, os.SEEK_END)
