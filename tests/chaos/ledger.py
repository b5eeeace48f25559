"""The ledger: a file in each run's workspace to which its commands write what they do.

The witness reads it on the host and holds it open, so that it sees also what is written after
the file was removed, and what was written to a file that another has replaced."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from chaos.observations import Line

LEDGER = "ledger"
HEAD = "# what the commands of this run did\n"

SCRIPT = """\
# mark.sh LABEL BEATS PAUSE: says what it does, to the ledger and to the output
label=$1
read -r nonce </proc/sys/kernel/random/uuid
say() { echo "$1 $label $nonce $(date +%s%N)" | tee -a ledger; }
say begin
n=0
while [ $((n += 1)) -le "$2" ]; do
    sleep "$3"
    say beat
done
say end
"""

FILES = {LEDGER: HEAD, "mark.sh": SCRIPT}
"""What lies in the workspace of a run before its first step."""

_LOOK_SECONDS = 0.02
_LINE = 200
_WATCHED_SECONDS = 3.0
"""How long a file is watched after it was removed: nothing may write to it any more."""


def mark(label: str, beats: int, pause: float) -> str:
    """The shell command that marks its begin, some beats with a pause before each, its end."""
    return f"sh mark.sh {label} {beats} {pause}"


def lines(text: str) -> list[Line]:
    """The lines of a ledger or an output; a line that is none is kept with the verb `?`."""
    return [_line(row) for row in text.splitlines() if row and not row.startswith("#")]


def _line(row: str) -> Line:
    match row.split():
        case [("begin" | "beat" | "end") as verb, label, nonce, digits] if digits.isdigit():
            return Line(verb, label, nonce, int(digits) / 1e9)
    return Line("?", row, "", 0.0)


class _File:
    def __init__(self, run_id: str, path: Path) -> None:
        self.run_id, self.path = run_id, path
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        self.gone_at: float | None = None
        self.text = ""
        self._size = 0

    def ends(self) -> bool:
        """Whether the file has grown since the last look, and ends with a command's end."""
        size = os.fstat(self.descriptor).st_size
        if size == self._size:
            return False
        self._size = size
        last = os.pread(self.descriptor, _LINE, max(0, size - _LINE)).rstrip().rpartition(b"\n")
        return last[2].startswith(b"end ")

    def close(self) -> None:
        """Read all of it and let it go."""
        size = os.fstat(self.descriptor).st_size
        self.text = os.pread(self.descriptor, size, 0).decode(errors="replace")
        os.close(self.descriptor)


class Witness:
    """Sees every ledger that appears below the sandboxes of a home."""

    def __init__(self, home: Path, ended: Callable[[], None] = lambda: None) -> None:
        self._root = home / "sandboxes"
        self._ended = ended
        """Called when a command has said that it ends."""
        self._open: dict[tuple[str, int], _File] = {}
        self._closed: list[_File] = []
        self._lock = threading.Lock()

    async def watch(self) -> None:
        """Look for ever, from a thread: a file may be there for less time than the loop stands
        still while a part is started."""
        over, loop = threading.Event(), asyncio.get_running_loop()

        def watch() -> None:
            while not over.wait(_LOOK_SECONDS):
                if self._look():
                    loop.call_soon_threadsafe(self._ended)

        watching = asyncio.create_task(asyncio.to_thread(watch))
        try:
            await asyncio.shield(watching)
        finally:
            over.set()
            await watching

    def _look(self) -> bool:
        """Open what is new, and let go of what was removed some time ago; tells whether a command
        has said that it ends."""
        present = {}
        for sandbox in self._sandboxes():
            path = self._root / sandbox / "workspace" / LEDGER
            try:
                present[sandbox, path.lstat().st_ino] = path
            except OSError:
                continue
        with self._lock:
            for key, path in present.items():
                if key not in self._open:
                    self._take(key, path)
            ended = any(file.ends() for file in self._open.values())
            self._let_go(present)
        return ended

    def begun(self, label: str) -> int:
        """How many executions of a command have begun in files that are still watched."""
        with self._lock:
            texts = [os.pread(f.descriptor, 1 << 20, 0).decode() for f in self._open.values()]
        found = [line for text in texts for line in lines(text) if line.verb == "begin"]
        return len({line.nonce for line in found if line.label == label})

    def ledgers(self) -> dict[str, list[str]]:
        """Close everything; gives the texts by run."""
        for file in self._open.values():
            file.close()
        found: dict[str, list[str]] = {}
        for file in [*self._closed, *self._open.values()]:
            found.setdefault(file.run_id, []).append(file.text)
        self._open, self._closed = {}, []
        return found

    def _sandboxes(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._root) if name.startswith("sbx_")]
        except FileNotFoundError:
            return []

    def _take(self, key: tuple[str, int], path: Path) -> None:
        try:
            # the sandbox of a run has the run's own name
            self._open[key] = _File("run_" + key[0].removeprefix("sbx_"), path)
        except OSError:
            return  # it was removed in this moment

    def _let_go(self, present: dict[tuple[str, int], Path]) -> None:
        now = time.monotonic()
        for key, file in list(self._open.items()):
            if key in present:
                continue
            file.gone_at = file.gone_at or now
            if now - file.gone_at > _WATCHED_SECONDS:
                file.close()
                self._closed.append(self._open.pop(key))
