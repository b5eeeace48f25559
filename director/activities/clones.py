"""Repositories that workspaces are filled from: cloned by git in a sandbox of its own, which
reaches the repository's host and nothing else."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from director.activities.networks import HostNetworks
from director.blobs.borrowed import BorrowedBlobs
from director.blobs.store import Blobs
from director.domain.addresses import literal
from director.domain.errors import ConflictError, PayloadTooLargeError, UnavailableError
from director.domain.git import Cloned, GitSource, GitTerms, is_commit
from director.domain.ids import NETWORK, new_id
from director.domain.sandboxes import Cause, Command, CommandResult, SandboxNetwork, SandboxSpec
from director.domain.trees import Tree
from director.networks.filter import FilterError
from director.sandbox.runtime import Execution, SandboxError, SandboxRuntime

log = structlog.get_logger()

CLONE_MS = 600_000
"""How long a clone may take."""

_PREFIX = "clone-"
_LEAST_MIB = 512
"""Memory that git gets where the sandbox that it is for has less; that one stands idle."""

_LOOK = 0.1
_MOST_ADDRESSES = 32
_SAID = 64 * 1024
_TELLING = re.compile(r"^(?:fatal|error): .*", re.MULTILINE)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")
_FULL = ("No space left on device", "unable to write file", "write error")
"""What git says where a disk is full; it does not always say that it is."""
_HINTS = (
    (
        re.compile(r"returned error: 30\d"),
        "redirects are not followed: give the URL that it leads to",
    ),
    (
        re.compile(r"could not read Username|returned error: 40[13]|Authentication failed"),
        "a login is asked for, and there are no credentials yet: only repositories that everybody"
        " may read can be cloned",
    ),
    (
        re.compile(r"certificate|CAfile|SSL|TLS", re.IGNORECASE),
        "certificates of your own are trusted where DIRECTOR_GIT_CA_FILE has them",
    ),
)


@contextmanager
def network_errors(*, lasting: bool = True) -> Iterator[None]:
    """Turn what a network lacks into SandboxError. A packet filter that cannot be used keeps a
    sandbox from being made, which says so; in one that is there it worked before, and may again."""
    try:
        yield
    except ConflictError as error:
        raise SandboxError(error.message, retryable=False) from error
    except FilterError as error:
        raise SandboxError(error.message, retryable=not lasting) from error
    except UnavailableError as error:
        raise SandboxError(error.message, retryable=True) from error


@dataclass(frozen=True)
class Clone:
    """A repository that was cloned: its files, and where their contents are."""

    tree: Tree
    blobs: Blobs
    of: Cloned


@dataclass(frozen=True)
class Clones:
    """Clones repositories on this host. Of a clone that did not come to its end nothing is used:
    whoever wants it begins anew."""

    runtime: SandboxRuntime
    image: str
    terms: GitTerms
    networks: HostNetworks | None = None

    def is_abandoned(self, sandbox_id: str) -> bool:
        """Whether a sandbox is one in which somebody cloned who does not live any more."""
        if self.networks is None or not sandbox_id.startswith(_PREFIX):
            return False
        return not self.networks.leased.is_held(sandbox_id.removeprefix(_PREFIX))

    @contextmanager
    def cloned(
        self, source: GitSource, spec: SandboxSpec, others: Blobs, check: Callable[[], None]
    ) -> Iterator[Clone]:
        """Clone a repository for a sandbox, under its limits; the files are there while the block
        lasts. `check` is called now and then, and what it raises ends the cloning.

        Raises SandboxError: retryable where this host failed, not so where the repository did."""
        if self.networks is None:
            raise SandboxError("networks are not served by this worker", retryable=False)
        id, addresses = new_id(NETWORK), self._addresses(source, self.networks)
        with ExitStack() as stack:
            opened = self.networks.opened(id, addresses, source.port)
            with network_errors():
                network = stack.enter_context(opened)
            stack.callback(self._remove, _PREFIX + id)
            git = self._spec(id, spec, network, source, addresses)
            yield self._made(git, source, others, check)

    def _addresses(self, source: GitSource, networks: HostNetworks) -> list[IPv4Address]:
        """What the name of a repository's host leads to now. All of it must be allowed: these very
        addresses are what git can reach."""
        try:
            found = networks.names.addresses(source.host)
        except OSError as error:
            message = f"host {source.host} of the repository could not be looked up: {error}"
            raise SandboxError(message, retryable=False) from error
        for each in found:
            if (why := self.terms.refusal(each)) is not None:
                message = f"the repository is not cloned, its host {source.host} is refused: {why}"
                raise SandboxError(message, retryable=False)
        return found[:_MOST_ADDRESSES]

    def _spec(
        self,
        id: str,
        spec: SandboxSpec,
        network: SandboxNetwork,
        source: GitSource,
        addresses: list[IPv4Address],
    ) -> SandboxSpec:
        known = {} if literal(source.host) else {source.host: [str(each) for each in addresses]}
        return SandboxSpec(
            id=_PREFIX + id,
            image=self.terms.image or self.image,
            owner_id=spec.owner_id,
            epoch=spec.epoch,
            memory_mib=max(spec.memory_mib, _LEAST_MIB),
            cpus=spec.cpus,
            disk_mib=spec.disk_mib,
            read_only_root=True,
            network=network.model_copy(update={"names": known}),
        )

    def _made(
        self, spec: SandboxSpec, source: GitSource, others: Blobs, check: Callable[[], None]
    ) -> Clone:
        self.runtime.create(spec)
        check()
        execution = self.runtime.run(spec.id, self._command(source))
        while (result := execution.wait(_LOOK)) is None:
            check()
        if result.exit_code or result.cause is not Cause.EXIT:
            raise _failure(spec, result, execution)
        commit = execution.read("stdout", 0, 100).decode(errors="replace").strip()
        if not is_commit(commit):
            raise SandboxError("git did not say which commit it has cloned", retryable=False)
        self.runtime.stop(spec.id, 0)  # from now on nobody changes a file
        blobs = BorrowedBlobs(Path(self.runtime.workspace(spec.id).path()), others)
        log.info("repository cloned", url=source.url, commit=commit)
        return Clone(
            _whole(blobs, check), blobs, Cloned(url=source.url, ref=source.ref, commit=commit)
        )

    def _command(self, source: GitSource) -> Command:
        script = resources.files("director.sandbox").joinpath("clone.sh").read_text()
        trusted = self._trusted()
        return Command(
            id="clone",
            argv=["/bin/sh", "-c", script],
            environment={
                "URL": source.url,
                "REF": source.ref or "",
                "EXACT": "yes" if source.exact else "",
                "TRUST": "yes" if trusted else "",
            },
            stdin=trusted,
            timeout_ms=CLONE_MS,
        )

    def _trusted(self) -> bytes | None:
        """Read for each clone: certificates are renewed while the worker runs."""
        if (path := self.terms.ca_file) is None:
            return None
        try:
            return path.read_bytes()
        except OSError as error:
            message = f"DIRECTOR_GIT_CA_FILE: cannot read {path}: {error.strerror}"
            raise SandboxError(message, retryable=False) from error

    def _remove(self, sandbox_id: str) -> None:
        with suppress(SandboxError):  # then the reaper does
            self.runtime.remove(sandbox_id)


def _whole(blobs: BorrowedBlobs, check: Callable[[], None]) -> Tree:
    try:
        found = blobs.captured(check)
    except PayloadTooLargeError as error:
        message = f"the repository is too large: {error.message}"
        raise SandboxError(message, retryable=False) from None
    if found.skipped:
        first = found.skipped[0]
        message = f"the repository cannot be taken over: {first.path!r} {first.reason}"
        raise SandboxError(message, retryable=False)
    return found.tree


def _failure(spec: SandboxSpec, result: CommandResult, execution: Execution) -> SandboxError:
    if result.cause is Cause.LOST:
        return SandboxError("the sandbox in which git cloned was lost", retryable=True)
    why = _why(spec, result, execution)
    return SandboxError(f"the repository could not be cloned: {why}", retryable=False)


def _why(spec: SandboxSpec, result: CommandResult, execution: Execution) -> str:
    if result.cause is Cause.TIMEOUT:
        return f"it took longer than {CLONE_MS // 60_000} minutes"
    if result.cause is Cause.OOM:
        return f"git ran out of its memory of {spec.memory_mib} MiB; give the sandbox more"
    if result.exit_code == 127:
        return f"image {spec.image} has no git or no shell: name another in DIRECTOR_GIT_IMAGE"
    said = execution.read("stderr", max(0, result.stderr_bytes - _SAID), _SAID)
    text = said.decode(errors="replace")
    if spec.disk_mib is not None and any(full in text for full in _FULL):
        return f"git cannot write its files: do they fit a disk of {spec.disk_mib} MiB?"
    told = "; ".join(_TELLING.findall(text)[:3]) or text.strip()[-300:] or "git said nothing"
    hints = [hint for pattern, hint in _HINTS if pattern.search(told)]
    return "; ".join([_UNPRINTABLE.sub(" ", told)[:600], *hints[:1]])
