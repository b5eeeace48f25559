"""The sandbox of a run: made with its files at the first step, removed when the run settles."""

from dataclasses import dataclass
from pathlib import Path

from sqlmodel import Session

from director.activities.jobs import StepJob
from director.blobs import archives, trees
from director.blobs.store import Blobs, get_tree
from director.domain.departments import DepartmentConfig, ResourceLimits
from director.domain.ids import RUN, SANDBOX
from director.domain.runs import RunStatus
from director.domain.sandboxes import SandboxInfo, SandboxSpec
from director.domain.trees import merge
from director.domain.workflows import Definition, WorkspaceSource
from director.sandbox.runtime import SandboxRuntime
from director.store import runs, steps
from director.store.engine import Store
from director.store.tables import ArchiveRow, DepartmentRow, RunRow


def sandbox_id(run_id: str) -> str:
    """The sandbox of a run has the run's own name."""
    return SANDBOX + run_id.removeprefix(RUN)


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
        """Make the sandbox of a run with its files, or find it. Raises SandboxError, and
        StaleAttemptError where the run begins nothing more."""
        spec = self._claimed(job)
        info = self.runtime.create(spec)
        self._remove_if_stale(job)
        if not job.run.workspace_ready:
            self._fill(spec.id, job.definition.workspace)
            self._ready(job.run.id, info)
        return spec.id

    def quiet(self, run_id: str) -> None:
        """End every command that goes on in the sandbox of a run, if there is one."""
        self.runtime.quiet(sandbox_id(run_id))

    def remove(self, run_id: str) -> None:
        """Kill and remove the sandbox of a run, if there is one."""
        self.runtime.remove(sandbox_id(run_id))

    def _claimed(self, job: StepJob) -> SandboxSpec:
        """Write that the sandbox is on this host, before it is made, so that it is found."""
        if job.run.host_id is None:
            with self.store.write() as session:
                steps.require(session, job.key, to_start=True)
                run = session.get_one(RunRow, job.run.id)
                run.host_id = self.host_id
                session.add(run)
        with self.store.read() as session:
            steps.require(session, job.key, to_start=True)
            return self._spec(session, job.run, job.definition)

    def _remove_if_stale(self, job: StepJob) -> None:
        """A run that was ended while its sandbox was made has perhaps been cleaned up before."""
        with self.store.read() as session:
            try:
                steps.require(session, job.key, to_start=True)
            except steps.StaleAttemptError:
                status = RunStatus(session.get_one(RunRow, job.run.id).status)
                if status.ended or status is RunStatus.CANCELLING:
                    self.remove(job.run.id)
                raise

    def _spec(self, session: Session, run: RunRow, definition: Definition) -> SandboxSpec:
        wanted = definition.config.sandbox
        limits = [wanted.resource_limits] if wanted and wanted.resource_limits else []
        limits += _ceilings(session, run.id)
        base = SandboxSpec(
            id=sandbox_id(run.id),
            image=(wanted.image if wanted else None) or self.image,
            owner_id=run.id,
        )
        memory = [limit.memory for limit in limits if limit.memory is not None]
        cpus = [limit.cpu for limit in limits if limit.cpu is not None]
        return base.model_copy(
            update={
                "memory_mib": min(memory, default=base.memory_mib),
                "cpus": min(cpus, default=base.cpus),
            }
        )

    def _fill(self, id: str, source: WorkspaceSource | None) -> None:
        if source is None:
            return
        parts = []
        if source.archive_id is not None:
            with self.store.read() as session:
                row = session.get_one(ArchiveRow, source.archive_id)
            parts.append(get_tree(self.blobs, row.tree))
        if source.files:
            parts.append(archives.files_tree(source.files, self.blobs))
        root = Path(self.runtime.workspace(id).path())
        trees.materialize(merge(parts), root, self.blobs, uid=None, gid=None)
        self.runtime.own(id)

    def _ready(self, run_id: str, info: SandboxInfo) -> None:
        with self.store.write() as session:
            run = session.get_one(RunRow, run_id)
            run.workspace_ready = True
            run.image, run.resolved_image = info.image, info.resolved_image
            run.touch()
            session.add(run)


def _ceilings(session: Session, run_id: str) -> list[ResourceLimits]:
    """The limits of every department that has a step in the run; the smallest one counts."""
    ids = runs.departments_of(session, run_id)
    rows = [session.get_one(DepartmentRow, id) for id in ids]
    configs = [DepartmentConfig.model_validate(row.config) for row in rows]
    return [config.resource_limits for config in configs if config.resource_limits]
