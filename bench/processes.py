"""What processes cost, read from /proc, and processes of our own that are told what to do."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]

_TICKS = os.sysconf("SC_CLK_TCK")
_PPID, _UTIME, _CSTIME = 1, 11, 15
"""Fields of /proc/PID/stat behind the name in brackets."""


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time that processes and all their descendants have used, the ended ones included."""
    ticks = 0
    for pid in _with_children(set(pids)):
        if fields := _stat(pid):
            ticks += sum(int(field) for field in fields[_UTIME : _CSTIME + 1])
    return ticks / _TICKS


def memory_mib(pid: int) -> dict[str, float]:
    """RSS and PSS of a process: with, and with a share of, what it shares with others."""
    found: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in ("Rss", "Pss"):
            found[name.lower()] = int(rest.split()[0]) / 1024
    return found


def _with_children(pids: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(entry.name)):
            children.setdefault(int(fields[_PPID]), []).append(int(entry.name))
    found, ahead = set[int](), list(pids)
    while ahead:
        pid = ahead.pop()
        if pid not in found:
            found.add(pid)
            ahead += children.get(pid, [])
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


class Process:
    """A process of ours that ends with the block. Its output goes to a log."""

    def __init__(
        self, command: list[str], log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self._command, self.log = command, log
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), **(environ or {})}
        self._process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environ,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def line(self) -> str:
        """The next line that it prints. Raises RuntimeError where it has ended instead."""
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            tail = self.log.read_text(errors="replace")[-3000:]
            raise RuntimeError(f"{' '.join(self._command[1:4])} ended:\n{tail}")
        return line


class Driver(Process):
    """A module of `bench.drivers` in a process of its own, which does what it is asked."""

    def __init__(self, module: str, folder: Path, python: str = sys.executable) -> None:
        super().__init__([python, "-m", module], folder / f"{module}.log")

    def ask(self, **asked: Any) -> Any:
        """Let it do something; gives its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self.line())


async def answer(handlers: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """The other end of `Driver.ask`: do what each line asks for, until there is none."""
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        told = await handlers[asked.pop("do")](**asked)
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()


async def many(concurrency: int, count: int, one: Callable[[int], Awaitable[None]]) -> Any:
    """Do something so many times, so many at once; `one` gets the number of its lane."""
    left, millis = count, list[float]()

    async def lane(number: int) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            begun = time.perf_counter()
            await one(number)
            millis.append((time.perf_counter() - begun) * 1000)

    begun = time.perf_counter()
    await asyncio.gather(*(lane(number) for number in range(concurrency)))
    return {"millis": millis, "seconds": time.perf_counter() - begun}


def until(condition: Callable[[], Any], what: str, seconds: float = 60, pause: float = 0.05) -> Any:
    """Look until a condition holds, and give what it gave. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {seconds:g} s: {what}")
        time.sleep(pause)
    return found
