"""Sandboxes as containers of a Docker engine on this host."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker

from director.domain.policies import Holding
from director.domain.sandboxes import (
    OUTPUT_LIMIT,
    TERM_GRACE_MS,
    Command,
    SandboxInfo,
    SandboxMetrics,
    SandboxRecord,
    SandboxSpec,
)
from director.domain.times import utc_now
from director.sandbox.containers import Container, engine_errors
from director.sandbox.executions import SUPERVISOR_SECONDS, SpoolExecution, Terms
from director.sandbox.folders import SandboxFolder
from director.sandbox.images import Image, Images
from director.sandbox.limits import Plan, container_config, plan
from director.sandbox.metrics import Groups, measure, network_usage
from director.sandbox.probe import Probe, probe
from director.sandbox.runtime import CPU_WINDOW_SECONDS, SandboxError, SandboxNotFoundError
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
        self._known_probe: Probe | None = None
        install_tools(self._home / "tools")

    def create(
        self, spec: SandboxSpec, *, pulling: Callable[[], None] | None = None
    ) -> SandboxInfo:
        """Make the sandbox, or adopt the one with this id and epoch: a stopped one is started
        again."""
        folder, container = self._folder(spec.id), self._container(spec.id)
        pulled: Image | None = None
        while True:
            with folder.locked():
                if (adopted := self._adopt(spec, folder, container)) is not None:
                    return adopted
                planned = plan(spec, self.probe(), folder.root)
                if (image := pulled or self._images.present(spec.image)) is not None:
                    return self._make(spec, planned, image, folder, container)
            if pulling is not None:
                pulling()
            pulled = self._images.pulled(spec.image)

    def runs(self, sandbox_id: str, *, epoch: int) -> bool:
        """Whether the sandbox runs as it was made for that epoch: `create` would start nothing."""
        folder, found = self._folder(sandbox_id), self._container(sandbox_id).inspect()
        if found is None or found["State"]["Status"] != "running":
            return False
        return folder.complete() and _is_of(found, folder, epoch)

    def run(self, sandbox_id: str, command: Command) -> SpoolExecution:
        """Start a command, or attach to the one that has this id already."""
        folder = self._folder(sandbox_id)
        folder.require()
        folder.make_room_for_records()
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

    def quiet(self, sandbox_id: str, which: Callable[[str], bool] | None = None) -> None:
        """Kill every command that goes on in it, or those of some ids, and wait for their
        ends."""
        folder = self._folder(sandbox_id)
        container = self._container(sandbox_id)
        going = [
            SpoolExecution(folder, container, command_id, 0, self._terms)
            for command_id in unended(folder)
            if which is None or which(command_id)
        ]
        for execution in going:
            execution.kill()
        for execution in going:
            if self._ended_within(execution, 2 * self._terms.supervisor_seconds):
                continue
            with folder.locked():  # what it says of itself cannot be believed, or it says nothing
                container.kill()

    def pause(self, sandbox_id: str) -> None:
        """Hold every process in it where it is. Idempotent."""
        with self._folder(sandbox_id).locked():
            self._container(sandbox_id).freeze()

    def resume(self, sandbox_id: str) -> None:
        """Let what was held go on. Idempotent."""
        with self._folder(sandbox_id).locked():
            self._container(sandbox_id).thaw()

    def stop(self, sandbox_id: str, grace_seconds: float) -> None:
        """Ask every command to end, KILL what has not ended after so long, and stop the container;
        the files stay. Idempotent."""
        folder, container = self._folder(sandbox_id), self._container(sandbox_id)
        with folder.locked():
            container.thaw()
        going = unended(folder)
        if going and container.end_commands():
            deadline = time.monotonic() + grace_seconds
            for command_id in going:
                execution = SpoolExecution(folder, container, command_id, 0, self._terms)
                self._ended_within(execution, max(0.0, deadline - time.monotonic()))
        with folder.locked():
            container.kill()

    def _ended_within(self, execution: SpoolExecution, seconds: float) -> bool:
        """Whether a command ends within so long, and left records that can be read: whoever ends
        a sandbox must not be kept from it by what lies in there."""
        try:
            return execution.wait(seconds) is not None
        except SandboxError:
            return False

    def limit(self, spec: SandboxSpec) -> None:
        """Give a sandbox that runs less memory, cpu or processes, at once."""
        folder, container = self._folder(spec.id), self._container(spec.id)
        ceilings = plan(spec, self.probe(), folder.root).host_config
        with folder.locked():
            folder.require()
            _check_memory(spec, container.inspect())
            container.limit(ceilings)
            folder.limit_processes(spec.max_processes)

    def remake(self, spec: SandboxSpec) -> SandboxInfo:
        """Give a sandbox a new container; all that runs in it is killed, its files stay."""
        folder, container = self._folder(spec.id), self._container(spec.id)
        folder.require()
        planned = plan(spec, self.probe(), folder.root)
        image = self._image_of(spec, container)
        self.quiet(spec.id)
        with folder.locked():
            folder.require()
            if folder.record().epoch != spec.epoch:
                message = f"sandbox {spec.id} was made anew meanwhile, for a later try"
                raise SandboxError(message, retryable=True)
            container.remove()
            try:
                return self._make(spec, planned, image, folder, container)
            except SandboxError as error:
                told = f"{error.message}; its commands were killed, and it starts at its next use"
                raise SandboxError(told, retryable=error.retryable) from error

    def metrics(self, sandbox_id: str, *, window: float = CPU_WINDOW_SECONDS) -> SandboxMetrics:
        """What it uses now, its cpu over so many seconds, or with 0 on average since it was
        started. Raises SandboxNotFoundError where it does not run."""
        folder = self._folder(sandbox_id)
        folder.require()
        found = self._container(sandbox_id).inspect()
        if found is None or not found["State"]["Running"]:
            raise SandboxNotFoundError(sandbox_id)
        begun = datetime.fromisoformat(found["State"]["StartedAt"][:23].rstrip("Z"))
        begun = begun.replace(tzinfo=UTC)
        uptime = int((utc_now() - begun).total_seconds() * 1000)
        try:
            groups = Groups.of(found["State"]["Pid"])
            used = measure(groups, max(0, uptime), folder.disk_usage(), window=window)
            return used.model_copy(update={"network": network_usage(found["State"]["Pid"])})
        except (FileNotFoundError, ProcessLookupError):
            raise SandboxNotFoundError(sandbox_id) from None  # it ended meanwhile

    def tell_names(
        self, sandbox_id: str, resolvers: Sequence[str], names: Mapping[str, Sequence[str]]
    ) -> None:
        """Have a sandbox that is on a network know whom to ask for names, and these names."""
        folder = self._folder(sandbox_id)
        with suppress(FileNotFoundError):  # it is being removed
            if folder.complete():
                folder.tell_names(resolvers, names)

    def retire(self, sandbox_id: str, *, epoch: int, wanted: Callable[[], bool]) -> None:
        """Kill everything in it and remove its container, if it is of that epoch and it is
        wanted while the sandbox is locked; the files stay."""
        folder, container = self._folder(sandbox_id), self._container(sandbox_id)
        with folder.locked():
            found = container.inspect()
            if found is not None and _epoch(found["Config"]["Labels"]) == epoch and wanted():
                container.remove(found)

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

    def probe(self) -> Probe:
        """What this host can hold of a sandbox's limits; asked once."""
        if self._known_probe is None:
            with engine_errors("ask for its abilities"):
                self._known_probe = probe(self._client, self._client.info())
        return self._known_probe

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
        if (status := found["State"]["Status"]) != "running":
            folder.attach()
            _start(container, paused=status == "paused")
        held = plan(spec, self.probe(), folder.root).held
        return _info(spec, found["Config"]["Labels"]["director.image"], held, created=False)

    def _make(
        self,
        spec: SandboxSpec,
        planned: Plan,
        image: Image,
        folder: SandboxFolder,
        container: Container,
    ) -> SandboxInfo:
        folder.make(spec, planned.room)
        labels = self._labels(spec, image)
        config = container_config(self._client, planned, folder, labels, image)
        container.create(image.id, config)
        try:
            _start(container)
        except SandboxError as error:
            raise _explained(error, spec) from error
        return _info(spec, image.name, planned.held, created=True)

    def _image_of(self, spec: SandboxSpec, container: Container) -> Image:
        """The image that a sandbox has, though its name may mean another by now."""
        found = container.inspect()
        if found is not None and (image := self._images.present(found["Image"])) is not None:
            return image._replace(name=found["Config"]["Labels"]["director.image"])
        return self._images.present(spec.image) or self._images.pulled(spec.image)

    def _labels(self, spec: SandboxSpec, image: Image) -> dict[str, str]:
        return {
            "director.installation": self._installation,
            "director.sandbox": spec.id,
            "director.owner": spec.owner_id,
            "director.epoch": str(spec.epoch),
            "director.image": image.name,
        }


def _check_memory(spec: SandboxSpec, found: dict[str, Any] | None) -> None:
    """Raise SandboxNotFoundError where it does not run, SandboxError where it uses more memory than
    it is to have: the kernel would refuse the limit, or kill for it."""
    if found is None or not found["State"]["Running"]:
        raise SandboxNotFoundError(spec.id)
    try:
        used = Groups.of(found["State"]["Pid"]).memory_used() // 2**20
    except (FileNotFoundError, ProcessLookupError):
        raise SandboxNotFoundError(spec.id) from None  # it ended meanwhile
    if used >= spec.memory_mib:
        message = f"sandbox {spec.id} uses {used} MiB now, more than {spec.memory_mib}"
        raise SandboxError(f"{message}: end what uses it, or recreate it", retryable=False)


def _start(container: Container, *, paused: bool = False) -> None:
    """Start a container, or remove one that cannot be: its files stay, and it is made anew."""
    try:
        container.thaw() if paused else container.start()
    except SandboxError:
        container.remove()
        raise


def _explained(error: SandboxError, spec: SandboxSpec) -> SandboxError:
    """Say which of the allowed paths is a file in the image, where that is why nothing starts."""
    if "not a directory" not in error.message:
        return error
    for path in spec.allowed_paths:
        if f"{path}:" in error.message or f'{path}"' in error.message:
            told = (
                f"allowedPaths: {path} is a file in image {spec.image}: name the folder it lies in"
            )
            return SandboxError(told, retryable=False)
    return error


def _usable(found: dict[str, Any], spec: SandboxSpec, folder: SandboxFolder) -> bool:
    """Tell whether a container can be adopted: its files are there, it is of this
    epoch, and it would not start on a network that it is not on."""
    status = found["State"]["Status"]
    if not folder.complete() or status not in _STARTABLE:
        return False
    if status == "exited" and not _starts_on(found, spec):
        return False
    return _is_of(found, folder, spec.epoch)


def _is_of(found: dict[str, Any], folder: SandboxFolder, epoch: int) -> bool:
    return _epoch(found["Config"]["Labels"]) == epoch == folder.record().epoch


def _starts_on(found: dict[str, Any], spec: SandboxSpec) -> bool:
    """Tell whether a container would start on the network that it is to be on: one that was taken
    out of its network would be put back."""
    wanted = spec.network.name if spec.network is not None else "none"
    return bool(found["HostConfig"]["NetworkMode"] == wanted)


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


def _info(
    spec: SandboxSpec, resolved_image: str, held: Mapping[str, Holding], *, created: bool
) -> SandboxInfo:
    return SandboxInfo(
        id=spec.id,
        image=spec.image,
        resolved_image=resolved_image,
        created=created,
        held=dict(held),
    )
