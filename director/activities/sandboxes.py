"""The sandbox of a run: made with its files at the first step, removed when the run settles."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from director.activities.jobs import StepJob
from director.blobs import archives, trees
from director.blobs.store import Blobs, get_tree
from director.domain.checkpoints import Manifest
from director.domain.departments import DepartmentConfig, ResourceLimits
from director.domain.ids import RUN, SANDBOX
from director.domain.runs import RunStatus
from director.domain.sandboxes import SandboxInfo, SandboxSpec
from director.domain.trees import Tree, merge
from director.domain.workflows import Definition, WorkspaceSource
from director.sandbox.runtime import SandboxError, SandboxRuntime
from director.store import placement, runs, steps
from director.store.engine import Store
from director.store.placement import Claim
from director.store.steps import StaleAttemptError
from director.store.tables import ArchiveRow, CheckpointRow, DepartmentRow, RunRow

_NOT_PLACED = {
    Claim.ELSEWHERE: "the sandbox of the run is on another host",
    Claim.FULL: "no place is free on this host",
    Claim.IMPOSSIBLE: "no host has {} MiB of memory for a sandbox: ask for less, or raise"
    " DIRECTOR_MEMORY",
}


_LOOK_SECONDS = 0.2


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

    def prepare(self, job: StepJob) -> str:
        """Make the sandbox of a run with its files, or find it. Raises SandboxError,
        NotPlacedError where it cannot be on this host, and StaleAttemptError where the run begins
        nothing more."""
        spec = self._claimed(job)
        info = self.runtime.create(spec)
        run = self._checked(job, spec)
        if not run.workspace_ready:
            check = self._holding(job, spec)
            self._fill(spec.id, run.workspace_from, job.definition.workspace, check)
            self._ready(job, spec, info)
        return spec.id

    def quiet(self, run_id: str) -> None:
        """End every command that goes on in the sandbox of a run, if there is one."""
        self.runtime.quiet(sandbox_id(run_id))

    def remove(self, run_id: str, *, epoch: int | None = None) -> None:
        """Kill and remove the sandbox of a run, if there is one."""
        self.runtime.remove(sandbox_id(run_id), epoch=epoch)

    def _claimed(self, job: StepJob) -> SandboxSpec:
        """Claim a place on this host before the sandbox is made, so that it is found."""
        with self.store.read() as session:
            steps.require(session, job.key, to_start=True)
            run = session.get_one(RunRow, job.run.id)
            spec = self._spec(session, run, job.definition)
            if run.host_id == self.host_id:
                return spec
        with self.store.write() as session:
            steps.require(session, job.key, to_start=True)
            run = session.get_one(RunRow, job.run.id)
            claimed = placement.claim(session, run, self.host_id, spec.memory_mib)
            if claimed is not Claim.MINE:
                other = run.host_id or placement.with_room(session, spec.memory_mib)
                raise NotPlacedError(claimed, spec.memory_mib, other)
            return spec.model_copy(update={"epoch": run.sandbox_epoch})

    def _checked(self, job: StepJob, spec: SandboxSpec) -> RunRow:
        """A run that ended or went elsewhere while its sandbox was made has perhaps been cleaned
        up before: what was made is removed. Raises StaleAttemptError then."""
        with self.store.read() as session:
            run = session.get_one(RunRow, job.run.id)
            status = RunStatus(run.status)
            gone = run.host_id != self.host_id
            if gone or status.ended or status is RunStatus.CANCELLING:
                self.remove(run.id, epoch=spec.epoch)
            _require_placed(run, self.host_id, spec)
            steps.require(session, job.key, to_start=True)
            return run

    def _spec(self, session: Session, run: RunRow, definition: Definition) -> SandboxSpec:
        wanted = definition.config.sandbox
        limits = [wanted.resource_limits] if wanted and wanted.resource_limits else []
        limits += _ceilings(session, run.id)
        base = SandboxSpec(
            id=sandbox_id(run.id),
            image=(wanted.image if wanted else None) or self.image,
            owner_id=run.id,
            epoch=run.sandbox_epoch,
        )
        memory = [limit.memory for limit in limits if limit.memory is not None]
        cpus = [limit.cpu for limit in limits if limit.cpu is not None]
        return base.model_copy(
            update={
                "memory_mib": min(memory, default=base.memory_mib),
                "cpus": min(cpus, default=base.cpus),
            }
        )

    def _holding(self, job: StepJob, spec: SandboxSpec) -> Callable[[], None]:
        """A check, now and then, that nobody else fills the sandbox meanwhile: another try of the
        step would run its command among files that this one goes on writing."""
        look_at = 0.0

        def check() -> None:
            nonlocal look_at
            if time.monotonic() < look_at:
                return
            job.beat.check()
            with self.store.read() as session:
                _require_placed(session.get_one(RunRow, job.run.id), self.host_id, spec)
                steps.require(session, job.key, to_start=True)
            look_at = time.monotonic() + _LOOK_SECONDS

        return check

    def _fill(
        self,
        id: str,
        checkpoint_id: str | None,
        source: WorkspaceSource | None,
        check: Callable[[], None],
    ) -> None:
        if checkpoint_id is not None:
            parts = [self._checkpointed(checkpoint_id)]
        elif source is not None:
            parts = self._given(source)
        else:
            return
        root = Path(self.runtime.workspace(id).path())
        trees.materialize(merge(parts), root, self.blobs, check=check)
        self.runtime.own(id)

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

    def _ready(self, job: StepJob, spec: SandboxSpec, info: SandboxInfo) -> None:
        with self.store.write() as session:
            run = session.get_one(RunRow, spec.owner_id)
            _require_placed(run, self.host_id, spec)
            steps.require(session, job.key, to_start=True)
            run.workspace_ready = True
            run.image, run.resolved_image = info.image, info.resolved_image
            run.touch()
            session.add(run)


def _require_placed(run: RunRow, host_id: str, spec: SandboxSpec) -> None:
    if (run.host_id, run.sandbox_epoch) != (host_id, spec.epoch):
        raise StaleAttemptError("the run has lost its sandbox on this host")


def _ceilings(session: Session, run_id: str) -> list[ResourceLimits]:
    """The limits of every department that has a step in the run; the smallest one counts."""
    ids = runs.departments_of(session, run_id)
    rows = [session.get_one(DepartmentRow, id) for id in ids]
    configs = [DepartmentConfig.model_validate(row.config) for row in rows]
    return [config.resource_limits for config in configs if config.resource_limits]
