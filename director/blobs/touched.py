"""Blobs of which note is taken before anybody relies on them."""

import hashlib

from director.blobs.store import Blobs, Met, Puts


class TouchedBlobs:
    """A store whose blobs are noted, by hash and size, before anybody relies on them: collection
    spares what was noted not long ago."""

    def __init__(self, blobs: Blobs, touch: Met) -> None:
        self._blobs, self._touch = blobs, touch
        self.get, self.exists = blobs.get, blobs.exists
        self.delete, self.names = blobs.delete, blobs.names

    def put(self, content: bytes) -> str:
        """Keep a content and tell its hash; it is noted before it is looked for."""
        self._touch({hashlib.sha256(content).hexdigest(): len(content)})
        return self._blobs.put(content)

    def batch(self, met: "Met | None" = None) -> "TouchedBatch":
        """Begin to keep many contents."""
        return TouchedBatch(self._blobs.batch(self._touch), self._touch)


class TouchedBatch:
    """Contents that are noted: those that are there already at once, others together, before they
    become safe."""

    def __init__(self, batch: Puts, touch: Met) -> None:
        self._batch, self._touch = batch, touch
        self._sizes: dict[str, int] = {}
        self.drop = batch.drop

    def put(self, content: bytes) -> str:
        """Take a content and tell its hash."""
        hash = self._batch.put(content)
        self._sizes[hash] = len(content)
        return hash

    def finish(self) -> None:
        """Note all of them, then make them safe."""
        if self._sizes:
            self._touch(self._sizes)
        self._batch.finish()
