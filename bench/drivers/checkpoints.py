"""A folder of many small files and a large one: captured and restored, as Director and as tar do.

Both write their bytes through to the disk, and find what they read in memory."""

import asyncio
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.processes import answer
from director.blobs.captures import Captured, capture
from director.blobs.store import LocalBlobs, get_tree, put_tree
from director.blobs.trees import materialize

_WORDS = 4000
_BLOCK = 1024 * 1024
_LEVEL = "-3"
"""Of zstd: the level of the blob store."""


class Folders:
    """The folder that is captured, and where it goes."""

    async def prepare(self, home: str, files: int, large: int) -> Any:
        """Make the folder: so many files of about 4 KiB, and one of so many bytes."""
        self._home, self._rng = Path(home), random.Random(7)
        self._source = self._home / "source"
        self._words = [self._rng.randbytes(self._rng.randint(1, 4)).hex() for _ in range(_WORDS)]
        for number in range(files):
            folder = self._source / f"{number % 20}" / f"{number % 400}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}.txt").write_bytes(self._text(self._rng.randint(200, 8000)))
        with (self._source / "large").open("wb") as file:
            for _ in range(large // _BLOCK):
                half = self._rng.randbytes(_BLOCK // 2)
                file.write(half + self._text(_BLOCK - len(half)))
        self._names = sorted(self._source.rglob("*.txt"))

    async def first(self, whose: str) -> Any:
        """Take everything, to where nothing is yet."""
        if whose == "tar":
            return self._timed(self._tar)
        self._gone("blobs")
        self._captured: Captured | None = None
        return self._timed(self._capture)

    async def again(self, whose: str, percent: float) -> Any:
        """Take it once more, after so many of a hundred files have changed; the first of them keeps
        its size and its time."""
        if whose == "tar":
            return self._timed(self._tar)
        changed = self._names[:: int(100 / percent)] if percent else []
        for number, path in enumerate(changed):
            before, content = path.stat(), path.read_bytes()
            path.write_bytes(bytes(reversed(content)) + (b"more" if number else b""))
            if number == 0:
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return self._timed(self._capture)

    async def restore(self, whose: str) -> Any:
        """Write everything into an empty folder."""
        self._gone("target")
        (self._home / "target").mkdir()
        took = self._timed(self._untar if whose == "tar" else self._materialize)
        self._compare()
        return took

    async def end(self) -> Any:
        """Remove it all."""
        self._gone("source", "target", "blobs", "tar.zst")

    def _text(self, size: int) -> bytes:
        words: list[str] = []
        while size > 0:
            words.append(self._rng.choice(self._words))
            size -= len(words[-1]) + 1
        return " ".join(words).encode()

    def _timed(self, work: Callable[[], None]) -> Any:
        os.sync()
        begun, cpu = time.perf_counter(), sum(os.times()[:4])
        work()
        return {"seconds": time.perf_counter() - begun, "cpu": sum(os.times()[:4]) - cpu}

    def _capture(self) -> None:
        blobs = LocalBlobs(self._home / "blobs")
        self._captured = capture(self._source, blobs, previous=self._captured)
        self._hash = put_tree(blobs, self._captured.tree)

    def _materialize(self) -> None:
        blobs = LocalBlobs(self._home / "blobs")
        materialize(get_tree(blobs, self._hash), self._home / "target", blobs)

    def _tar(self) -> None:
        packed = self._home / "tar.zst"
        script = 'tar -C "$1" -cf - . | zstd -q -f "$2" -o "$3"'
        subprocess.run(["sh", "-c", script, "sh", self._source, _LEVEL, packed], check=True)
        with packed.open("rb") as file:
            os.fsync(file.fileno())

    def _untar(self) -> None:
        script = 'zstd -q -dc "$1" | tar -C "$2" -xpf -'
        packed, target = self._home / "tar.zst", self._home / "target"
        subprocess.run(["sh", "-c", script, "sh", packed, target], check=True)

    def _compare(self) -> None:
        argv = ["diff", "-rq", self._source, self._home / "target"]
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)

    def _gone(self, *names: str) -> None:
        for name in names:
            path = self._home / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)


async def main() -> None:
    """Do what is asked."""
    folders = Folders()
    ways = ("prepare", "first", "again", "restore", "end")
    await answer({name: getattr(folders, name) for name in ways})


if __name__ == "__main__":
    asyncio.run(main())
