"""`checkpoint` steps: the workspace's files and the run's state under one id."""

import json
import threading
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from pathlib import Path

from director.activities.heartbeat import StepCancelledError
from director.activities.jobs import StepDone, StepJob
from director.activities.sandboxes import Sandboxes
from director.blobs.captures import Captured, capture
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
from director.store.engine import Store
from director.store.tables import CheckpointRow

_KEPT = 64
_ENTRIES = 400_000
"""In all captures that are remembered: some 500 bytes of memory each."""


class Previous:
    """The latest captures of sandboxes on this host, so that the next ones read what has changed
    only. They are forgotten with the process."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[str, Captured]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, store: Store, sandbox: str) -> Captured | None:
        """The latest capture of a sandbox whose checkpoint is still there: so its blobs are."""
        with self._lock:
            found = self._kept.get(sandbox)
        if found is None:
            return None
        checkpoint_id, captured = found
        with store.write() as session:
            if session.get(CheckpointRow, checkpoint_id) is None:
                return None
            blobs.touch(session, captured.tree.blobs.items())
        return captured

    def keep(self, sandbox: str, checkpoint_id: str, captured: Captured) -> None:
        """Remember a capture, and forget those that were made longest ago."""
        with self._lock:
            self._kept[sandbox] = checkpoint_id, captured
            self._kept.move_to_end(sandbox)
            while len(self._kept) > _KEPT or self._entries() > _ENTRIES:
                self._kept.popitem(last=False)

    def _entries(self) -> int:
        return sum(len(captured.tree.entries) for _, captured in self._kept.values())


@dataclass(frozen=True)
class Checkpoints:
    """Captures the workspace of a run as content-addressed files, the manifest last."""

    sandboxes: Sandboxes
    _previous: Previous = field(default_factory=Previous)

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
        previous = self._previous.get(self.sandboxes.store, sandbox)
        captured = capture(root, self.sandboxes.blobs, check=job.check, previous=previous)
        manifest = self._manifest(job, captured.tree)
        skipped = [asdict(skip) for skip in captured.skipped]
        with self.sandboxes.store.write() as session:
            steps.require(session, job.key)
            blobs.hold(session, manifest.filesystem.hash, captured.tree.blobs)
            finished = checkpoints.finish(session, row.id, manifest, skipped)
        self._previous.keep(sandbox, row.id, captured)
        return finished

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
