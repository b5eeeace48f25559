"""The Docker engine: the one that answers, or one that is installed, started and stopped here."""

import fcntl
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import docker
from docker.constants import DEFAULT_TIMEOUT_SECONDS
from docker.errors import DockerException
from requests.exceptions import RequestException

from director.machine import apt, leftovers
from director.machine.apt import SetUpError
from director.networks.filter import installed as filter_installed
from director.sandbox import tools
from director.sandbox.runtime import SandboxError

Say = Callable[[str], None]

_FILTER = "libnftables1"
PACKAGES = ("docker.io", "iptables", "iproute2", "ca-certificates", _FILTER)
_PROGRAMS = ("dockerd", "ip")

_SOCKET = "unix:///var/run/docker.sock"
_ANSWER_SECONDS = 10
_START_SECONDS = 60
_STOP_SECONDS = 40
_DYING_SECONDS = 5
_CONTAINERD_PID = Path("/var/run/docker/containerd/containerd.pid")
_DAEMON_SETTINGS = Path("/etc/docker/daemon.json")


@dataclass(frozen=True)
class Engine:
    """A Docker engine that answers. `started` tells whether this very call started it."""

    client: docker.DockerClient
    version: str
    live_restore: bool
    started: bool


def ensure_engine(home: Path, say: Say) -> Engine:
    """Use the engine that answers, else install and start one as root on a Debian-like system.

    The one started here outlives this process; `stop_engine` ends it. Raises SetUpError with
    what to do."""
    state = _state(home)
    if engine := answering():
        _forget_dead(state)
        return engine
    _check_may_start()
    state.mkdir(parents=True, exist_ok=True)
    with _only_one(state):
        if engine := answering():
            return engine
        _forget_dead(state)
        if not all(map(shutil.which, _PROGRAMS)):
            say("No Docker engine answers: installing docker.io from the system's packages …")
            apt.install(PACKAGES, say)
        return _start(state, say)


def stop_engine(home: Path, say: Say = lambda _: None) -> bool:
    """Stop the engine that was started from this home and clear what it leaves in the kernel.

    False when there is none, or when containers still run in it, since they would lose it."""
    state = _state(home)
    pid, engine = _own_pid(state), answering(_SOCKET)
    running = len(engine.client.api.containers(quiet=True)) if engine else 0
    if engine:
        engine.client.close()
    if pid is None:
        # An engine of somebody else uses the same bridge and chains.
        if engine is None:
            leftovers.clear(state)
        return False
    if running:
        say(f"The Docker engine is left running: {running} containers run in it.")
        return False
    family = [pid, *_children(pid)]
    os.kill(pid, signal.SIGTERM)
    if not _await(lambda: not any(map(alive, family)), _STOP_SECONDS):
        raise SetUpError(f"dockerd (process {pid}) did not stop; its log: {_log(state)}")
    leftovers.clear(state)
    (state / "dockerd.pid").unlink(missing_ok=True)
    say("Stopped the Docker engine that was started here.")
    return True


def owns_engine(home: Path) -> bool:
    """Tell whether an engine that was started from this home runs."""
    return _own_pid(_state(home)) is not None


def lost_engine(home: Path) -> bool:
    """Tell whether an engine that was started from this home has ended and nobody stopped it."""
    return _pidfile(_state(home)).exists() and not owns_engine(home)


def alive(pid: int) -> bool:
    """Tell whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def answering(place: str | None = None) -> Engine | None:
    """The engine at `place`, else at DOCKER_HOST or the usual socket, if one answers.

    Raises SetUpError where one is there and this user may not use it."""
    environ = {"DOCKER_HOST": place} if place else os.environ
    address = environ.get("DOCKER_HOST", _SOCKET)
    if address.startswith("unix://") and not Path(address.removeprefix("unix://")).exists():
        return None
    try:
        client = docker.from_env(timeout=_ANSWER_SECONDS, environment=environ)
    except (DockerException, RequestException) as error:
        _refuse_forbidden(error)
        return None
    try:
        info = client.info()
    except (DockerException, RequestException):
        client.close()
        return None
    client.api.timeout = DEFAULT_TIMEOUT_SECONDS
    live = bool(info.get("LiveRestoreEnabled"))
    return Engine(client, str(info.get("ServerVersion", "")), live, started=False)


def ensure_supervisor(home: Path, say: Say) -> None:
    """Have the program that runs commands inside sandboxes below a home: made once, by a compiler
    that is installed as root on a Debian-like system where there is none. Raises SetUpError."""
    folder = home.absolute() / "tools"
    try:
        return tools.install_tools(folder)
    except SandboxError as error:
        if not apt.available() or os.geteuid() != 0:
            raise SetUpError(error.message) from error
    say(f"Installing {' and '.join(tools.PACKAGES)} from the system's packages …")
    apt.install(tools.PACKAGES, say)
    try:
        tools.install_tools(folder)
    except SandboxError as error:
        raise SetUpError(error.message) from error


def ensure_filter(say: Say) -> bool:
    """Find the library of the packet filter, or install it as root on a Debian-like system.

    Only networks of sandboxes need it: where it cannot be had that is said, and all else goes on.
    Tells whether it is here."""
    if filter_installed():
        return True
    why = ""
    if apt.available() and os.geteuid() == 0:
        say(f"Installing {_FILTER} from the system's packages …")
        try:
            apt.install([_FILTER], say)
        except SetUpError as error:
            why = f"\n{error}"
        if filter_installed():
            return True
    say(
        "libnftables is missing, so that networks of sandboxes are refused: install it, on Debian"
        f" and Ubuntu with `apt-get install {_FILTER}` as root{why}"
    )
    return False


def _refuse_forbidden(error: Exception) -> None:
    if "Permission denied" in str(error):
        raise SetUpError(
            "Docker is there, but this user may not use its socket: run as root, or add the"
            " user to the group `docker` and log in again"
        ) from error


def _check_may_start() -> None:
    place = os.environ.get("DOCKER_HOST")
    if place:
        raise SetUpError(f"no Docker engine answers at DOCKER_HOST={place}: start it, or unset it")
    if platform.system() != "Linux":
        raise SetUpError("no Docker engine answers: start Docker Desktop and try again")
    if os.geteuid() != 0:
        raise SetUpError(
            "no Docker engine answers, and only root can start one: start Docker (for example"
            " `sudo systemctl start docker`), or run this as root"
        )
    if not all(map(shutil.which, _PROGRAMS)) and not apt.available():
        raise SetUpError(
            "no Docker engine answers: install Docker and iproute2 with the system's packages"
        )
    if "cgroup" not in _mounted_types():
        raise SetUpError(
            "no control groups are mounted at /sys/fs/cgroup, without which Docker cannot start:"
            " a container needs --privileged, or the host's engine socket, for this"
        )


def _mounted_types() -> str:
    return " ".join(line.split()[2] for line in Path("/proc/mounts").read_text().splitlines())


def _start(state: Path, say: Say) -> Engine:
    say(f"No Docker engine answers: starting dockerd (log: {_log(state)}) …")
    leftovers.remember(state)
    _bury_containerd()
    pid = _spawn(["dockerd", "--pidfile", str(_pidfile(state)), *_live_restore()], _log(state))
    try:
        settled = _await(lambda: _answers() or not alive(pid), _START_SECONDS)
    except BaseException:
        # Whoever interrupts this stops the engine, and finds it by its pid file.
        _await(lambda: _own_pid(state) is not None or not alive(pid), _ANSWER_SECONDS)
        raise
    if settled and (engine := answering()):
        say(f"Docker {engine.version} answers.")
        return replace(engine, started=True)
    end = "\n".join(_log(state).read_text(errors="replace").splitlines()[-15:])
    raise SetUpError(f"dockerd does not answer. The end of {_log(state)}:\n{end}")


def _bury_containerd() -> None:
    """That of an engine that was killed dies too, a moment later; a new engine would rely on it
    until somebody has reaped it."""
    with suppress(OSError, ValueError):
        pid = int(_CONTAINERD_PID.read_text())
        if _await(lambda: not alive(pid), _DYING_SECONDS):
            _CONTAINERD_PID.unlink()


def _live_restore() -> list[str]:
    # dockerd refuses to start when a flag repeats what its settings file says.
    said = _DAEMON_SETTINGS.is_file() and "live-restore" in _DAEMON_SETTINGS.read_text()
    return [] if said else ["--live-restore"]


def _spawn(command: Sequence[str], log: Path) -> int:
    # The shell ends at once, so that the daemon is no child of this process and of its session.
    script = 'setsid "$@" > "$LOG" 2>&1 < /dev/null & echo $!'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *command],
        cwd="/",
        env=os.environ | {"LOG": str(log)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return int(done.stdout)


def _answers() -> bool:
    engine = answering()
    if engine:
        engine.client.close()
    return engine is not None


def _await(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextmanager
def _only_one(state: Path) -> Iterator[None]:
    with (state / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _own_pid(state: Path) -> int | None:
    try:
        pid = int(_pidfile(state).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    ours = words[0].endswith(b"dockerd") and os.fsencode(_pidfile(state)) in words
    return pid if ours and alive(pid) else None


def _forget_dead(state: Path) -> None:
    """Remove the pid file of an engine that was killed: its number may be somebody else's now."""
    if _own_pid(state) is None:
        _pidfile(state).unlink(missing_ok=True)


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return found


def _state(home: Path) -> Path:
    return home.absolute() / "engine"


def _pidfile(state: Path) -> Path:
    return state / "dockerd.pid"


def _log(state: Path) -> Path:
    return state / "dockerd.log"
