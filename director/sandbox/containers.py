"""A sandbox's container, as the engine sees it, and the engine's errors in plain words."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from requests.exceptions import RequestException

from director.sandbox.runtime import SandboxError

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

    def create(self, image: str, config: dict[str, Any]) -> None:
        """Make it; one of the same name that was made meanwhile is as good."""
        with engine_errors(f"create container {self.name}"):
            try:
                self._api.create_container(image, name=self.name, **config)
            except APIError as error:
                if error.status_code != HTTPStatus.CONFLICT:
                    raise

    def start(self) -> None:
        """Start it, or thaw it; one that runs stays as it is."""
        with engine_errors(f"start container {self.name}"):
            found = self._api.inspect_container(self.name)
            if found["State"]["Status"] == "paused":
                self._api.unpause(self.name)
            else:
                self._api.start(self.name)

    def kill(self) -> None:
        """End everything in it. Idempotent."""
        with engine_errors(f"kill container {self.name}"):
            try:
                self._api.kill(self.name)
            except APIError as error:
                if error.status_code not in (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT):
                    raise

    def remove(self) -> None:
        """Kill and remove it, and wait until it is gone. Idempotent."""
        if (found := self.inspect()) is None:
            return
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


def _sweep(container_id: str) -> None:
    """Kill what a removed container has left on this host: an engine that was killed while it
    started one forgets the shim and the half-made first process."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_bytes().split(b"\0")
            shim = Path(os.fsdecode(command[0])).name.startswith("containerd-shim")
            inside = container_id in (process / "cgroup").read_text()
            if inside or (shim and os.fsencode(container_id) in command):
                os.kill(int(process.name), signal.SIGKILL)
