"""A sandbox's container, as the engine sees it, and the engine's errors in plain words."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from director.sandbox.runtime import SandboxError

_COMMAND = b"DIRECTOR_EXECUTION="
"""What the supervisor starts carries this variable; neither it nor its shells do."""

_CEILINGS = {
    "Memory": "mem_limit",
    "MemorySwap": "memswap_limit",
    "NanoCpus": "nano_cpus",
    "PidsLimit": "pids_limit",
}
_GONE = ("exited", "dead", "removing")


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn whatever the engine answers into a SandboxError that says what we were doing."""
    try:
        yield
    except APIError as error:
        text = str(error.explanation or error)[-500:]
        raise SandboxError(
            f"the Docker engine failed to {doing}: {text}", retryable=error.is_server_error()
        ) from error
    except (DockerException, RequestException, OSError) as error:
        raise SandboxError(
            f"the Docker engine does not answer (to {doing}): {error}", retryable=True
        ) from error


class Container:
    """The container of one sandbox of one installation."""

    def __init__(self, client: docker.DockerClient, installation: str, sandbox_id: str) -> None:
        self._api = client.api
        self._installation = installation
        self.name = f"director-{sandbox_id}"

    def inspect(self) -> dict[str, Any] | None:
        """Ask for its description; None when there is none. Raises SandboxError when it is
        somebody else's."""
        with engine_errors(f"look at container {self.name}"):
            try:
                found: dict[str, Any] = self._api.inspect_container(self.name)
            except NotFound:
                return None
        labels = found["Config"]["Labels"] or {}
        if labels.get("director.installation") != self._installation:
            raise SandboxError(
                f"container {self.name} belongs to another installation of Director:"
                " give this one its own home or stop the other",
                retryable=False,
            )
        return found

    def ended(self) -> bool:
        """Tell whether it is certain that nothing runs in it any more.

        An engine that does not answer proves nothing: with live-restore its containers live."""
        try:
            found = self.inspect()
        except SandboxError:
            return False
        return found is None or found["State"]["Status"] in _GONE

    def running(self) -> bool:
        """Tell whether it is certain that it runs, and is not held."""
        try:
            return self._status() == "running"
        except SandboxError:
            return False

    def create(self, image: str, config: dict[str, Any]) -> None:
        """Make it; one of the same name that was made meanwhile is as good."""
        with engine_errors(f"create container {self.name}"):
            try:
                self._api.create_container(image, name=self.name, **config)
            except APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:
                    raise

    def start(self) -> None:
        """Start it; one that runs stays as it is."""
        with engine_errors(f"start container {self.name}"):
            self._api.start(self.name)

    def limit(self, ceilings: Mapping[str, Any]) -> None:
        """Change its ceilings where it runs; they are named as for its making."""
        told = {name: ceilings[key] for name, key in _CEILINGS.items() if key in ceilings}
        api: Any = self._api  # whose own method for this knows neither cpus nor processes
        with engine_errors(f"limit container {self.name}"):
            url = api._url("/containers/{0}/update", self.name)
            api._raise_for_status(api._post_json(url, data=told))

    def freeze(self) -> None:
        """Hold all that runs in it. Idempotent."""
        if self._status() == "running":
            with engine_errors(f"pause container {self.name}"):
                self._api.pause(self.name)

    def thaw(self) -> None:
        """Let it go on where it was held. Idempotent."""
        if self._status() == "paused":
            with engine_errors(f"let container {self.name} go on"):
                self._api.unpause(self.name)

    def _status(self) -> str | None:
        found = self.inspect()
        return found["State"]["Status"] if found is not None else None

    def end_commands(self) -> bool:
        """Send TERM to every command and what it started; False where nothing runs.

        From the host: a program that the engine would start in there for that can be stopped by
        the very commands, and the engine then tells nothing of the container any more."""
        found = self.inspect()
        if found is None or found["State"]["Status"] != "running":
            return False
        for process in _inside(found["Id"]):
            with suppress(OSError):
                pid = os.pidfd_open(int(process.name))
                try:
                    if _is_command(process, found["Id"]):
                        signal.pidfd_send_signal(pid, signal.SIGTERM)
                finally:
                    os.close(pid)
        return True

    def kill(self) -> None:
        """End everything in it. Idempotent."""
        with engine_errors(f"kill container {self.name}"):
            try:
                self._api.kill(self.name)
            except APIError as error:
                if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                    raise

    def remove(self, found: dict[str, Any] | None = None) -> None:
        """Kill and remove it, and wait until it is gone; `found` is what `inspect` has told just
        now. Idempotent."""
        if (found := found or self.inspect()) is None:
            return
        _kill_first(found)
        with engine_errors(f"remove container {self.name}"):
            try:
                self._api.remove_container(self.name, v=True, force=True)
            except NotFound:
                return
            except APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:  # somebody else is removing it
                    raise
                self._wait_removed()
        if found["State"]["Status"] != "running":
            _sweep(found["Id"])

    def _wait_removed(self) -> None:
        try:
            self._api.wait(self.name, condition="removed", timeout=30)
        except NotFound:
            return


def _kill_first(found: dict[str, Any]) -> None:
    """KILL a container's first process, and so all of them, where it is this host's and ours to
    kill: the engine, which does the same for any other, starts a program of its own for that."""
    if not (pid := found["State"].get("Pid")):
        return
    with suppress(OSError):
        process = os.pidfd_open(pid)
        try:
            if found["Id"] in Path(f"/proc/{pid}/cgroup").read_text():
                signal.pidfd_send_signal(process, signal.SIGKILL)
        finally:
            os.close(process)


def _inside(container_id: str) -> Iterator[Path]:
    """The processes of a container."""
    return _processes(lambda process: _is_inside(process, container_id))


def _processes(which: Callable[[Path], bool]) -> Iterator[Path]:
    """Some processes of this host, below `/proc`."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if which(process):
                yield process


def _is_inside(process: Path, container_id: str) -> bool:
    return container_id in (process / "cgroup").read_text()


def _is_command(process: Path, container_id: str) -> bool:
    """Whether a process is of a command of that container, seen while its pid is held."""
    variables = (process / "environ").read_bytes().split(b"\0")
    inside = _is_inside(process, container_id)
    return inside and any(variable.startswith(_COMMAND) for variable in variables)


def _is_shim(process: Path, container_id: str) -> bool:
    """Whether a process is what the engine leaves beside a container of its own."""
    command = (process / "cmdline").read_bytes().split(b"\0")
    shim = Path(os.fsdecode(command[0])).name.startswith("containerd-shim")
    return shim and os.fsencode(container_id) in command


def _sweep(container_id: str) -> None:
    """Kill what a removed container has left on this host: an engine that was killed while it
    started one forgets the shim and the half-made first process."""
    left = _processes(lambda each: _is_inside(each, container_id) or _is_shim(each, container_id))
    for process in left:
        with suppress(OSError):
            os.kill(int(process.name), signal.SIGKILL)
