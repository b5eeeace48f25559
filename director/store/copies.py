"""Copies of a session's context windows and messages, and how they are put back.

What a checkpoint does not have is superseded by the restore, and stays. Whoever puts back has
locked the session."""

from typing import Any

from sqlalchemy import update
from sqlmodel import Session, SQLModel, col, select

from director.domain.base import Json
from director.domain.copies import ContextCopy, Copies, ItemCopy, MessageCopy
from director.store import locks
from director.store.inserts import insert_into
from director.store.tables import ContextItemRow, ContextRow, MessageRow, SessionRow

_ROWS = 500
"""Rows that a statement names at most."""

_UNSYNCHRONISED = {"synchronize_session": False}


def read(session: Session, session_id: str) -> Copies:
    """Copy what is there of a session: windows by their ids, items and messages as they came."""
    return Copies(context=_windows(session, session_id), messages=_messages(session, session_id))


def put_context(
    session: Session, parent: SessionRow, copies: list[ContextCopy], restore_id: str
) -> None:
    """Let the windows of a session, and what is in them, be those of the copies; all others are
    superseded by the restore. In another session than they were taken from, take them `anew`."""
    windows = [row.id for row in _present_windows(session, parent.id)]
    locks.each(session, ContextRow, sorted({*windows, *(copy.id for copy in copies)}))
    _supersede(session, ContextRow, windows, [copy.id for copy in copies], restore_id)
    kept = {copy.id: [item.id for item in copy.items] for copy in copies}
    for id in sorted({*windows, *kept}):
        _supersede(session, ContextItemRow, _items(session, id), kept.get(id, []), restore_id)
    for copy in copies:
        _put_window(session, parent, copy)
        items = [{"context_id": copy.id, **item.model_dump(by_alias=False)} for item in copy.items]
        _put(session, ContextItemRow, items)


def put_messages(
    session: Session, parent: SessionRow, copies: list[MessageCopy], restore_id: str
) -> None:
    """Let the messages of a session be those of the copies, as `put_context` does."""
    present = [row.id for row in _present_messages(session, parent.id)]
    _supersede(session, MessageRow, present, [copy.id for copy in copies], restore_id)
    said = [{"session_id": parent.id, **copy.model_dump(by_alias=False)} for copy in copies]
    _put(session, MessageRow, said)


def _windows(session: Session, session_id: str) -> list[ContextCopy]:
    copies = []
    for row in _present_windows(session, session_id):
        items = select(ContextItemRow).where(
            ContextItemRow.context_id == row.id, col(ContextItemRow.superseded_by).is_(None)
        )
        found = session.exec(items.order_by(col(ContextItemRow.number)))
        inside = [ItemCopy.model_validate(item) for item in found]
        copies.append(ContextCopy.model_validate({**row.model_dump(), "items": inside}))
    return copies


def _messages(session: Session, session_id: str) -> list[MessageCopy]:
    return [MessageCopy.model_validate(row) for row in _present_messages(session, session_id)]


def _put_window(session: Session, parent: SessionRow, copy: ContextCopy) -> None:
    """A window as it was; it changes now, and numbers what comes as if all had stayed."""
    before = session.get(ContextRow, copy.id)
    fields = copy.model_dump(exclude={"items"}, by_alias=False)
    row = ContextRow(session_id=parent.id, owner_id=parent.owner_id, **fields)
    row.numbered = max(copy.numbered, before.numbered if before else 0)
    row.touch()
    session.merge(row)
    session.flush()


def _present_windows(session: Session, session_id: str) -> list[ContextRow]:
    row = ContextRow
    here = (row.session_id == session_id, col(row.deleted_at).is_(None))
    present = select(row).where(*here, col(row.superseded_by).is_(None))
    return list(session.exec(present.order_by(col(row.id))))


def _items(session: Session, context_id: str) -> list[str]:
    row = ContextItemRow
    present = select(row.id).where(row.context_id == context_id, col(row.superseded_by).is_(None))
    return list(session.exec(present))


def _present_messages(session: Session, session_id: str) -> list[MessageRow]:
    row = MessageRow
    present = select(row).where(row.session_id == session_id, col(row.superseded_by).is_(None))
    return list(session.exec(present.order_by(col(row.number))))


def _put(session: Session, row: type[SQLModel], found: list[Json]) -> None:
    """Add rows; of those that are there, which never change, say that nothing supersedes them."""
    for start in range(0, len(found), _ROWS):
        insert = insert_into(session, row).values(found[start : start + _ROWS])
        present = {"superseded_by": None}
        session.execute(insert.on_conflict_do_update(index_elements=["id"], set_=present))


def _supersede(
    session: Session, row: Any, present: list[str], kept: list[str], restore_id: str
) -> None:
    """Say of what is present, and none of what is kept, which restore has superseded it."""
    others = sorted({*present} - {*kept})
    for start in range(0, len(others), _ROWS):
        some = row.id.in_(others[start : start + _ROWS])
        marked = update(row).where(some).values(superseded_by=restore_id)
        session.execute(marked, execution_options=_UNSYNCHRONISED)
