"""Context windows in the store: never over their bounds, and nothing lost but what is evicted."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import Session, func, select

from director.activities.context import Ageing
from director.activities.retention import Kept, Retention
from director.domain.context import AddedItem, ContextCreate, Item, ItemCreate
from director.domain.errors import ConflictError, NotFoundError
from director.domain.messages import MessageCreate
from director.domain.pages import Order, PageQuery
from director.domain.sessions import SessionCreate
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.store import context, events, messages, sessions
from director.store.engine import Store
from director.store.tables import ContextItemRow, MessageRow

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")
BOB = Principal(user_id="usr_bob", username="bob", role=Role.OPERATOR, login_id="lgn_2")
ALL = PageQuery(limit=100, order=Order.ASC)


@pytest.fixture
def session_id(store: Store) -> str:
    with store.write() as session:
        return sessions.create(session, ADA, SessionCreate(type="a", name="s")).id


@pytest.fixture
def window(store: Store, session_id: str) -> Callable[..., str]:
    """Make a window; gives its id."""

    def window(**config: Any) -> str:
        body = {"sessionId": session_id, "name": "w", "config": config}
        with store.write() as session:
            return context.create(session, ADA, ContextCreate.model_validate(body)).id

    return window


@pytest.fixture
def other(url: str) -> Iterator[Store]:
    """The store of another process."""
    store = Store(url)
    yield store
    store.close()


def add(store: Store, id: str, content: Any = "x", **metadata: Any) -> AddedItem:
    body = ItemCreate.model_validate({"type": "note", "content": content, "metadata": metadata})
    return store.transact(lambda session: context.add(session, ADA, id, body))


def inside(store: Store, id: str) -> list[Item]:
    """All that is in a window, as it came."""
    with store.read() as session:
        return context.items(session, ADA, id, ALL)[0]


def rows(store: Store, row: Any = ContextItemRow) -> int:
    with store.read() as session:
        return session.exec(select(func.count()).select_from(row)).one()


def aged(store: Store, by: timedelta) -> None:
    """Let time pass for all items."""
    with store.write() as session:
        for row in session.exec(select(ContextItemRow)):
            row.expires_at = row.expires_at and row.expires_at - by
            session.add(row)


def test_over_its_size_the_least_important_and_of_those_the_oldest_leaves(
    store: Store, window: Callable[..., str]
) -> None:
    id = window(maxSize=3)
    low, first, second = add(store, id, priority="low"), add(store, id), add(store, id)
    assert add(store, id, priority="high").evicted == [low.id]
    assert add(store, id).evicted == [first.id]
    late = add(store, id, importance=0.1)
    assert late.evicted == [late.id], "all others are more important"
    assert second.id in {each.id for each in inside(store, id)}
    assert len(inside(store, id)) == 3 == rows(store)


def test_over_its_tokens_so_many_leave_as_must(store: Store, window: Callable[..., str]) -> None:
    id = window(maxTokens=10)
    ids = [add(store, id, tokens=4, importance=each).id for each in (0.3, 0.9, 0.2)]
    assert [each.id for each in inside(store, id)] == ids[:2]
    added = add(store, id, "12345678" * 5, importance=1)
    assert (added.tokens, added.tokens_estimated) == (10, True)
    assert added.evicted == ids[:2]
    with store.read() as session:
        shown = context.shown(session, ADA, id)
    assert (shown.item_count, shown.token_count) == (1, 10)


def test_what_is_too_old_is_seen_by_nobody_and_goes_with_the_next_that_comes(
    store: Store, window: Callable[..., str]
) -> None:
    id = window(retentionPolicy={"maxAge": 60_000, "importanceThreshold": 0.9})
    old, important = add(store, id), add(store, id, priority="high")
    assert (old.expires_at is None, important.expires_at is None) == (False, True)
    aged(store, timedelta(minutes=1))
    assert [each.id for each in inside(store, id)] == [important.id]
    with store.read() as session, pytest.raises(NotFoundError):
        context.item(session, ADA, id, old.id)
    new = add(store, id)
    assert new.evicted == [old.id]
    assert [each.id for each in inside(store, id)] == [important.id, new.id]


def test_a_round_drops_what_is_too_old_and_tells_it_once(
    store: Store, window: Callable[..., str]
) -> None:
    young, old = window(), window(retentionPolicy={"maxAge": 60_000})
    add(store, young)
    ids = [add(store, old).id for _ in range(3)]
    with store.read() as session:
        before, etag = events.newest(session), context.shown(session, ADA, old).updated_at
    aged(store, timedelta(minutes=1))
    for _ in range(2):
        asyncio.run(Ageing(store).drop_aged())
    assert rows(store) == 1
    with store.read() as session:
        (told,) = events.after(session, before, 10)
        assert context.shown(session, ADA, old).updated_at > etag
    assert told.data["context"] == {
        "id": old,
        "itemCount": 0,
        "tokenCount": 0,
        "added": [],
        "removed": ids,
    }


@pytest.mark.parametrize("size", [5, 100])
def test_twenty_that_add_at_once_never_exceed_the_bound_and_lose_only_what_is_evicted(
    store: Store, other: Store, window: Callable[..., str], size: int
) -> None:
    id = window(maxSize=size, maxTokens=5 * size)
    seen: list[int] = []

    def added(number: int) -> AddedItem:
        made = add((store, other)[number % 2], id, tokens=5, importance=number % 3 / 2)
        seen.append(len(inside(store, id)))
        return made

    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(added, range(20)))

    evicted = [gone for each in made for gone in each.evicted]
    assert len(evicted) == len(set(evicted)) == max(0, 20 - size)
    kept = {each.id for each in inside(store, id)}
    assert kept == {each.id for each in made} - set(evicted)
    assert max(seen) <= size


def test_messages_that_come_at_once_have_one_order(
    store: Store, other: Store, session_id: str
) -> None:
    def say(number: int) -> str:
        body = MessageCreate(role="user", content=number)
        store_of_it = (store, other)[number % 2]
        return store_of_it.transact(lambda s: messages.create(s, ADA, session_id, body)).id

    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(say, range(20)))

    with store.read() as session:
        log = messages.listed(session, ADA, session_id, ALL)[0]
        newest = messages.listed(session, ADA, session_id, PageQuery(limit=100))[0]
        told = [each for each in events.after(session, 0, 100) if each.type == "message.created"]
    assert {each.id for each in log} == set(ids)
    assert newest == log[::-1]
    assert [each.data["message"]["id"] for each in told] == [each.id for each in log]
    assert [each.seq for each in told] == list(range(2, 22)), "behind the session's own making"


def test_pages_go_on_where_they_ended_although_items_come_and_go(
    store: Store, window: Callable[..., str]
) -> None:
    id = window()
    made = [add(store, id, number).id for number in range(9)]

    def page(order: Order, cursor: str | None = None) -> tuple[list[str], str | None]:
        with store.read() as session:
            query = PageQuery(limit=4, order=order, cursor=cursor)
            found, pagination = context.items(session, ADA, id, query)
            return [each.id for each in found], pagination.next_cursor

    newest, cursor = page(Order.DESC)
    assert newest == made[:4:-1]
    add(store, id, "came meanwhile")
    store.transact(lambda s: context.remove(s, ADA, id, made[5], None))
    assert page(Order.DESC, cursor)[0] == made[4:0:-1]
    oldest, cursor = page(Order.ASC)
    assert oldest == made[:4]
    assert page(Order.ASC, cursor)[0][:2] == [made[4], made[6]]


def test_a_window_is_seen_by_its_owner_only(store: Store, window: Callable[..., str]) -> None:
    id = window()
    item_id = add(store, id).id
    body = ItemCreate(type="text", content="x")
    with store.write() as session:
        assert context.listed(session, BOB, PageQuery(), None)[0] == []
        for refused in (
            lambda: context.shown(session, BOB, id),
            lambda: context.items(session, BOB, id, ALL),
            lambda: context.item(session, BOB, id, item_id),
            lambda: context.add(session, BOB, id, body),
            lambda: context.remove(session, BOB, id, item_id, None),
            lambda: context.delete(session, BOB, id, None),
        ):
            with pytest.raises(NotFoundError):
                refused()


def test_a_session_has_so_many_windows_and_messages_and_says_so(
    store: Store,
    session_id: str,
    window: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("director.domain.context.MOST_WINDOWS", 2)
    monkeypatch.setattr("director.domain.messages.MOST_MESSAGES", 1)
    first, _ = window(), window()
    with pytest.raises(ConflictError, match="2 context windows") as refused:
        window()
    assert refused.value.details["quota"] == "contextWindows"
    store.transact(lambda session: context.delete(session, ADA, first, None))
    window()

    def say(session: Session) -> None:
        messages.create(session, ADA, session_id, MessageCreate(role="user", content="x"))

    store.transact(say)
    with pytest.raises(ConflictError, match="1 messages"):
        store.transact(say)


async def test_what_is_in_a_deleted_window_or_session_is_forgotten(
    store: Store, session_id: str, window: Callable[..., str]
) -> None:
    gone, here = window(), window()
    add(store, gone)
    add(store, here)
    body = MessageCreate(role="user", content="x")
    store.transact(lambda session: messages.create(session, ADA, session_id, body))
    store.transact(lambda session: context.delete(session, ADA, gone, None))
    await Retention(store, Kept()).drop_old()
    assert (rows(store), rows(store, MessageRow)) == (1, 1)

    store.transact(lambda s: sessions.delete(s, ADA, session_id, None, force=True))
    with store.read() as session:
        assert context.listed(session, ADA, PageQuery(), None)[0] == []
        with pytest.raises(NotFoundError):
            context.shown(session, ADA, here)
        with pytest.raises(NotFoundError):
            messages.listed(session, ADA, session_id, ALL)
    await Retention(store, Kept()).drop_old()
    assert (rows(store), rows(store, MessageRow)) == (0, 0)


def test_what_is_written_begins_the_idle_time_anew(store: Store) -> None:
    body = SessionCreate.model_validate({"type": "a", "name": "s", "config": {"timeout": 60_000}})
    with store.write() as session:
        id = sessions.create(session, ADA, body).id
        wanted = {"sessionId": id, "name": "w"}
        window = context.create(session, ADA, ContextCreate.model_validate(wanted)).id

    def renewed(write: Callable[[Session], Any]) -> bool:
        with store.write() as session:
            row = sessions.get(session, ADA, id)
            row.expires_at = utc_now() + timedelta(seconds=30)
            session.add(row)
        store.transact(write)
        with store.read() as session:
            expires = sessions.get(session, ADA, id).expires_at
            return expires is not None and expires > utc_now() + timedelta(seconds=50)

    item = ItemCreate(type="text", content="x")
    said = MessageCreate(role="user", content="x")
    assert renewed(lambda session: messages.create(session, ADA, id, said))
    assert renewed(lambda session: context.add(session, ADA, window, item))
    with store.write() as session:
        sessions.get(session, ADA, id).expires_at = utc_now() - timedelta(seconds=1)
    for write in (
        lambda session: messages.create(session, ADA, id, said),
        lambda session: context.add(session, ADA, window, item),
    ):
        with pytest.raises(ConflictError, match="expired"):
            store.transact(write)
