"""Rows of blobs: touched before anybody relies on them, so that collection spares them."""

from collections.abc import Iterable

from sqlmodel import Session

from director.domain.times import utc_now
from director.store.inserts import insert_into
from director.store.tables import BlobRow

_BATCH = 500


def touch(session: Session, blobs: Iterable[tuple[str, int]]) -> None:
    """Upsert (hash, size) rows with the present time; in order, as everybody locks them."""
    now, sizes = utc_now(), dict(blobs)
    rows = [{"hash": hash, "size": sizes[hash], "touched_at": now} for hash in sorted(sizes)]
    for start in range(0, len(rows), _BATCH):
        statement = insert_into(session, BlobRow).values(rows[start : start + _BATCH])
        session.exec(
            statement.on_conflict_do_update(index_elements=["hash"], set_={"touched_at": now})
        )
