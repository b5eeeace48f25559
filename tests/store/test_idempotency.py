"""The rows of keys: there or not with what was made, one answer for good, and gone in time."""

from datetime import timedelta

import pytest
from sqlmodel import Session, func, select

from director.domain.times import utc_now
from director.store import idempotency
from director.store.engine import Store
from director.store.idempotency import KEPT, LEASE, Reply, Use
from director.store.tables import IdempotencyRow

USE = Use("usr_ada", "sessions.create", "key-1")
FIRST = Reply(201, b'{"first": 1}', {"Location": "/v1/sessions/ses_1"}, "ses_1")
SECOND = Reply(400, b'{"second": 2}', {}, None)
MOMENT = timedelta(seconds=1)


def claimed(store: Store, use: Use = USE) -> str:
    """The id of the row of a key that is used for the first time."""
    with store.write() as session:
        return idempotency.claim(session, use, "fingerprint").id


def found(store: Store, use: Use = USE) -> IdempotencyRow | None:
    with store.read() as session:
        return idempotency.find(session, use)


def concluded(store: Store, id: str, reply: Reply) -> Reply:
    with store.write() as session:
        return idempotency.conclude(session, session.get_one(IdempotencyRow, id), reply)


def expire(session: Session, row: IdempotencyRow) -> None:
    row.expires_at = utc_now() - MOMENT
    session.add(row)


def count(store: Store) -> int:
    with store.read() as session:
        return session.exec(select(func.count()).select_from(IdempotencyRow)).one()


def test_a_claimed_key_is_leased_for_a_minute_and_kept_for_a_day(store: Store) -> None:
    before = utc_now()
    claimed(store)
    row = found(store)

    assert row is not None
    assert (row.done, row.leased, row.status) == (False, True, None)
    assert row.lease_until is not None
    assert before + LEASE <= row.lease_until <= utc_now() + LEASE
    assert before + KEPT <= row.expires_at <= utc_now() + KEPT


def test_a_key_belongs_to_a_principal_and_a_route(store: Store) -> None:
    claimed(store)

    assert found(store, Use("usr_bob", USE.route, USE.key)) is None
    assert found(store, Use(USE.principal_id, "workflows.create", USE.key)) is None
    assert found(store, Use(USE.principal_id, USE.route, "KEY-1")) is None


def test_a_key_is_not_known_where_its_transaction_has_failed(store: Store) -> None:
    def fails() -> None:
        with store.write() as session:
            idempotency.claim(session, USE, "fingerprint")
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert found(store) is None


def test_the_first_answer_is_kept_byte_for_byte_whatever_comes_later(store: Store) -> None:
    id = claimed(store)

    assert concluded(store, id, FIRST) == FIRST
    assert concluded(store, id, SECOND) == FIRST
    row = found(store)
    assert row is not None
    assert (row.done, idempotency.reply_of(row)) == (True, FIRST)


def test_an_answer_that_is_known_before_the_end_is_the_answer(store: Store) -> None:
    with store.write() as session:
        row = idempotency.claim(session, USE, "fingerprint")
        idempotency.note(session, row, FIRST, known=True)
    row = found(store)  # type: ignore[assignment]

    assert (row.done, row.made, row.status) == (False, "ses_1", 201)
    assert concluded(store, row.id, SECOND) == FIRST


def test_an_answer_that_is_not_known_before_the_end_leaves_only_what_was_made(
    store: Store,
) -> None:
    with store.write() as session:
        row = idempotency.claim(session, USE, "fingerprint")
        idempotency.note(session, row, FIRST, known=False)
    row = found(store)  # type: ignore[assignment]

    assert (row.done, row.made, row.status, row.body) == (False, "ses_1", None, None)


def test_what_is_released_is_free_at_once_and_what_is_done_stays_done(store: Store) -> None:
    id = claimed(store)
    with store.write() as session:
        idempotency.release(session, [id])
    row = found(store)
    assert row is not None
    assert (row.done, row.leased) == (False, False)

    concluded(store, id, FIRST)
    with store.write() as session:
        idempotency.release(session, [id])
    row = found(store)
    assert row is not None
    assert row.done


def test_an_expired_key_is_as_unknown_and_can_be_claimed_anew(store: Store) -> None:
    id = claimed(store)
    with store.write() as session:
        expire(session, session.get_one(IdempotencyRow, id))

    assert found(store) is None
    assert claimed(store) != id
    assert found(store) is not None
    assert count(store) == 1


def test_a_new_key_takes_a_bounded_number_of_expired_ones_away(store: Store) -> None:
    with store.write() as session:
        session.add_all(
            IdempotencyRow(
                id=f"idm_{number:03}",
                principal_id="u",
                route="r",
                key=f"old-{number}",
                fingerprint="f",
                expires_at=utc_now() - MOMENT,
            )
            for number in range(250)
        )
    claimed(store)
    assert count(store) == 250 - 100 + 1
    for number in range(2):
        claimed(store, Use("u", "r", f"new-{number}"))
    assert count(store) == 3


def test_the_expired_are_found_by_an_index(store: Store) -> None:
    found = "SELECT id FROM idempotency WHERE expires_at <= '2030-01-01' ORDER BY expires_at"
    explain = {"sqlite": "EXPLAIN QUERY PLAN", "postgresql": "EXPLAIN"}[store.engine.dialect.name]
    with store.read() as session:
        connection = session.connection()
        if store.engine.dialect.name == "postgresql":  # it reads a small table whole if it may
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = connection.exec_driver_sql(f"{explain} {found} LIMIT 100").all()

    assert "ix_idempotency_expires_at" in str(plan)
