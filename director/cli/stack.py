"""Temporal's dev server, the API and workers as one process tree on this machine."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from director.machine.ports import Claims
from director.settings import private_home

Say = Callable[[str], None]

_START_SECONDS = 60
_STOP_SECONDS = 45
_MOST_ENDS = 3
_PR_SET_PDEATHSIG = 1


class StackError(Exception):
    """A part does not start or has ended; the message says which, and shows its last lines."""


@dataclass(frozen=True)
class Ports:
    """Where the parts listen, all on 127.0.0.1."""

    api: int = 8000
    temporal: int = 7233
    ui: int = 8233

    def claimed(self, claims: Claims, say: Say, *, api_fixed: bool = False) -> "Ports":
        """These ports, each replaced by a free one where somebody else has it, and say so; they
        stay ours as long as the claims are held.

        Raises StackError where the API's is taken and must not move: clients know it."""
        found: dict[str, int] = {}
        for name in ("api", "temporal", "ui"):
            port = found[name] = getattr(self, name)
            if claims.take(port):
                continue
            if name == "api" and api_fixed:
                raise StackError(
                    f"port {port} is taken by another program: stop that one, or choose another"
                    f" port for the API, for example `DIRECTOR_PORT={port + 1} make up`"
                )
            found[name] = claims.any()
            say(f"port {port} is taken by another program; {name} uses {found[name]}")
        return replace(self, **found)


class Stack:
    """Starts the parts, watches them, and stops them in the order in which none misses another.

    The parts die with this process, also when it is killed: what they do is durable. Each keeps
    the file `held` open, if one is given, so that its lock tells whether any of them lives.
    `commands` stand in for the usual ones, by the part's name."""

    def __init__(
        self,
        home: Path,
        ports: Ports,
        environ: dict[str, str],
        *,
        workers: int = 1,
        held: IO[str] | None = None,
        commands: Mapping[str, list[str]] | None = None,
    ) -> None:
        self.home, self.ports = home, ports
        self.workers = [f"worker-{number}" if number > 1 else "worker" for number in _upto(workers)]
        self._environ = environ
        self._held = [held.fileno()] if held else []
        self.commands = dict(commands or {})
        self._parts: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def api(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self.ports.api}"

    @property
    def namespace(self) -> str:
        """The namespace in which the runs are."""
        return self._environ.get("DIRECTOR_TEMPORAL_NAMESPACE") or os.environ.get(
            "DIRECTOR_TEMPORAL_NAMESPACE", "director"
        )

    @property
    def ui(self) -> str:
        """The address of the Temporal UI."""
        return f"http://127.0.0.1:{self.ports.ui}"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start all parts and wait until the API says that it is ready. Raises StackError where
        one ends again and again meanwhile, SettingsError where the home cannot be one."""
        private_home(self.home)
        (self.home / "logs").mkdir(exist_ok=True)
        for name in ("temporal", "api", *self.workers):
            self.begin(name)
        ends: Counter[str] = Counter()
        deadline = time.monotonic() + _START_SECONDS
        while not self.ready():
            ended = self.ended()
            ends.update(ended)
            if any(ends[name] > _MOST_ENDS for name in ended):
                self.check()
            for name in ended:
                self.begin(name)
            if time.monotonic() > deadline:
                raise StackError(f"not ready after {_START_SECONDS} s\n{self._ends()}")
            time.sleep(0.1)

    def begin(self, name: str) -> None:
        """Start one part; its output goes to `logs/NAME.log` in the home."""
        environ = {**os.environ, **self._environ, **self._settings()}
        with self.log(name).open("ab") as log:
            self._parts[name] = subprocess.Popen(
                self._command(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environ,
                start_new_session=True,
                pass_fds=self._held,
                preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 - we start parts without threads
            )

    def pid(self, name: str) -> int:
        """The process of a part."""
        return self._parts[name].pid

    def ended(self) -> list[str]:
        """The parts that have ended although nobody stopped them."""
        return [name for name, process in self._parts.items() if process.poll() is not None]

    def code(self, name: str) -> int:
        """The exit code of a part that has ended; below 0 the signal that killed it."""
        return int(self._parts[name].returncode)

    def check(self) -> None:
        """Raise StackError if a part has ended."""
        for name in self.ended():
            raise StackError(f"{name} ended with {self.code(name)}\n{_end(self.log(name))}")

    def ready(self) -> bool:
        """Whether database, Temporal and a worker answer."""
        # asked ten times a second while everything starts: a client of httpx costs 45 ms to make
        connection = HTTPConnection("127.0.0.1", self.ports.api, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        """Stop workers, API and Temporal, in this order; what runs in sandboxes goes on."""
        last = [*self.workers, "temporal"]
        apis = [name for name in self._parts if name not in last]
        for names in (self.workers, apis, ["temporal"]):
            _stop([self._parts.pop(name) for name in names if name in self._parts])

    def _command(self, name: str) -> list[str]:
        if name in self.commands:
            return self.commands[name]
        if name == "api":
            return [sys.executable, "-m", "director.api"]
        if name in self.workers:
            return [sys.executable, "-m", "director.worker"]
        return temporal_command(self.home / "temporal.db", self.ports.temporal, self.ports.ui)

    def _settings(self) -> dict[str, str]:
        return {
            "DIRECTOR_HOME": str(self.home),
            "DIRECTOR_PORT": str(self.ports.api),
            "DIRECTOR_TEMPORAL_ADDRESS": f"127.0.0.1:{self.ports.temporal}",
        }

    def log(self, name: str) -> Path:
        """Where a part writes what it has to say."""
        return self.home / "logs" / f"{name}.log"

    def _ends(self) -> str:
        return "\n".join(f"{name}: {_end(self.log(name))}" for name in self._parts)


def temporal_command(database: Path, port: int, ui_port: int | None) -> list[str]:
    """The dev server as Director needs it: on disk, and without the rate limits that make an
    idle server wait 50 ms at each hop."""
    command = [str(Path(sys.executable).with_name("temporal")), "server", "start-dev"]
    command += ["--ip", "127.0.0.1", "--port", str(port), "--db-filename", str(database)]
    command += ["--headless"] if ui_port is None else ["--ui-port", str(ui_port)]
    command += ["--log-level", "warn"]
    for pragma in ("journal_mode=wal", "synchronous=2"):
        command += ["--sqlite-pragma", pragma]
    for value in DYNAMIC_CONFIG:
        command += ["--dynamic-config-value", value]
    return command


DYNAMIC_CONFIG = (
    "history.transferProcessorMaxPollRPS=2000",
    "history.timerProcessorMaxPollRPS=2000",
    "history.visibilityProcessorMaxPollRPS=2000",
    "matching.enableFairness=true",
    "system.forceSearchAttributesCacheRefreshOnRead=true",
)


def _dying_with(parent: int) -> Callable[[], None]:
    def ask() -> None:
        # KILL, not TERM: a worker that loses Temporal at the same moment takes ten seconds to
        # stop, and whoever starts again at once would wait for it.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it was killed before we could ask

    return ask


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _STOP_SECONDS
    for process in processes:
        try:
            process.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _upto(count: int) -> range:
    return range(1, count + 1)


def _end(log: Path) -> str:
    with log.open("rb") as file:
        return _tail(file)


def _tail(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 3000))
    return file.read().decode(errors="replace").strip()
