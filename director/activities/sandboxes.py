"""The sandbox of a run: made with its files at the first step, removed when the run settles."""

import errno
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path

import structlog

from director.activities.clones import Clones, network_errors
from director.activities.jobs import StepJob
from director.activities.networks import HostNetworks
from director.blobs import archives, trees
from director.blobs.store import Blobs, get_tree
from director.domain.archives import WorkspaceSource
from director.domain.base import Json
from director.domain.checkpoints import Manifest
from director.domain.git import Cloned, GitTerms
from director.domain.ids import RUN, SANDBOX
from director.domain.lifetimes import SandboxStatus
from director.domain.networks import POOL
from director.domain.policies import EffectivePolicy
from director.domain.runs import RunStatus
from director.domain.sandboxes import SandboxInfo, SandboxNetwork, SandboxSpec
from director.domain.trees import Tree, merge
from director.domain.workflows import SandboxConfig
from director.sandbox.runtime import SandboxError, SandboxRuntime
from director.store import executions, placement, sandboxes, steps
from director.store.engine import Store
from director.store.placement import Claim
from director.store.steps import StaleAttemptError
from director.store.tables import ArchiveRow, CheckpointRow, NetworkRow, RunRow, SandboxRow

log = structlog.get_logger()

_NOT_PLACED = {
    Claim.ELSEWHERE: "the sandbox of the run is on another host",
    Claim.FULL: "no place is free on this host",
    Claim.IMPOSSIBLE: "no host has {} MiB of memory for a sandbox: ask for less, or raise"
    " DIRECTOR_MEMORY",
}


_LOOK_SECONDS = 0.2

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the kernel says where a disk has no room for more."""


class NotPlacedError(SandboxError):
    """The sandbox cannot be on this host: on `host_id` instead, or nowhere yet."""

    def __init__(self, claim: Claim, memory_mib: int, host_id: str | None) -> None:
        message = _NOT_PLACED[claim].format(memory_mib)
        super().__init__(message, retryable=claim is not Claim.IMPOSSIBLE)
        self.host_id = host_id


def sandbox_id(run_id: str) -> str:
    """The sandbox of a run has the run's own name."""
    return SANDBOX + run_id.removeprefix(RUN)


def run_id(sandbox_id: str) -> str:
    """The run of a sandbox, by its name."""
    return RUN + sandbox_id.removeprefix(SANDBOX)


@dataclass(frozen=True)
class Sandboxes:
    """Makes and removes the sandboxes of runs on this host."""

    store: Store
    blobs: Blobs
    runtime: SandboxRuntime
    host_id: str
    image: str
    """The image of runs that name none."""
    networks: HostNetworks | None = None
    disk_mib: int | None = None
    """How large the disk of a run's sandbox is where nobody bounds it; None: as the host's."""

    git: GitTerms = field(default_factory=GitTerms)

    @property
    def pool(self) -> IPv4Network:
        """Where subnets are taken from that nobody named."""
        return self.networks.pool if self.networks is not None else POOL

    @property
    def clones(self) -> Clones:
        """What clones repositories into workspaces."""
        return Clones(self.runtime, self.image, self.git, self.networks)

    def prepare(self, job: StepJob) -> str:
        """Make the sandbox of a run with its files, or find it. Raises SandboxError,
        NotPlacedError where it cannot be on this host, and StaleAttemptError where the run begins
        nothing more."""
        if job.run.sandbox_id is not None:
            return self._joined(job, job.run.sandbox_id)
        spec = self._claimed(job)
        info = self.runtime.create(spec)
        run = self._checked(job, spec)
        if not run.workspace_ready:
            check = self._holding(job, spec.epoch)
            cloned = self.fill(spec, run.workspace_from, job.definition.workspace, check)
            self._ready(job, spec.epoch, cloned, info)
        return spec.id

    def spec_of(self, row: SandboxRow) -> SandboxSpec:
        """What the runtime is to make for a sandbox that somebody has made, or to start again; the
        rules of its network are in force. Raises SandboxError where they cannot be."""
        return self._spec_on(row, self._network(row))

    def _spec_on(self, row: SandboxRow, network: SandboxNetwork | None) -> SandboxSpec:
        spec = SandboxSpec(
            id=row.id,
            image=row.image or self.image,
            owner_id=row.id,
            epoch=row.sandbox_epoch,
            network=network,
        )
        return spec.under(sandboxes.policy_of(row))

    def _network(self, row: SandboxRow) -> SandboxNetwork | None:
        if row.network_id is None:
            return None
        with self.store.read() as session:
            deleted = session.get_one(NetworkRow, row.network_id).deleted_at is not None
        beginning = SandboxStatus(row.status).beginning
        if deleted and not beginning:
            return None  # it was detached
        with network_errors(lasting=beginning):
            return self._served_networks().joining(row.network_id)

    def _served_networks(self) -> HostNetworks:
        if self.networks is None:
            raise SandboxError("networks are not served by this worker", retryable=False)
        return self.networks

    def leave_network(self, row: SandboxRow) -> None:
        """Take a sandbox out of its network at once, for good: should its container end, it gets
        one without. Raises SandboxError."""
        if row.network_id is not None:
            with network_errors(lasting=False):
                self._served_networks().leave(row.network_id, row.id)

    def joined_network(self, row: SandboxRow) -> None:
        """Write that a sandbox, which was made now, is in its network."""
        if self.networks is not None and row.network_id is not None:
            self.networks.joined(row.network_id)

    def steer(self, row: SandboxRow, grace_seconds: float) -> SandboxStatus:
        """Bring a sandbox that somebody has made to what is wanted of it now."""
        if row.stop_wanted:
            self.runtime.stop(row.id, grace_seconds)
            return SandboxStatus.STOPPED
        if row.pause_wanted:
            self.runtime.pause(row.id)
            return SandboxStatus.PAUSED
        self.runtime.resume(row.id)
        return SandboxStatus.RUNNING

    def usage(self, id: str) -> Json | None:
        """What a sandbox uses, as events tell it; None where it could not be measured."""
        try:
            found = self.runtime.metrics(id, window=0)
        except (SandboxError, OSError):
            return None
        return {"cpu": found.cpu.percent, "memory": found.memory.used_mb}

    def check_joined(self, job: StepJob) -> None:
        """Raise SandboxError where the run works in somebody's sandbox which does not run any
        more: what ended in it then has not ended by itself."""
        if job.run.sandbox_id is not None:
            with self.store.read() as session:
                self._require_works(session.get_one(SandboxRow, job.run.sandbox_id))

    def quiet(self, run_id: str) -> None:
        """End every command that a run has begun and that goes on in its sandbox."""
        with self.store.read() as session:
            run = session.get_one(RunRow, run_id)
        if run.sandbox_id is None:
            self.runtime.quiet(sandbox_id(run_id))
        else:
            self.runtime.quiet(run.sandbox_id, _begun_by(run))

    def leave(self, run: RunRow) -> None:
        """Let nothing of a run go on: its own sandbox is removed, or stopped where it may be
        kept; in somebody else's, the run's commands are killed."""
        if run.keep_sandbox and run.sandbox_id is None:
            self.runtime.stop(sandbox_id(run.id), 0)
        else:
            self.clear(run)

    def clear(self, run: RunRow) -> None:
        """Let nothing be left of a run, but for a sandbox that is somebody's."""
        if run.sandbox_id is None:
            self.remove(run.id)
        elif not run.keep_sandbox:
            self.runtime.quiet(run.sandbox_id, _begun_by(run))

    def retire(self, job: StepJob) -> None:
        """Begin, in a thread, to end the sandbox of a run that has its last outcome, while Temporal
        is told. Nothing depends on it: settling waits for the sandbox's lock, and removes what is
        left."""
        run_id, epoch = job.run.id, job.run.sandbox_epoch
        if job.run.keep_sandbox or job.run.sandbox_id is not None:
            return

        def wanted() -> bool:
            """Whoever resets the run says so in its row before it asks for the sandbox."""
            with self.store.read() as session:
                run = session.get_one(RunRow, run_id)
                return run.temporal_run_id == job.key.temporal_run_id

        def go() -> None:
            try:
                self.runtime.retire(sandbox_id(run_id), epoch=epoch, wanted=wanted)
            except Exception as error:
                log.info("a sandbox was not retired", run_id=run_id, why=str(error))

        threading.Thread(target=go, name="retire", daemon=True).start()

    def remove(self, run_id: str, *, epoch: int | None = None) -> None:
        """Kill and remove the sandbox of a run, if there is one."""
        self.runtime.remove(sandbox_id(run_id), epoch=epoch)

    def _claimed(self, job: StepJob) -> SandboxSpec:
        """Claim a place on this host before the sandbox is made, so that it is found."""
        spec = self._spec(job)
        if job.run.host_id == self.host_id:
            return spec  # as it was when the step was opened; `_checked` sees what has changed
        with self.store.write() as session:
            run = steps.require(session, job.key, to_start=True)
            claimed = placement.claim(session, run, self.host_id, spec.memory_mib)
            if claimed is not Claim.MINE:
                other = run.host_id or placement.with_room(session, spec.memory_mib)
                raise NotPlacedError(claimed, spec.memory_mib, other)
            run.effective_policy = self._policy(job).model_dump(mode="json")
            return spec.model_copy(update={"epoch": run.sandbox_epoch})

    def _checked(self, job: StepJob, spec: SandboxSpec) -> RunRow:
        """A run that ended or went elsewhere while its sandbox was made has perhaps been cleaned
        up before: what was made is removed. Raises StaleAttemptError then."""
        with self.store.read() as session:
            seen = steps.seen(session, job.key)
            run = seen.run
            status = RunStatus(run.status)
            over = run.host_id != self.host_id or status.ended
            over = over or (status is RunStatus.CANCELLING and not run.keep_sandbox)
            if over and run.sandbox_id is None:
                self.remove(run.id, epoch=spec.epoch)
            _require_placed(run, self.host_id, spec.epoch)
            return seen.checked()

    def _spec(self, job: StepJob) -> SandboxSpec:
        run, wanted = job.run, job.definition.config.sandbox
        image = (wanted.image if wanted else None) or self.image
        spec = SandboxSpec(
            id=sandbox_id(run.id), image=image, owner_id=run.id, epoch=run.sandbox_epoch
        )
        policy = self._policy(job)
        if policy.security_policy.allow_exec is False:
            message = (
                "a security profile forbids commands (allowExec): no step of the run can begin"
            )
            raise SandboxError(message, retryable=False)
        return spec.under(policy)

    def _policy(self, job: StepJob) -> EffectivePolicy:
        """What counts for the sandbox of a run: as it was when its host took it, also where
        profiles, departments or defaults have changed since, between two tries to make it too."""
        if job.run.host_id is not None and job.run.effective_policy is not None:
            return EffectivePolicy.model_validate(job.run.effective_policy)
        config = job.definition.config
        if job.given is None:
            message = f"security profile {config.security_profile_id} was deleted"
            raise SandboxError(f"{message}: name another one, or none", retryable=False)
        found = (config.sandbox or SandboxConfig()).policy(job.ceilings, job.given)
        return found.with_disk(self.disk_mib)

    def _joined(self, job: StepJob, id: str) -> str:
        """Go into somebody's sandbox, with the run's files. A container that has ended is started
        again, unless that is what is wanted of it."""
        row = self._required(job, id)
        if not self._goes_on(row):
            self._started(row)
        if not job.run.workspace_ready:
            epoch = job.run.sandbox_epoch
            check = self._holding(job, epoch)
            cloned = self.fill(self._spec_on(row, None), None, job.definition.workspace, check)
            self._ready(job, epoch, cloned)
        return id

    def _goes_on(self, row: SandboxRow) -> bool:
        """Whether a sandbox runs in a network that is enforced as it is wanted. Its rules are
        asserted where a container starts, and every few seconds; to do it for each step too takes
        as long as a step where a host has many networks."""
        if row.network_id is None:
            return False
        with self.store.read() as session:
            network = session.get_one(NetworkRow, row.network_id)
        is_settled = network.applied == network.version
        return is_settled and self.runtime.runs(row.id, epoch=row.sandbox_epoch)

    def _started(self, row: SandboxRow) -> None:
        """Start again what has ended of a sandbox, unless that is what is wanted of it."""
        self.runtime.create(self.spec_of(row))
        with self.store.read() as session:
            now = session.get_one(SandboxRow, row.id)
        if not sandboxes.works(now):
            if SandboxStatus(now.status).ended:
                self.runtime.remove(row.id)
            else:
                self.steer(now, 0)
        self._require_works(now)

    def _required(self, job: StepJob, id: str) -> SandboxRow:
        with self.store.read() as session:
            steps.check(session, job.key)
            row = session.get_one(SandboxRow, id)
            self._require_works(row)
        if not executions.takes_commands(row):
            message = f"sandbox {id}, in which the run works, takes no commands (allowExec)"
            raise SandboxError(message, retryable=False)
        return row

    def _require_works(self, row: SandboxRow) -> None:
        if sandboxes.works(row) and row.host_id == self.host_id:
            return
        status = "deleted" if row.delete_wanted else row.status
        message = f"sandbox {row.id}, in which the run works, is {status}"
        raise SandboxError(message, retryable=False)

    def _holding(self, job: StepJob, epoch: int) -> Callable[[], None]:
        """A check, now and then, that nobody else fills the sandbox meanwhile: another try of the
        step would run its command among files that this one goes on writing."""
        look_at = 0.0

        def check() -> None:
            nonlocal look_at
            if time.monotonic() < look_at:
                return
            job.beat.check()
            with self.store.read() as session:
                run = steps.check(session, job.key)
                _require_placed(run, self.host_id, epoch)
            look_at = time.monotonic() + _LOOK_SECONDS

        return check

    def fill(
        self,
        spec: SandboxSpec,
        checkpoint_id: str | None,
        source: WorkspaceSource | None,
        check: Callable[[], None],
    ) -> Cloned | None:
        """Lay the files of a checkpoint, or else what was given, into a workspace; gives the
        commit where that was a repository. Raises SandboxError where they do not fit its disk, or
        cannot be had."""
        if checkpoint_id is not None:
            self._lay(spec, [self._checkpointed(checkpoint_id)], self.blobs, check)
        elif source is not None and source.git is not None:
            with self.clones.cloned(source.git, spec, self.blobs, check) as clone:
                self._lay(spec, [clone.tree, *self._given(source)], clone.blobs, check)
                return clone.of
        elif source is not None:
            self._lay(spec, self._given(source), self.blobs, check)
        return None

    def _lay(
        self, spec: SandboxSpec, parts: list[Tree], blobs: Blobs, check: Callable[[], None]
    ) -> None:
        root = Path(self.runtime.workspace(spec.id).path())
        try:
            trees.materialize(merge(parts), root, blobs, check=check)
        except OSError as error:
            if spec.disk_mib is None or error.errno not in DISK_FULL:
                raise  # the host's own disk, which may have room again
            message = f"its files do not fit a disk of {spec.disk_mib} MiB; ask for more"
            raise SandboxError(message, retryable=False) from error
        self.runtime.own(spec.id)

    def _checkpointed(self, checkpoint_id: str) -> Tree:
        with self.store.read() as session:
            row = session.get_one(CheckpointRow, checkpoint_id)
        return get_tree(self.blobs, Manifest.model_validate(row.manifest).filesystem.hash)

    def _given(self, source: WorkspaceSource) -> list[Tree]:
        parts = []
        if source.archive_id is not None:
            with self.store.read() as session:
                row = session.get_one(ArchiveRow, source.archive_id)
            parts.append(get_tree(self.blobs, row.tree))
        if source.files:
            parts.append(archives.files_tree(source.files, self.blobs))
        return parts

    def _ready(
        self, job: StepJob, epoch: int, cloned: Cloned | None, info: SandboxInfo | None = None
    ) -> None:
        """Write that the files are there; `info` is of a sandbox that was made for the run."""
        with self.store.write() as session:
            run = steps.require(session, job.key, to_start=True)
            _require_placed(run, self.host_id, epoch)
            run.workspace_ready = True
            run.cloned = cloned.model_dump(mode="json") if cloned is not None else None
            if info is not None:
                run.image, run.resolved_image = info.image, info.resolved_image
                told = EffectivePolicy.model_validate(run.effective_policy or self._policy(job))
                run.effective_policy = told.with_held(info.held).model_dump(mode="json")
            run.touch()
            session.add(run)


def _begun_by(run: RunRow) -> Callable[[str], bool]:
    """Whether a command, by its id, is of one of a run's executions in Temporal."""
    executions = [id for id in (run.temporal_run_id, *run.superseded) if id]
    return lambda command_id: any(id in command_id for id in executions)


def _require_placed(run: RunRow, host_id: str, epoch: int) -> None:
    if (run.host_id, run.sandbox_epoch) != (host_id, epoch):
        raise StaleAttemptError("the run has lost its sandbox on this host")
