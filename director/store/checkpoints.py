"""Queries of checkpoints."""

from sqlmodel import Session, select

from director.domain import checkpoints as domain
from director.domain.base import Json
from director.domain.errors import NotFoundError
from director.domain.pages import PageQuery, Pagination
from director.domain.users import Principal
from director.store import blobs
from director.store.lists import paged
from director.store.ownership import seen_in, visible
from director.store.tables import CheckpointRow


def get(session: Session, principal: Principal, id: str) -> CheckpointRow:
    """The checkpoint of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(CheckpointRow, id)
    if row is None or not visible(principal, row.owner_id):
        raise NotFoundError("checkpoint", id)
    return row


def listed(
    session: Session, principal: Principal, query: PageQuery, session_id: str | None
) -> tuple[list[domain.Checkpoint], Pagination]:
    """A page of the checkpoints that the principal may see."""
    conditions = seen_in(session, principal, CheckpointRow, session_id)
    rows, pagination = paged(session, CheckpointRow, conditions, query)
    return [domain.Checkpoint.model_validate(row) for row in rows], pagination


def finish(
    session: Session, id: str, manifest: domain.Manifest, skipped: list[Json]
) -> CheckpointRow:
    """Write the manifest, last of all, and with it that the checkpoint is ready: from now on its
    blobs stay as long as it does."""
    row = session.get_one(CheckpointRow, id)
    row.manifest = manifest.model_dump(mode="json", exclude_none=True)
    row.skipped, row.status = skipped, domain.CheckpointStatus.READY
    parts = (manifest.filesystem, manifest.state)
    blobs.hold(session, id, {part.hash: part.bytes for part in parts})
    session.add(row)
    return row


def fail(session: Session, id: str) -> None:
    """Write that a checkpoint was not finished and cannot be used."""
    row = session.get_one(CheckpointRow, id)
    row.status = domain.CheckpointStatus.FAILED
    session.add(row)


def of_attempt(session: Session, attempt: str) -> CheckpointRow | None:
    """The checkpoint that an attempt of a step has begun, or taken."""
    return session.exec(select(CheckpointRow).where(CheckpointRow.attempt == attempt)).first()
