"""Sandboxes as containers of a Docker engine on this host."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker

from director.domain.sandboxes import (
    OUTPUT_LIMIT,
    TERM_GRACE_MS,
    Command,
    SandboxInfo,
    SandboxRecord,
    SandboxSpec,
)
from director.sandbox.containers import Container, engine_errors
from director.sandbox.executions import SUPERVISOR_SECONDS, SpoolExecution, Terms
from director.sandbox.folders import SandboxFolder
from director.sandbox.images import Image, Images
from director.sandbox.limits import Limits, container_config
from director.sandbox.runtime import SandboxError, SandboxNotFoundError
from director.sandbox.spool import Spool, unended
from director.sandbox.tools import install_tools
from director.sandbox.workspace import HostWorkspace

_STARTABLE = ("exited", "paused", "running")
"""Not `created`: one that the engine was starting when it was killed never starts any more."""


class DockerRuntime:
    """A `SandboxRuntime` on one engine, with the sandboxes' files under `home`.

    `aliases` maps names of images to such as are on this host. Two processes may use the same
    `home` at a time: everything that must not happen twice is decided by files in there."""

    def __init__(
        self,
        client: docker.DockerClient,
        home: Path,
        installation: str,
        aliases: Mapping[str, str],
        *,
        output_limit: int = OUTPUT_LIMIT,
        term_grace_ms: int = TERM_GRACE_MS,
        supervisor_seconds: float = SUPERVISOR_SECONDS,
    ) -> None:
        self._client = client
        self._home = home.resolve()
        self._installation = installation
        self._images = Images(client, aliases)
        self._terms = Terms(output_limit, term_grace_ms, supervisor_seconds)
        self._known_limits: Limits | None = None
        install_tools(self._home / "tools")

    def create(self, spec: SandboxSpec) -> SandboxInfo:
        """Make the sandbox, or adopt the one with this id and epoch: a stopped one is started
        again."""
        folder, container = self._folder(spec.id), self._container(spec.id)
        with folder.locked():
            adopted = self._adopt(spec, folder, container)
        if adopted is not None:
            return adopted
        self._limits().check(spec)
        image = self._images.resolve(spec.image)
        with folder.locked():
            return self._adopt(spec, folder, container) or self._make(
                spec, image, folder, container
            )

    def run(self, sandbox_id: str, command: Command) -> SpoolExecution:
        """Start a command, or attach to the one that has this id already."""
        folder = self._folder(sandbox_id)
        folder.require()
        try:
            Spool(folder, command.id).submit(
                command,
                keep=self._terms.keep,
                grace_ms=self._terms.grace_ms,
                processes=folder.max_processes(),
            )
        except FileNotFoundError:
            raise SandboxNotFoundError(sandbox_id) from None  # it was removed meanwhile
        container = self._container(sandbox_id)
        return SpoolExecution(folder, container, command.id, command.timeout_ms, self._terms)

    def workspace(self, sandbox_id: str) -> HostWorkspace:
        """The files of a sandbox. Raises SandboxNotFoundError."""
        folder = self._folder(sandbox_id)
        folder.require()
        return HostWorkspace(folder.workspace)

    def own(self, sandbox_id: str) -> None:
        """Give every file in the workspace to the sandbox's user, after the host wrote there."""
        folder = self._folder(sandbox_id)
        folder.require()
        folder.own_workspace()

    def quiet(self, sandbox_id: str) -> None:
        """Kill every command that goes on in it and wait for their ends."""
        folder = self._folder(sandbox_id)
        going = [
            SpoolExecution(folder, self._container(sandbox_id), command_id, 0, self._terms)
            for command_id in unended(folder)
        ]
        for execution in going:
            execution.kill()
        for execution in going:
            if execution.wait(2 * self._terms.supervisor_seconds) is None:
                message = f"a command of sandbox {sandbox_id} did not end when it was killed"
                raise SandboxError(message, retryable=True)

    def remove(self, sandbox_id: str, *, epoch: int | None = None) -> None:
        """Kill everything in it, remove container and files; with an epoch, only while the
        sandbox is of that one. Idempotent."""
        folder, container = self._folder(sandbox_id), self._container(sandbox_id)
        with folder.locked():
            if epoch is None or epoch == self._epoch_of(folder, container):
                container.remove()
                folder.remove()

    def _epoch_of(self, folder: SandboxFolder, container: Container) -> int | None:
        if (found := container.inspect()) is not None:
            return _epoch(found["Config"]["Labels"])
        return folder.record().epoch if folder.root.exists() else None

    def sandboxes(self) -> Sequence[SandboxRecord]:
        """Every sandbox here, by id, also one that lost a half."""
        found = self._folders()
        with engine_errors("list the sandboxes"):
            listed = self._client.api.containers(
                all=True, filters={"label": f"director.installation={self._installation}"}
            )
        for container in listed:
            record = _record(container)
            found[record.id] = record
        return [found[id] for id in sorted(found)]

    def _folders(self) -> dict[str, SandboxRecord]:
        root = self._home / "sandboxes"
        if not root.exists():
            return {}
        found = {}
        for entry in root.iterdir():
            with suppress(FileNotFoundError):  # it is being removed
                if entry.is_dir():
                    found[entry.name] = self._folder(entry.name).record()
        return found

    def _folder(self, sandbox_id: str) -> SandboxFolder:
        return SandboxFolder(self._home, sandbox_id)

    def _container(self, sandbox_id: str) -> Container:
        return Container(self._client, self._installation, sandbox_id)

    def _limits(self) -> Limits:
        if self._known_limits is None:
            with engine_errors("ask for its abilities"):
                self._known_limits = Limits(self._client.info())
        return self._known_limits

    def _adopt(
        self, spec: SandboxSpec, folder: SandboxFolder, container: Container
    ) -> SandboxInfo | None:
        """Take over a container that is there; remove one that cannot be used."""
        found = container.inspect()
        if found is not None and _epoch(found["Config"]["Labels"]) > spec.epoch:
            message = f"sandbox {spec.id} was made anew meanwhile, for a later try"
            raise SandboxError(message, retryable=True)
        if found is not None and not _usable(found, spec, folder):
            container.remove()
            found = None
        folder.keep_only(spec.epoch)
        if found is None:
            return None
        if found["State"]["Status"] != "running":
            _start(container)
        return _info(spec, found["Config"]["Labels"]["director.image"], created=False)

    def _make(
        self, spec: SandboxSpec, image: Image, folder: SandboxFolder, container: Container
    ) -> SandboxInfo:
        folder.make(spec)
        config = container_config(
            self._client,
            folder,
            self._limits().of(spec),
            self._labels(spec, image),
            image.environment,
        )
        container.create(image.id, config)
        _start(container)
        return _info(spec, image.name, created=True)

    def _labels(self, spec: SandboxSpec, image: Image) -> dict[str, str]:
        return {
            "director.installation": self._installation,
            "director.sandbox": spec.id,
            "director.owner": spec.owner_id,
            "director.epoch": str(spec.epoch),
            "director.image": image.name,
        }


def _start(container: Container) -> None:
    """Start a container, or remove one that cannot be: its files stay, and it is made anew."""
    try:
        container.start()
    except SandboxError:
        container.remove()
        raise


def _usable(found: dict[str, Any], spec: SandboxSpec, folder: SandboxFolder) -> bool:
    """Tell whether a container can be adopted: its files are there and it is of this epoch."""
    if not folder.complete() or found["State"]["Status"] not in _STARTABLE:
        return False
    return _epoch(found["Config"]["Labels"]) == spec.epoch == folder.record().epoch


def _record(listed: dict[str, Any]) -> SandboxRecord:
    labels = listed["Labels"]
    return SandboxRecord(
        id=labels["director.sandbox"],
        owner=labels["director.owner"],
        epoch=_epoch(labels),
        made_at=datetime.fromtimestamp(listed["Created"], UTC),
    )


def _epoch(labels: Mapping[str, str]) -> int:
    return int(labels.get("director.epoch", 0))


def _info(spec: SandboxSpec, resolved_image: str, *, created: bool) -> SandboxInfo:
    return SandboxInfo(id=spec.id, image=spec.image, resolved_image=resolved_image, created=created)
