"""Queries of context windows and of what is in them.

Whoever writes to a window has locked it, so that it is never over its bounds."""

from datetime import datetime
from typing import Any

import sqlalchemy
from sqlalchemy import ColumnElement, func, or_
from sqlmodel import Session, col, select

from director.domain import context as domain
from director.domain.context import ContextConfig, Weight
from director.domain.errors import ConflictError, NotFoundError, refused
from director.domain.events import EventType
from director.domain.ids import CONTEXT, ITEM, new_id
from director.domain.pages import PageQuery, Pagination
from director.domain.times import utc_now
from director.domain.users import Principal
from director.store import locks, sessions
from director.store.lists import paged
from director.store.ownership import seen_in, visible
from director.store.preconditions import check_match
from director.store.tables import ContextItemRow, ContextRow, SessionRow

_TOLD = 100
_BATCH = 100
_SOME = 50
"""Items that are looked at together: mostly one leaves for one that comes."""
_UNSYNCHRONISED = {"synchronize_session": False}


def create(
    session: Session, principal: Principal, body: domain.ContextCreate
) -> domain.CreatedContext:
    """Add a window to a session. Raises ConflictError where the session has too many."""
    parent = sessions.usable(session, principal, body.session_id)
    _check_room(session, parent.id)
    row = ContextRow(
        id=new_id(CONTEXT),
        session_id=parent.id,
        owner_id=parent.owner_id,
        name=body.name,
        config=body.config.model_dump(mode="json", exclude_none=True),
    )
    session.add(row)
    session.flush()
    added = [_put(session, row, item).id for item in body.items]
    evicted = _evict(session, row)
    _tell(session, row, EventType.CONTEXT_CREATED, added, evicted)
    shown = _filled(session, row)
    return domain.CreatedContext.model_validate({**dict(shown), "evicted": evicted})


def get(session: Session, principal: Principal, id: str) -> ContextRow:
    """The window of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(ContextRow, id)
    if row is None or not _there(row) or not visible(principal, row.owner_id):
        raise NotFoundError("context window", id)
    return row


def shown(session: Session, principal: Principal, id: str) -> domain.FilledContext:
    """The window as the API shows it. Raises NotFoundError."""
    return _filled(session, get(session, principal, id))


def listed(
    session: Session, principal: Principal, query: PageQuery, session_id: str | None
) -> tuple[list[domain.Context], Pagination]:
    """A page of the windows that the principal may see."""
    conditions: list[Any] = [col(ContextRow.deleted_at).is_(None), ~_superseded(ContextRow)]
    conditions += seen_in(session, principal, ContextRow, session_id)
    rows, pagination = paged(session, ContextRow, conditions, query)
    counts = _counts(session, [row.id for row in rows])
    return [_view(row, counts) for row in rows], pagination


def delete(session: Session, principal: Principal, id: str, match: str | None) -> None:
    """Take a window out of sight, with all that is in it."""
    row = _locked(session, principal, id)
    check_match(row, match)
    row.deleted_at = utc_now()
    row.touch()
    session.add(row)
    sessions.used(session, row.session_id)
    _tell(session, row, EventType.CONTEXT_DELETED)


def items(
    session: Session, principal: Principal, id: str, query: PageQuery
) -> tuple[list[domain.Item], Pagination]:
    """A page of what is in a window, in the order in which it came. Raises NotFoundError."""
    return _page(session, get(session, principal, id).id, query)


def item(session: Session, principal: Principal, id: str, item_id: str) -> domain.Item:
    """An item of a window. Raises NotFoundError."""
    get(session, principal, id)
    return _item_view(_item(session, id, item_id))


def add(
    session: Session, principal: Principal, id: str, body: domain.ItemCreate
) -> domain.AddedItem:
    """Put an item into a window; what is over the bounds leaves it. Raises ValidationError for an
    item that is over them alone, ConflictError where the session takes no new work."""
    sessions.usable(session, principal, get(session, principal, id).session_id)
    row = _locked(session, principal, id)
    if (problem := _config(row).problem(body)) is not None:
        raise refused("content", problem)
    made = _put(session, row, body)
    evicted = _evict(session, row)
    _tell(session, row, EventType.CONTEXT_UPDATED, [made.id], evicted)
    return domain.AddedItem.model_validate({**dict(_item_view(made)), "evicted": evicted})


def remove(
    session: Session, principal: Principal, id: str, item_id: str, match: str | None
) -> None:
    """Take an item out of a window. Raises NotFoundError."""
    row = _locked(session, principal, id)
    found = _item_view(_item(session, id, item_id))
    check_match(found, match)
    _drop(session, [item_id])
    row.touch()
    session.add(row)
    sessions.used(session, row.session_id)
    _tell(session, row, EventType.CONTEXT_UPDATED, removed=[item_id])


def due(session: Session) -> list[str]:
    """Windows with items whose time is over, some of them."""
    row = ContextItemRow
    over = (~_superseded(row), col(row.expires_at) <= utc_now())
    return sorted(session.exec(select(row.context_id).where(*over).distinct().limit(_BATCH)))


def age(session: Session, id: str) -> None:
    """Drop the items of a window whose time is over, and tell it."""
    row = locks.get_one(session, ContextRow, id)
    gone = _drop_aged(session, row, utc_now())
    if gone and _there(row):
        row.touch()
        session.add(row)
        _tell(session, row, EventType.CONTEXT_UPDATED, removed=gone)


def purge(session: Session, limit: int) -> int:
    """Forget at most `limit` items of windows that were deleted; gives how many."""
    deleted = select(ContextRow.id).where(col(ContextRow.deleted_at).is_not(None))
    of_them = select(ContextItemRow.id).where(col(ContextItemRow.context_id).in_(deleted))
    some = col(ContextItemRow.id).in_(of_them.limit(limit))
    return session.exec(sqlalchemy.delete(ContextItemRow).where(some)).rowcount


def _locked(session: Session, principal: Principal, id: str) -> ContextRow:
    """The window with its session, for who is to change what is in it."""
    locks.get_one(session, SessionRow, get(session, principal, id).session_id)
    locks.get_one(session, ContextRow, id)
    return get(session, principal, id)


def _check_room(session: Session, session_id: str) -> None:
    here = (ContextRow.session_id == session_id, col(ContextRow.deleted_at).is_(None))
    counted = select(func.count()).select_from(ContextRow).where(*here, ~_superseded(ContextRow))
    if session.exec(counted).one() >= domain.MOST_WINDOWS:
        raise ConflictError(
            f"session {session_id} has {domain.MOST_WINDOWS} context windows, as many as allowed:"
            " delete some first",
            quota="contextWindows",
            limit=domain.MOST_WINDOWS,
        )


def _put(session: Session, window: ContextRow, body: domain.ItemCreate) -> ContextItemRow:
    """The row of a new item, behind all others of its window."""
    window.numbered += 1
    now, policy = utc_now(), _config(window).retention_policy
    row = ContextItemRow(
        id=new_id(ITEM),
        context_id=window.id,
        number=window.numbered,
        type=body.type,
        content=body.content,
        details=body.metadata.model_dump(mode="json", exclude_unset=True),
        importance=body.importance,
        tokens=body.tokens,
        created_at=now,
        expires_at=policy.expiry(body.importance, now),
    )
    session.add(row)
    return row


def _evict(session: Session, window: ContextRow) -> list[str]:
    """Drop what a window has over its bounds: what is too old, then the least important, then the
    oldest; gives the ids."""
    window.touch()
    session.add(window)
    session.flush()
    now, bounds = utc_now(), _config(window)
    gone = _drop_aged(session, window, now)
    count, tokens = _counts(session, [window.id], now).get(window.id, (0, 0))
    surplus = count - bounds.max_size
    surplus_tokens = tokens - bounds.max_tokens if bounds.max_tokens is not None else 0
    if surplus <= 0 and surplus_tokens <= 0:
        return gone
    least = _least(session, window.id, now, surplus, surplus_tokens)
    _drop(session, least)
    return [*gone, *least]


def _least(
    session: Session, context_id: str, now: datetime, surplus: int, surplus_tokens: int
) -> list[str]:
    """The items that leave a window so that so many are gone, and so many tokens."""
    row = ContextItemRow
    columns = (col(row.importance), col(row.number), col(row.tokens), col(row.id))
    ordered = sqlalchemy.select(*columns).where(*_living([context_id], now)).order_by(*columns[:2])
    with session.execute(ordered, execution_options={"yield_per": _SOME}) as found:
        weights = (Weight(*each) for each in found)
        return [each.id for each in domain.leaving(weights, surplus, surplus_tokens)]


def _drop_aged(session: Session, window: ContextRow, now: datetime) -> list[str]:
    row = ContextItemRow
    over = (row.context_id == window.id, ~_superseded(row), col(row.expires_at) <= now)
    # sorted here: the database would look through the whole window for the order
    gone = [id for _, id in sorted(session.exec(select(row.number, row.id).where(*over)))]
    _drop(session, gone)
    return gone


def _drop(session: Session, ids: list[str]) -> None:
    if ids:
        gone = sqlalchemy.delete(ContextItemRow).where(col(ContextItemRow.id).in_(ids))
        session.exec(gone, execution_options=_UNSYNCHRONISED)


def _item(session: Session, context_id: str, id: str) -> ContextItemRow:
    named = select(ContextItemRow).where(ContextItemRow.id == id, *_living([context_id]))
    row = session.exec(named).first()
    if row is None:
        raise NotFoundError("context item", id)
    return row


def _living(ids: list[str], now: datetime | None = None) -> list[ColumnElement[bool]]:
    """The condition that items are in one of some windows now: every read judges their age."""
    row = ContextItemRow
    young = or_(col(row.expires_at).is_(None), col(row.expires_at) > (now or utc_now()))
    return [col(row.context_id).in_(ids), ~_superseded(row), young]


def _superseded(row: type[ContextRow] | type[ContextItemRow]) -> ColumnElement[bool]:
    return col(row.superseded_by).is_not(None)


def _there(row: ContextRow) -> bool:
    return row.deleted_at is None and row.superseded_by is None


def _counts(
    session: Session, ids: list[str], now: datetime | None = None
) -> dict[str, tuple[int, int]]:
    """How many items, and how many tokens, are in each of some windows."""
    row = ContextItemRow
    counted = sqlalchemy.select(col(row.context_id), func.count(), func.sum(row.tokens))
    found = session.execute(counted.where(*_living(ids, now)).group_by(col(row.context_id)))
    return {id: (count, int(tokens)) for id, count, tokens in found}


def _config(row: ContextRow) -> ContextConfig:
    return ContextConfig.model_validate(row.config)


def _page(
    session: Session, context_id: str, query: PageQuery
) -> tuple[list[domain.Item], Pagination]:
    rows, pagination = paged(session, ContextItemRow, _living([context_id]), query, by="number")
    return [_item_view(row) for row in rows], pagination


def _item_view(row: ContextItemRow) -> domain.Item:
    said = {"metadata": row.details, "tokens_estimated": row.details.get("tokens") is None}
    return domain.Item.model_validate({**row.model_dump(exclude={"details"}), **said})


def _view(row: ContextRow, counts: dict[str, tuple[int, int]]) -> domain.Context:
    count, tokens = counts.get(row.id, (0, 0))
    present = {"item_count": count, "token_count": tokens}
    return domain.Context.model_validate({**row.model_dump(), **present})


def _filled(session: Session, row: ContextRow) -> domain.FilledContext:
    """A window with the first page of what is in it."""
    first, _ = _page(session, row.id, PageQuery(limit=domain.SHOWN))
    view = _view(row, _counts(session, [row.id]))
    return domain.FilledContext.model_validate({**dict(view), "items": first})


def _tell(
    session: Session,
    row: ContextRow,
    kind: EventType,
    added: list[str] | None = None,
    removed: list[str] | None = None,
) -> None:
    """Append an event of a window to the log of its session, without what is in it."""
    session.flush()
    here = _counts(session, [row.id]) if _there(row) else {}
    count, tokens = here.get(row.id, (0, 0))
    brief = {
        "id": row.id,
        "itemCount": count,
        "tokenCount": tokens,
        "added": (added or [])[:_TOLD],
        "removed": (removed or [])[:_TOLD],
    }
    sessions.tell(session, session.get_one(SessionRow, row.session_id), kind, context=brief)
