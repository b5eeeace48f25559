"""Files of a sandbox that somebody made: put into its workspace from blobs, and taken out."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from temporalio import activity

from director.activities.heartbeat import Beat, heartbeating
from director.activities.refusals import refusals_told
from director.activities.sandboxes import DISK_FULL, Sandboxes
from director.blobs import trees
from director.blobs.captures import capture
from director.blobs.contents import Contents
from director.blobs.store import get_tree, put_tree
from director.domain import names
from director.domain.errors import (
    ConflictError,
    NotFoundError,
    PayloadTooLargeError,
)
from director.domain.lifetimes import FilesRead, FilesWritten, ReadFiles, WriteFiles
from director.domain.trees import Entry, Tree
from director.sandbox.runtime import SandboxNotFoundError, Workspace
from director.store import blobs

MAX_FILE = 256 * 1024 * 1024
"""Bytes of a file that is read as one."""


@dataclass(frozen=True)
class Files:
    """Writes and reads the workspaces of sandboxes on this host."""

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

    @activity.defn(name=names.READ_FILES, no_thread_cancel_exception=True)
    def read(self, asked: ReadFiles) -> FilesRead:
        """Take a file, or a folder with all that is in it, into blobs. Links are not followed."""
        with _told(), heartbeating() as beat:
            workspace = self.sandboxes.runtime.workspace(asked.sandbox_id)
            kind = workspace.kind(asked.path or ".")
            if kind == "file":
                tree = self._file(workspace, asked.path)
            elif kind == "directory":
                tree = self._folder(workspace, asked.path, beat)
            else:
                raise NotFoundError("file", f"/workspace/{asked.path}")
            hash = put_tree(self.sandboxes.blobs, tree)
            with self.sandboxes.store.write() as session:
                blobs.hold(session, hash, tree.blobs)
                blobs.touch(session, [(hash, 0)])
        return FilesRead(tree=hash, is_file=kind == "file")

    def _file(self, workspace: Workspace, path: str) -> Tree:
        content = workspace.read(path, MAX_FILE + 1)
        if len(content) > MAX_FILE:
            message = f"the file is over {MAX_FILE} bytes: read it in parts, by a command"
            raise PayloadTooLargeError(message, limitBytes=MAX_FILE)
        with Contents(self.sandboxes.blobs) as contents:
            hash, size = contents.put(io.BytesIO(content))
            name = path.rpartition("/")[2].encode()
            return contents.tree([Entry.file(name, 0o644, 0, size, hash)])

    def _folder(self, workspace: Workspace, path: str, beat: Beat) -> Tree:
        root, below = Path(workspace.path()), path.encode()
        return capture(root, self.sandboxes.blobs, check=beat.check, below=below).tree


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
