"""Archives: files from which a workspace is filled, sent by somebody or taken from a sandbox."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from director.domain.base import Body, Json, Name, PlacedError, Shape
from director.domain.git import Cloned, GitSource
from director.domain.times import Moment
from director.domain.trees import PathError, normalise


class Archive(Shape):
    """What was in a tar or zip, or in a sandbox; `total_bytes` counts the unpacked files."""

    id: str
    owner_id: str
    name: str | None
    file_count: int
    total_bytes: int
    created_at: Moment


def _check_paths(files: dict[str, str]) -> dict[str, str]:
    for path in files:
        try:
            empty = not normalise(path.encode())
        except PathError as error:
            raise PlacedError(str(error), path) from None
        if empty or path.endswith("/"):
            raise PlacedError("names a folder, not a file", path)
    return files


Files = Annotated[dict[str, str], Field(max_length=1000), AfterValidator(_check_paths)]


class WorkspaceSource(Body):
    """What lies in `/workspace` when a run, or a sandbox, begins; `files` go on top of the
    archive, or of the repository."""

    files: Files | None = None
    archive_id: str | None = None
    git: GitSource | None = None

    @model_validator(mode="after")
    def _one_below(self) -> Self:
        if self.git is not None and self.archive_id is not None:
            raise PlacedError("cannot stand beside `archiveId`: name one of them", "git")
        return self


class Workspace(Shape):
    """What a workspace was filled from, as far as that was not known before."""

    git: Cloned

    @classmethod
    def of(cls, cloned: Json | None) -> Self | None:
        """The workspace into which that was cloned; None where nothing was."""
        return None if cloned is None else cls(git=Cloned.model_validate(cloned))


class SnapshotBody(Body):
    """What the archive of a sandbox's workspace is to be called."""

    name: Name | None = None
