"""`checkpoint` steps: the workspace's files and the run's state under one id."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from director.activities.heartbeat import StepCancelledError
from director.activities.jobs import StepDone, StepJob
from director.activities.sandboxes import Sandboxes
from director.blobs.captures import capture
from director.blobs.store import put_tree
from director.domain.base import Json
from director.domain.checkpoints import CheckpointStatus, Manifest, Part
from director.domain.errors import DirectorError
from director.domain.failures import FailureCode, StepFailure
from director.domain.ids import CHECKPOINT, new_id
from director.domain.runs import StepStatus
from director.domain.steps import CheckpointStep
from director.domain.templates import TemplateError, fill
from director.domain.trees import Tree
from director.store import blobs, checkpoints, standing, steps
from director.store.tables import CheckpointRow


@dataclass(frozen=True)
class Checkpoints:
    """Captures the workspace of a run as content-addressed files, the manifest last."""

    sandboxes: Sandboxes

    def perform(self, job: StepJob, step: CheckpointStep) -> StepDone:
        """Capture files and state; the manifest with their hashes is written last of all."""
        row = self._row(job, step)
        if row.status != CheckpointStatus.READY:
            try:
                row = self._captured(job, row)
            except (StepFailure, DirectorError, StepCancelledError):
                self._failed(row)
                raise
        return StepDone(StepStatus.COMPLETED, _result(job, row))

    def _captured(self, job: StepJob, row: CheckpointRow) -> CheckpointRow:
        sandbox = self.sandboxes.prepare(job)
        root = Path(self.sandboxes.runtime.workspace(sandbox).path())
        captured = capture(root, self.sandboxes.blobs, check=job.check)
        manifest = self._manifest(job, captured.tree)
        skipped = [asdict(skip) for skip in captured.skipped]
        with self.sandboxes.store.write() as session:
            steps.require(session, job.key)
            blobs.touch(session, _named(captured.tree, manifest))
            return checkpoints.finish(session, row.id, manifest, skipped)

    def _failed(self, row: CheckpointRow) -> None:
        with self.sandboxes.store.write() as session:
            checkpoints.fail(session, row.id)

    def _row(self, job: StepJob, step: CheckpointStep) -> CheckpointRow:
        name = _filled(job, step.name or job.step_id)
        description = _filled(job, step.description) if step.description else None
        with self.sandboxes.store.write() as session:
            steps.require(session, job.key)
            if (begun := checkpoints.of_attempt(session, _attempt(job))) is not None:
                return begun
            row = CheckpointRow(
                id=new_id(CHECKPOINT),
                attempt=_attempt(job),
                session_id=job.run.session_id,
                owner_id=job.run.owner_id,
                workflow_id=job.run.workflow_id,
                run_id=job.run.id,
                step=job.step_id,
                name=name,
                description=description,
            )
            session.add(row)
            return row

    def _manifest(self, job: StepJob, tree: Tree) -> Manifest:
        content = put_tree(self.sandboxes.blobs, tree)
        with self.sandboxes.store.read() as session:
            view = standing.view(session, job.run)
        seen = view.model_dump(mode="json", exclude={"temporal"})
        state = json.dumps(seen, sort_keys=True, separators=(",", ":")).encode()
        return Manifest(
            filesystem=Part(hash=content, bytes=tree.total_bytes, files=tree.file_count),
            state=Part(hash=self.sandboxes.blobs.put(state), bytes=len(state)),
        )


def _attempt(job: StepJob) -> str:
    return f"{job.run.id}-{job.command_id}"


def _result(job: StepJob, row: CheckpointRow) -> Json:
    files = Manifest.model_validate(row.manifest).filesystem
    return {
        "checkpointId": row.id,
        "name": row.name,
        "files": files.files,
        "bytes": files.bytes,
        "skipped": len(row.skipped),
        "attempt": job.key.attempt,
    }


def _filled(job: StepJob, text: str) -> str:
    try:
        return fill(text, job.run.context)
    except TemplateError as error:
        raise StepFailure(FailureCode.INVALID_TEMPLATE, str(error)) from None


def _named(tree: Tree, manifest: Manifest) -> list[tuple[str, int]]:
    files = [(entry.hash, entry.size) for entry in tree.entries if entry.hash is not None]
    parts = [(part.hash, part.bytes) for part in (manifest.filesystem, manifest.state)]
    return [*files, *parts]
