"""`director up` and `director down`: serve on this machine until told to stop."""

import fcntl
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import docker
from docker.models.containers import Container

from director.cli.stack import Ports, Say, Stack, StackError
from director.host import installation_id
from director.machine.engine import ensure_busybox, ensure_engine, owns_engine, stop_engine
from director.machine.image import ensure_image
from director.settings import private_home

_CALM_SECONDS = 60
_STOP_SECONDS = 120
_LOOKS = 20
_MOST_RESTARTS = 5


@dataclass(frozen=True)
class Served:
    """Who serves from a home, and where; the addresses are empty while it starts."""

    pid: int
    api: str = ""
    ui: str = ""


class ServedAlreadyError(Exception):
    """Another process serves from this home."""

    def __init__(self, served: Served | None) -> None:
        where = f" at {served.api}" if served and served.api else ", or starting"
        who = f" (process {served.pid})" if served else ""
        super().__init__(f"Director is up already{where}{who}")
        self.served = served


def prepare(home: Path, say: Say) -> bool:
    """Make sure of engine, busybox and sandbox image; tells whether the engine was started now."""
    private_home(home)
    engine = ensure_engine(home, say)
    ensure_busybox(say)
    ensure_image(engine.client, say)
    engine.client.close()
    return engine.started


@contextmanager
def serving(
    home: Path, ports: Ports, say: Say, *, workers: int = 1, api_fixed: bool = False
) -> Iterator[Stack]:
    """Serve from a home while the block lasts. Raises ServedAlreadyError and StackError."""
    with _locked(home) as lock:
        say(f"Starting Temporal, API and {f'{workers} workers' if workers > 1 else 'worker'} …")
        free = ports.free(say, api_fixed=api_fixed)
        with Stack(home, free, {}, workers=workers) as stack:
            _write(lock, Served(os.getpid(), stack.api, stack.ui))
            yield stack


def served(home: Path) -> Served | None:
    """Who serves from a home now, if somebody does."""
    path = home / "up.json"
    if not path.exists():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(path)
    return None


def up(home: Path, ports: Ports, say: Say, *, workers: int = 1) -> None:
    """Serve until SIGINT or SIGTERM; a part that ends meanwhile is started again."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    prepare(home, say)
    with serving(home, ports, say, workers=workers, api_fixed=True) as stack:
        _greet(stack, say)
        _watch(stack, stopped, say)
        say("Stopping …")
    _farewell(home, say)


def down(home: Path, say: Say) -> None:
    """Stop what serves, our sandboxes, and the engine if it was started from here."""
    if (found := served(home)) is not None:
        say(f"Stopping Director (process {found.pid}) …")
        os.kill(found.pid, signal.SIGTERM)
        _await_end(home, found)
    stopped = _containers(home)
    for container in stopped:
        say(f"Stopping sandbox {container.name} …")
        container.remove(force=True)
    stop_engine(home, say)
    say(f"Everything of this installation is stopped; its data stays in {home}")
    if stopped:
        say("Runs that were going repeat their present step, in their files, at the next start.")


def _await_end(home: Path, found: Served) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while served(home) is not None:
        if time.monotonic() > deadline:
            raise StackError(f"process {found.pid} has not ended after {_STOP_SECONDS} s")
        time.sleep(0.1)


def _watch(stack: Stack, stopped: threading.Event, say: Say) -> None:
    restarts: list[float] = []
    while not stopped.wait(0.5):
        for name in stack.ended():
            restarts = [at for at in restarts if at > time.monotonic() - _CALM_SECONDS]
            restarts.append(time.monotonic())
            if len(restarts) > _MOST_RESTARTS:
                raise StackError(f"{name} keeps ending; its log: {stack.log(name)}")
            say(f"{name} has ended and is started again; its log: {stack.log(name)}")
            stack.begin(name)


def _greet(stack: Stack, say: Say) -> None:
    password = stack.home / "admin-password"
    say("")
    say(f"Director is up.  API         {stack.api}/v1   (docs: {stack.api}/docs)")
    say(f"                 Temporal UI {stack.ui}/namespaces/{stack.namespace}/workflows")
    if password.exists():
        say(f"                 user admin, password in {password}")
    say(f"                 logs in {stack.home / 'logs'}")
    say("")
    say("Log in, and look who you are:")
    say(f"""
  TOKEN=$(curl -s {stack.api}/v1/auth/login -H 'Content-Type: application/json' \\
    -d "{{\\"username\\": \\"admin\\", \\"password\\": \\"$(cat {password})\\"}}" \\
    | python3 -c 'import json, sys; print(json.load(sys.stdin)["data"]["token"])')
  curl -s {stack.api}/v1/auth/me -H "Authorization: Bearer $TOKEN"
""")
    say("Ctrl-C stops serving; started again, it goes on where it was.")


def _farewell(home: Path, say: Say) -> None:
    running = [container for container in _containers(home) if container.status == "running"]
    if running:
        say(
            f"Sandboxes that go on running: {len(running)}."
            " `make up` follows them, `make down` stops them."
        )
    if owns_engine(home):
        say("The Docker engine that was started here is left running; `make down` stops it.")


def _containers(home: Path) -> list[Container]:
    try:
        client = docker.from_env()
        label = f"director.installation={installation_id(home)}"
        return client.containers.list(all=True, filters={"label": label})
    except docker.errors.DockerException:
        return []


@contextmanager
def _locked(home: Path) -> Iterator[Path]:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = home / "up.json"
    with path.open("a+") as file:
        if not _taken(file):
            raise ServedAlreadyError(_read(path))
        _write(path, Served(os.getpid()))
        yield path
        path.write_text("")


def _taken(file: IO[str]) -> bool:
    """Take the lock; whoever only looks holds it for a moment, which is waited for."""
    for _ in range(_LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def _write(path: Path, served: Served) -> None:
    path.write_text(json.dumps(asdict(served)))


def _read(path: Path) -> Served | None:
    try:
        return Served(**json.loads(path.read_text()))
    except (ValueError, TypeError):
        return None
