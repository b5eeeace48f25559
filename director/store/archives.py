"""Queries of archives."""

from sqlmodel import Session

from director.domain.archives import WorkspaceSource
from director.domain.errors import NotFoundError, ValidationError
from director.domain.users import Principal
from director.store.ownership import visible
from director.store.tables import ArchiveRow


def get(session: Session, principal: Principal, id: str) -> ArchiveRow:
    """The archive of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(ArchiveRow, id)
    if row is None or not visible(principal, row.owner_id):
        raise NotFoundError("archive", id)
    return row


def check_source(session: Session, source: WorkspaceSource | None, owner_id: str) -> None:
    """Raise ValidationError where a workspace is to be filled from what its owner does not
    have."""
    id = source.archive_id if source else None
    if id is None:
        return
    row = session.get(ArchiveRow, id)
    if row is None or row.owner_id != owner_id:
        field, issue = "workspace.archiveId", "names no archive of yours"
        detail = {"field": field, "issue": issue, "value": id[:80]}
        raise ValidationError(f"Invalid input data: {field} {issue}", **detail, errors=[detail])
