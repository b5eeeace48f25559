"""Files of a sandbox that somebody made: put into its workspace from blobs, and kept as blobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from temporalio import activity

from director.activities.heartbeat import heartbeating
from director.activities.refusals import refusals_told
from director.activities.sandboxes import DISK_FULL, Sandboxes
from director.blobs import trees
from director.blobs.captures import capture
from director.blobs.store import get_tree, put_tree
from director.domain import names
from director.domain.errors import ConflictError
from director.domain.lifetimes import CaptureFiles, FilesCaptured, FilesWritten, WriteFiles
from director.sandbox.runtime import SandboxNotFoundError
from director.store import blobs


@dataclass(frozen=True)
class Files:
    """Writes and keeps the workspaces of sandboxes on this host."""

    sandboxes: Sandboxes

    @activity.defn(name=names.WRITE_FILES, no_thread_cancel_exception=True)
    def write(self, asked: WriteFiles) -> FilesWritten:
        """Lay a tree over what lies in the workspace."""
        with _told(), heartbeating() as beat:
            tree = get_tree(self.sandboxes.blobs, asked.tree)
            root = Path(self.sandboxes.runtime.workspace(asked.sandbox_id).path())
            trees.materialize(tree, root, self.sandboxes.blobs, check=beat.check)
            self.sandboxes.runtime.own(asked.sandbox_id)
        return FilesWritten(files=tree.file_count, bytes=tree.total_bytes)

    @activity.defn(name=names.CAPTURE_FILES, no_thread_cancel_exception=True)
    def capture(self, asked: CaptureFiles) -> FilesCaptured:
        """Take a workspace into blobs. Links are not followed."""
        with _told(), heartbeating() as beat:
            root = Path(self.sandboxes.runtime.workspace(asked.sandbox_id).path())
            tree = capture(root, self.sandboxes.blobs, check=beat.check).tree
            hash = put_tree(self.sandboxes.blobs, tree)
            with self.sandboxes.store.write() as session:
                blobs.hold_for_tree(session, hash, tree.blobs)
        return FilesCaptured(tree=hash)


@contextmanager
def _told() -> Iterator[None]:
    """Refuse what a sandbox that is gone, or full, cannot do."""
    with refusals_told():
        try:
            yield
        except SandboxNotFoundError as error:
            raise ConflictError(error.message) from error
        except PermissionError as error:
            raise ConflictError(str(error)) from error
        except OSError as error:
            if error.errno in DISK_FULL:
                raise ConflictError("the sandbox's disk is full") from error
            raise
