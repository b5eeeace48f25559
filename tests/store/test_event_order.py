"""The order of the event log is the order in which its transactions commit, on both databases."""

import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import pytest
from sqlalchemy import event
from sqlmodel import Session

from director.domain.events import Event, EventType
from director.store import events
from director.store.engine import Store

SECONDS = 20


def tell(session: Session, subject: str, **data: object) -> None:
    kind = EventType.WORKFLOW_PROGRESS
    events.append(session, kind, subject=subject, owner_id="usr_1", data=data)


class Tail:
    """Reads the log behind its cursor, again and again, as the hub does."""

    def __init__(self, store: Store) -> None:
        self.store, self.cursor = store, 0
        self.seen: list[Event] = []

    def look(self) -> list[Event]:
        """What is new."""
        with self.store.read() as session:
            found = events.after(session, self.cursor, 1000)
        self.cursor = found[-1].id if found else self.cursor
        self.seen += found
        return found

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look without a pause while the block lasts, and once more after it."""
        over = threading.Event()

        def look() -> None:
            while not over.is_set():
                self.look()

        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(look)
            yield
            over.set()
            work.result(SECONDS)
        self.look()


def told(found: list[Event]) -> list[str]:
    return [event.subject for event in found]


@pytest.fixture
def other(store: Store, url: str) -> Iterator[Store]:
    """The same database in another process, as it were."""
    other = Store(url)
    yield other
    other.close()


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_writer_that_is_held_open_takes_its_place_when_it_commits(
    store: Store, other: Store
) -> None:
    tail = Tail(store)
    with store.write() as session:
        tell(session, "slow")
        session.flush()
        with other.write() as quick:
            tell(quick, "quick")
        assert told(tail.look()) == ["quick"]

    assert told(tail.look()) == ["slow"]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_nobody_overtakes_a_writer_that_has_its_place_and_is_held_before_its_commit(
    store: Store, other: Store
) -> None:
    tail, placed, go = Tail(other), threading.Event(), threading.Event()

    @event.listens_for(store.engine, "commit")
    def hold(connection: object) -> None:
        placed.set()
        assert go.wait(SECONDS)

    def write(mine: Store, subject: str) -> None:
        with mine.write() as session:
            tell(session, subject)

    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(write, store, "slow")
        assert placed.wait(SECONDS)
        quick = pool.submit(write, other, "quick")
        with pytest.raises(TimeoutError):
            quick.result(0.5)
        assert tail.look() == [], "nobody is seen before the one that has the first place"
        go.set()
        slow.result(SECONDS)
        quick.result(SECONDS)

    assert told(tail.look()) == ["slow", "quick"]


def test_a_transaction_that_is_rolled_back_leaves_no_gap(store: Store) -> None:
    tail = Tail(store)
    for fails in (False, True, False):
        try:
            with store.write() as session:
                tell(session, "run")
                if fails:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert fails

    assert [(one.subject, one.seq) for one in tail.look()] == [("run", 1), ("run", 2)]


def test_a_tail_beside_many_writers_sees_every_event_once_and_in_order(
    store: Store, other: Store
) -> None:
    writers, turns, subjects = 8, 25, ["one", "two", "three"]
    tail = Tail(other)

    def work(number: int) -> None:
        dice, mine = random.Random(number), (store, other)[number % 2]
        for turn in range(turns):
            with mine.write() as session:
                for subject in dice.sample(subjects, dice.randint(1, 3)):
                    tell(session, subject, number=number, turn=turn)
                if dice.random() < 0.2:
                    session.flush()

    with tail.looking(), ThreadPoolExecutor(writers) as pool:
        for done in [pool.submit(work, number) for number in range(writers)]:
            done.result(60)

    seqs = defaultdict(list)
    for one in tail.seen:
        seqs[one.subject].append(one.seq)
    assert all(before.id < after.id for before, after in pairwise(tail.seen))
    assert {s: list(range(1, len(found) + 1)) for s, found in seqs.items()} == seqs
    expected = {(number, turn) for number in range(writers) for turn in range(turns)}
    assert {(one.data["number"], one.data["turn"]) for one in tail.seen} == expected
    with store.read() as session:
        assert [one.id for one in events.after(session, 0, 10_000)] == [one.id for one in tail.seen]
