"""What a checkpoint keeps of context and messages comes back as it was, and nothing is erased."""

import json

import pytest
from sqlmodel import Session, select

from director.domain.context import ContextCreate, ItemCreate
from director.domain.copies import Copies
from director.domain.ids import new_id
from director.domain.messages import MessageCreate
from director.domain.pages import Order, PageQuery
from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.store import context, copies, locks, messages, sessions
from director.store.engine import Store
from director.store.tables import ContextItemRow, ContextRow, MessageRow, SessionRow

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")
ALL = PageQuery(limit=100, order=Order.ASC)
RESTORE = new_id("rst")


class Desk:
    """A session with what is said and kept in it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.id = self.session()

    def session(self) -> str:
        body = SessionCreate(type="a", name="s")
        return self.store.transact(lambda s: sessions.create(s, ADA, body)).id

    def window(self, name: str, *contents: str, size: int = 3) -> str:
        items = [{"type": "text", "content": each} for each in contents]
        body = {"sessionId": self.id, "name": name, "items": items, "config": {"maxSize": size}}
        wanted = ContextCreate.model_validate(body)
        return self.store.transact(lambda s: context.create(s, ADA, wanted)).id

    def add(self, window: str, content: str) -> None:
        body = ItemCreate.model_validate({"type": "text", "content": content})
        self.store.transact(lambda s: context.add(s, ADA, window, body))

    def say(self, content: str) -> None:
        body = MessageCreate(role="user", content=content, metadata={"é": [1, 0.1]})
        self.store.transact(lambda s: messages.create(s, ADA, self.id, body))

    def taken(self) -> Copies:
        """Copies that went to a file and back."""
        with self.store.read() as session:
            found = copies.read(session, self.id)
        return Copies.model_validate(json.loads(found.model_dump_json()))

    def put(self, kept: Copies, session_id: str, restore_id: str = RESTORE) -> None:
        def put(session: Session) -> None:
            parent = locks.get_one(session, SessionRow, session_id)
            copies.put_context(session, parent, kept.context, restore_id)
            copies.put_messages(session, parent, kept.messages, restore_id)

        self.store.transact(put)

    def shown(self, session_id: str | None = None) -> tuple[dict[str, list[str]], list[str]]:
        """What windows hold, by their names, and what was said."""
        id = session_id or self.id
        with self.store.read() as session:
            windows, _ = context.listed(session, ADA, ALL, id)
            held = {
                one.name: [item.content for item in context.items(session, ADA, one.id, ALL)[0]]
                for one in windows
            }
            return held, [one.content for one in messages.listed(session, ADA, id, ALL)[0]]


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def test_what_came_evicted_or_deleted_since_is_undone_and_nothing_is_erased(desk: Desk) -> None:
    kept, deleted = desk.window("kept", "a", "b", "c"), desk.window("deleted", "d")
    desk.say("one")
    desk.say("two")
    before, taken = desk.shown(), desk.taken()
    desk.add(kept, "e")
    desk.add(kept, "f")
    desk.say("three")
    desk.window("later", "g")
    desk.store.transact(lambda s: context.delete(s, ADA, deleted, None))
    assert desk.shown() == ({"kept": ["c", "e", "f"], "later": ["g"]}, ["one", "two", "three"])
    safety = desk.taken()

    desk.put(taken, desk.id)

    assert desk.shown() == before
    assert desk.taken().messages == taken.messages
    with desk.store.read() as session:
        for row, count in ((ContextRow, 1), (ContextItemRow, 3), (MessageRow, 1)):
            superseded = session.exec(select(row).where(row.superseded_by == RESTORE)).all()
            assert len(superseded) == count, row.__name__

    desk.add(kept, "h")
    desk.say("four")
    assert desk.shown() == ({"deleted": ["d"], "kept": ["b", "c", "h"]}, ["one", "two", "four"])
    with desk.store.read() as session:
        numbers = [one.number for one in session.exec(select(MessageRow))]
    assert sorted(numbers) == [1, 2, 3, 4], "a place is given once"

    desk.put(safety, desk.id, new_id("rst"))
    assert desk.shown() == ({"kept": ["c", "e", "f"], "later": ["g"]}, ["one", "two", "three"])


def test_copies_are_as_plain_data_the_same_and_in_the_same_order(desk: Desk) -> None:
    for name in ("one", "two"):
        desk.window(name, *"abcdefg", size=7)
    for number in range(5):
        desk.say(f"{number}")
    assert desk.taken() == desk.taken()
    assert [each.content for each in desk.taken().context[1].items] == list("abcdefg")
    assert [each.content for each in desk.taken().messages] == list("01234")


def test_a_fork_has_the_same_under_ids_of_its_own(desk: Desk) -> None:
    desk.window("kept", "a", "b")
    desk.say("one")
    before, other = desk.shown(), desk.session()

    desk.put(desk.taken().anew(), other)

    assert desk.shown(other) == before == desk.shown()
    with desk.store.read() as session:
        assert all(row.superseded_by is None for row in session.exec(select(ContextItemRow)))
