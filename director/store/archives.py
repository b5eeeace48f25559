"""Queries of archives."""

from sqlmodel import Session

from director.domain.errors import NotFoundError
from director.domain.users import Principal
from director.store.ownership import visible
from director.store.tables import ArchiveRow


def get(session: Session, principal: Principal, id: str) -> ArchiveRow:
    """The archive of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(ArchiveRow, id)
    if row is None or not visible(principal, row.owner_id):
        raise NotFoundError("archive", id)
    return row
