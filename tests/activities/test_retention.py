"""What is kept for a time only goes, a bit at a time, and nothing else does."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, update
from sqlmodel import col, select

from director.activities.retention import Kept, Retention
from director.domain.events import EventType
from director.domain.security_events import SecurityEventType
from director.domain.times import utc_now
from director.store import events, security_events
from director.store.engine import Store
from director.store.tables import EventRow, IdempotencyRow, SecurityEventRow


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path / 'director.db'}")
    store.create_tables()
    yield store
    store.close()


def fill(store: Store) -> None:
    """1500 events of ten subjects, the first 1200 made ten days ago, and an expired answer."""
    with store.write() as session:
        for number in range(1500):
            subject = f"run_{number % 10}"
            kind = EventType.WORKFLOW_PROGRESS
            events.append(session, kind, subject=subject, owner_id="usr_1", data={"n": number})
        events.write(session)
        old = update(EventRow).where(EventRow.id <= 1200)  # type: ignore[operator]
        session.exec(old.values(created_at=utc_now() - timedelta(days=10)))
        of = {"id": "idm_1", "principal_id": "usr_1", "route": "r", "key": "k"}
        session.add(IdempotencyRow(**of, fingerprint="f", expires_at=utc_now()))


def left(store: Store) -> tuple[int, int]:
    """Events that a listener can still be told, and idempotency rows."""
    with store.read() as session:
        answers = session.exec(select(func.count()).select_from(IdempotencyRow)).one()
        return len(events.after(session, events.purged(session), 10_000)), answers


async def drop_all(store: Store) -> None:
    """As many rounds as it takes: each lasts a second at most, however little it did in that."""
    retention = Retention(store, Kept(events=timedelta(days=7)), period=timedelta(0))
    before = None
    while (now := left(store)) != before:
        before = now
        await retention.drop_old()


async def test_what_is_too_old_goes_and_the_rest_stays(store: Store) -> None:
    fill(store)
    await drop_all(store)
    assert left(store) == (300, 0)


async def test_nothing_goes_that_is_kept_for_ever(store: Store) -> None:
    fill(store)
    await Retention(store, Kept()).drop_old()
    assert left(store) == (1500, 0)


async def test_it_looks_again_only_after_a_while(store: Store) -> None:
    retention = Retention(store, Kept(events=timedelta(days=7)), period=timedelta(hours=1))
    await retention.drop_old()
    fill(store)
    await retention.drop_old()
    assert left(store) == (1500, 1)
    await drop_all(store)
    assert left(store) == (300, 0)


async def test_security_events_go_with_the_others(store: Store) -> None:
    with store.write() as session:
        for subject in ("old", "new"):
            kind = SecurityEventType.EXEC_DENIED
            given = {"owner_id": "usr_1", "rule": "r", "message": "m"}
            security_events.note(session, kind, subject=subject, **given)
        aged = update(SecurityEventRow).where(col(SecurityEventRow.subject) == "old")
        session.exec(aged.values(last_at=utc_now() - timedelta(days=10)))
    await Retention(store, Kept(events=timedelta(days=7))).drop_old()
    with store.read() as session:
        assert session.exec(select(SecurityEventRow.subject)).all() == ["new"]
