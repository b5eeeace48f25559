"""Rows of blobs: touched before anybody relies on them, so that collection spares them.

A blob is needed while a link names it, or an output: a checkpoint and an archive are linked to
their trees, and a tree to the blobs in which its files lie. Whoever relies on a blob touches its
row first, and looks whether it is there after that; collection removes a blob and its row under
the row's lock, and only where it was touched long ago. So what is there then, stays there."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlmodel import Session, col, delete, exists, select

from director.domain.times import utc_now
from director.store import locks
from director.store.engine import Store
from director.store.inserts import insert_into
from director.store.tables import BlobLinkRow, BlobRow, OutputRow

_BATCH = 500


def touch(session: Session, blobs: Iterable[tuple[str, int]]) -> None:
    """Upsert (hash, size) rows with the present time; in order, as everybody locks them."""
    now, sizes = utc_now(), dict(blobs)
    rows = [{"hash": hash, "size": sizes[hash], "touched_at": now} for hash in sorted(sizes)]
    for batch in _batches(rows):
        statement = insert_into(session, BlobRow).values(batch)
        session.exec(
            statement.on_conflict_do_update(index_elements=["hash"], set_={"touched_at": now})
        )


def touch_now(store: Store, blobs: Mapping[str, int]) -> None:
    """Touch blobs, by hash with their sizes, in a transaction of its own."""
    with store.write() as session:
        touch(session, blobs.items())


def hold(session: Session, holder: str, blobs: Mapping[str, int]) -> None:
    """Touch blobs, by hash with their sizes, and keep them until `release` of the holder; one that
    is a blob itself keeps them for as long as it is there."""
    touch(session, blobs.items())
    _link(session, holder, blobs)


def hold_for_tree(session: Session, tree: str, blobs: Mapping[str, int]) -> None:
    """Touch the blob that a tree is, and for as long as it is there keep those, by hash with their
    sizes, in which its files lie."""
    touch(session, {**blobs, tree: 0}.items())
    _link(session, tree, blobs)


def _link(session: Session, holder: str, blobs: Iterable[str]) -> None:
    rows = [{"holder": holder, "blob": hash} for hash in sorted(blobs)]
    for batch in _batches(rows):
        session.exec(insert_into(session, BlobLinkRow).values(batch).on_conflict_do_nothing())


def release(session: Session, holder: str) -> None:
    """Need nothing any more for the sake of a holder that is gone."""
    session.exec(delete(BlobLinkRow).where(col(BlobLinkRow.holder) == holder))


def adopt(session: Session, hashes: Iterable[str]) -> None:
    """Make rows for blobs that were found without one, such as those of a writer that was killed:
    they count as touched now."""
    rows = [{"hash": hash, "size": 0, "touched_at": utc_now()} for hash in sorted(set(hashes))]
    for batch in _batches(rows):
        session.exec(insert_into(session, BlobRow).values(batch).on_conflict_do_nothing())


def unused(session: Session, before: datetime, limit: int) -> list[str]:
    """Blobs that nothing needs and nobody has touched since, those first that wait longest."""
    due = select(BlobRow.hash).where(*_unused(before)).order_by(col(BlobRow.touched_at))
    return list(session.exec(due.limit(limit)))


def drop(session: Session, hash: str, before: datetime) -> bool:
    """Drop the row of a blob that is still unused, and its links, and keep it locked: whoever
    would touch it waits until the blob itself is removed and this transaction has ended."""
    locks.get(session, BlobRow, hash)
    still = select(BlobRow.hash).where(col(BlobRow.hash) == hash, *_unused(before))
    if session.exec(still).first() is None:
        return False
    release(session, hash)
    session.exec(delete(BlobRow).where(col(BlobRow.hash) == hash))
    return True


def _unused(before: datetime) -> list[Any]:
    linked = exists().where(col(BlobLinkRow.blob) == col(BlobRow.hash))
    written = exists().where(col(OutputRow.hash) == col(BlobRow.hash))
    return [col(BlobRow.touched_at) < before, ~linked, ~written]


def _batches(rows: list[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
