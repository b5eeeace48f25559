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
from director.cli.watch import Watch
from director.host import installation_id
from director.machine.apt import SetUpError
from director.machine.engine import (
    alive,
    ensure_engine,
    ensure_filter,
    ensure_supervisor,
    lost_engine,
    owns_engine,
    stop_engine,
)
from director.machine.image import ensure_image
from director.machine.ports import Claims
from director.settings import private_home

_STOP_SECONDS = 120
_LOOK_SECONDS = 0.1
_GLANCE_SECONDS = 1
_ENGINE_PAUSE = 10
_STUCK = "Director has not ended after {} s; `fuser -v {}` names the processes that still run"


@dataclass(frozen=True)
class Served:
    """Who serves from a home, and where; the addresses are empty while it starts."""

    pid: int
    api: str = ""
    ui: str = ""


class ServedAlreadyError(Exception):
    """Another process serves from this home."""

    def __init__(self, served: Served) -> None:
        where = f" at {served.api}" if served.api else ", or starting"
        super().__init__(f"Director is up already{where} (process {served.pid})")
        self.served = served


def prepare(home: Path, say: Say) -> bool:
    """Make sure of engine, supervisor, packet filter and sandbox image; tells whether the engine
    was started now."""
    private_home(home)
    engine = ensure_engine(home, say)
    ensure_supervisor(home, say)
    ensure_filter(say)
    ensure_image(engine.client, say)
    engine.client.close()
    return engine.started


@contextmanager
def serving(
    home: Path, ports: Ports, say: Say, *, workers: int = 1, api_fixed: bool = False
) -> Iterator[Stack]:
    """Serve from a home while the block lasts. Raises ServedAlreadyError and StackError."""
    with _locked(home, say) as lock, Claims() as claims:
        say(f"Starting Temporal, API and {f'{workers} workers' if workers > 1 else 'worker'} …")
        ours = ports.claimed(claims, say, api_fixed=api_fixed)
        with Stack(home, ours, {}, workers=workers, held=lock) as stack:
            _write(home, Served(os.getpid(), stack.api, stack.ui))
            yield stack


def served(home: Path) -> Served | None:
    """Who serves from a home now, if somebody does."""
    found = _read(home) if _held(home) else None
    return found if found and alive(found.pid) else None


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
    _await_end(home)
    stopped = _containers(home)
    for container in stopped:
        say(f"Stopping sandbox {container.name} …")
        container.remove(force=True)
    stop_engine(home, say)
    say(f"Everything of this installation is stopped; its data stays in {home}")
    if stopped:
        say("Runs that were going repeat their present step, in their files, at the next start.")


def _await_end(home: Path) -> None:
    deadline = time.monotonic() + _STOP_SECONDS
    while _held(home):
        if time.monotonic() > deadline:
            raise StackError(_STUCK.format(_STOP_SECONDS, home / "up.json"))
        time.sleep(0.1)


def _watch(stack: Stack, stopped: threading.Event, say: Say) -> None:
    watch, look_at = Watch(stack, say), 0.0
    while not stopped.wait(_LOOK_SECONDS):
        watch.look()
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + (0 if keep_engine(stack.home, say) else _ENGINE_PAUSE)


def keep_engine(home: Path, say: Say) -> bool:
    """Start the engine again that was started from here and has ended, since nobody else does;
    False where it does not start."""
    if not lost_engine(home):
        return True
    say("The Docker engine that was started here has ended and is started again …")
    try:
        ensure_engine(home, say).client.close()
    except SetUpError as error:
        say(str(error))
        return False
    return True


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
def _locked(home: Path, say: Say) -> Iterator[IO[str]]:
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "up.json").open("a+") as file:
        _take(file, home, say)
        _write(home, Served(os.getpid()))
        yield file
        (home / "up.json").write_text("")


def _take(file: IO[str], home: Path, say: Say) -> None:
    """Take the lock. Whoever only looks holds it for a moment, and the parts of a Director that
    was killed hold it until they have ended; both are waited for."""
    begun, patience = time.monotonic(), _GLANCE_SECONDS
    while not _lock(file, fcntl.LOCK_EX):
        if time.monotonic() - begun > patience:
            if (found := served(home)) is not None:
                raise ServedAlreadyError(found)
            if patience == _STOP_SECONDS:
                raise StackError(_STUCK.format(_STOP_SECONDS, home / "up.json"))
            patience = _STOP_SECONDS
            say("The parts of the Director before are still ending …")
        time.sleep(0.05)


def _lock(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held(home: Path) -> bool:
    """Whether somebody serves from a home, or parts of one that was killed have not ended."""
    path = home / "up.json"
    if not path.exists():
        return False
    with path.open() as file:
        return not _lock(file, fcntl.LOCK_SH)


def _write(home: Path, served: Served) -> None:
    (home / "up.json").write_text(json.dumps(asdict(served)))


def _read(home: Path) -> Served | None:
    try:
        return Served(**json.loads((home / "up.json").read_text()))
    except (ValueError, TypeError):
        return None
