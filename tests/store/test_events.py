"""The event log: gapless for each subject, and forgotten from its old end only."""

from collections.abc import Callable
from datetime import timedelta
from itertools import product

import pytest
from sqlmodel import col, select

from director.domain.events import CATALOGUE, EventType, Wanted
from director.domain.times import utc_now
from director.store import events, returns
from director.store.engine import Store
from director.store.events import ForgottenError
from director.store.tables import EventRow, RunRow

HOUR = timedelta(hours=1)


def told(store: Store, *subjects: str, hours_ago: int = 0) -> None:
    """Append an event for each subject, made so long ago."""
    with store.write() as session:
        for subject in subjects:
            events.append(
                session,
                EventType.SESSION_UPDATED,
                subject=subject,
                owner_id="usr_1",
                data={"sessionId": subject},
            )
            events.write(session)
            row = session.exec(select(EventRow).order_by(col(EventRow.id).desc())).first()
            assert row is not None
            row.created_at = utc_now() - hours_ago * HOUR
            session.add(row)


def purge(store: Store, limit: int = 100) -> int:
    """Forget what is older than an hour."""
    with store.write() as session:
        return events.purge(session, utc_now() - HOUR, limit)


def purged(store: Store) -> int:
    """The cursor up to which events are gone."""
    with store.read() as session:
        return events.purged(session)


def kept(store: Store) -> list[tuple[str, int]]:
    """Subject and seq of what a listener can still read."""
    with store.read() as session:
        found = events.after(session, events.purged(session), 100)
    return [(event.subject, event.seq) for event in found]


def rows(store: Store) -> int:
    """How many rows the log takes."""
    with store.read() as session:
        return len(session.exec(select(EventRow.id)).all())


def test_what_is_old_is_gone_and_the_rest_is_kept(store: Store) -> None:
    told(store, "a", "b", "a", hours_ago=2)
    told(store, "b", "c")

    assert (purge(store), purge(store)) == (3, 0)

    assert purged(store) == 3
    assert kept(store) == [("b", 2), ("c", 1)]


def test_nothing_old_leaves_everything(store: Store) -> None:
    told(store, "a", "b")
    assert (purge(store), purged(store)) == (0, 0)
    assert kept(store) == [("a", 1), ("b", 1)]


def test_an_empty_log_has_nothing_to_forget(store: Store) -> None:
    assert (purge(store), purged(store)) == (0, 0)


def test_a_subject_counts_on_after_all_its_events_are_gone(store: Store) -> None:
    told(store, "a", "a", "a", hours_ago=2)
    purge(store)

    told(store, "a")

    assert kept(store) == [("a", 4)]


def test_each_call_forgets_a_bounded_number_from_the_old_end(store: Store) -> None:
    told(store, *"abcab", hours_ago=2)
    assert [purge(store, 2) for _ in range(4)] == [2, 2, 1, 0]
    assert purged(store) == 5
    assert kept(store) == []


def test_an_old_event_behind_a_young_one_waits_for_it(store: Store) -> None:
    told(store, "a", hours_ago=2)
    told(store, "b")
    told(store, "c", hours_ago=2)

    assert purge(store) == 1

    assert kept(store) == [("b", 1), ("c", 1)], "a listener resumes by one cursor"


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_a_subject_leaves_one_empty_row_however_often_it_is_told(store: Store, limit: int) -> None:
    for _ in range(3):
        told(store, "a", "b", "a", hours_ago=2)
        while purge(store, limit) == limit:
            pass
        assert rows(store) == 2
    with store.read() as session:
        assert {str(row.data) for row in session.exec(select(EventRow))} == {"{}"}
    told(store, "a", "b")
    assert kept(store) == [("a", 7), ("b", 4)]


def test_what_is_read_is_what_is_wanted(store: Store) -> None:
    kinds = [EventType.SESSION_UPDATED, EventType.STEP_ENDED]
    with store.write() as session:
        for kind, owner, parent, workflow in product(kinds, "ab", ["ses_1", None], ["wf_1", None]):
            where = {"session_id": parent, "workflow_id": workflow}
            events.append(session, kind, subject="s", owner_id=owner, data={}, **where)
    types = [None, frozenset({EventType.STEP_ENDED}), frozenset[EventType]()]
    with store.read() as session:
        everything = events.after(session, 0, 100)
        for asked in product([None, "a"], types, [None, "ses_1"], [None, "wf_1"]):
            wanted = Wanted(*asked)
            found, cursor = events.read(session, 0, 16, wanted, 100)
            assert [event.id for event in found] == [
                event.id for event in everything if wanted.takes(event)
            ]
            assert cursor == 16


def test_reading_ends_at_the_limit_and_goes_on_behind_it(store: Store) -> None:
    told(store, *"aabab")
    with store.read() as session:
        found, cursor = events.read(session, 1, 5, Wanted(), 2)
        assert ([event.id for event in found], cursor) == ([2, 3], 3)
        found, cursor = events.read(session, cursor, 5, Wanted(), 2)
        assert ([event.id for event in found], cursor) == ([4, 5], 5)
        assert events.read(session, cursor, 5, Wanted(), 2) == ([], 5)
        assert events.read(session, 0, 3, Wanted(), 9)[1] == 3, "not beyond what is asked for"


def test_what_is_forgotten_is_not_read_as_if_it_had_never_been(store: Store) -> None:
    told(store, "a", "b", "a", hours_ago=2)
    told(store, "a")
    purge(store)
    with store.read() as session:
        assert [event.id for event in events.read(session, 3, 4, Wanted(), 9)[0]] == [4]
        for cursor in (0, 2):
            with pytest.raises(ForgottenError) as caught:
                events.read(session, cursor, 4, Wanted(), 9)
            assert caught.value.oldest == 3


def test_a_lost_sandbox_is_told_as_the_catalogue_says(
    store: Store, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    with store.write() as session:
        returns.begin_elsewhere(session, session.get_one(RunRow, run_id))
    with store.read() as session:
        event = events.after(session, 0, 100)[-1]
    shape = CATALOGUE[event.type].data
    assert event.type is EventType.WORKFLOW_SANDBOX_LOST
    assert (
        shape.model_validate(event.data).model_dump(mode="json", exclude_unset=True) == event.data
    )
