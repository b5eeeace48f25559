from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlmodel import Session, col, select

from director.domain.errors import ConflictError, NotFoundError
from director.domain.pages import PageQuery
from director.domain.users import Role
from director.store import users
from director.store.engine import Store
from director.store.tables import SessionRow
from director.store.users import Refusal, Rotated

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def session(store: Store) -> Iterator[Session]:
    with store.write() as session:
        yield session


@pytest.fixture
def ada(session: Session) -> users.UserRow:
    return users.create_user(session, "Ada", "hash-1", Role.ADMIN)


def open_login(session: Session, user: users.UserRow, refresh_hash: str = "t1") -> str:
    login_id = users.open_login(session, user.id, user.password_hash, refresh_hash, NOW)
    assert login_id is not None
    return login_id


def test_a_username_is_found_and_taken_whatever_its_case(
    session: Session, ada: users.UserRow
) -> None:
    assert users.by_username(session, "aDA") == ada
    assert users.by_username(session, "Ad") is None
    with pytest.raises(ConflictError, match="'ADA' is taken"):
        users.create_user(session, "ADA", "hash-2", Role.VIEWER)


def test_an_unknown_user_is_not_found(session: Session) -> None:
    with pytest.raises(NotFoundError):
        users.get_user(session, "usr_1")
    with pytest.raises(NotFoundError):
        users.update_user(session, "usr_1", disabled=True)


def test_users_are_listed_newest_first(session: Session, ada: users.UserRow) -> None:
    bob = users.create_user(session, "bob", "hash", Role.VIEWER)
    rows, pagination = users.list_users(session, PageQuery())
    assert {row.id for row in rows} == {ada.id, bob.id}
    assert [row.id for row in rows] == sorted((ada.id, bob.id), reverse=True)
    assert pagination.total == 2


@pytest.mark.parametrize("change", [{"role": Role.VIEWER}, {"disabled": True}])
def test_the_last_enabled_admin_can_be_neither_demoted_nor_disabled(
    session: Session, ada: users.UserRow, change: dict[str, object]
) -> None:
    eve = users.create_user(session, "eve", "hash", Role.ADMIN)
    users.update_user(session, eve.id, disabled=True)
    with pytest.raises(ConflictError, match="last enabled admin"):
        users.update_user(session, ada.id, **change)  # type: ignore[arg-type]
    users.update_user(session, eve.id, disabled=False)
    users.update_user(session, ada.id, **change)  # type: ignore[arg-type]
    with pytest.raises(ConflictError, match="last enabled admin"):
        users.update_user(session, eve.id, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"password_hash": "new"}, {"role": Role.VIEWER}, {"disabled": True}]
)
def test_a_change_ends_the_logins_of_that_user_only(
    session: Session, ada: users.UserRow, change: dict[str, object]
) -> None:
    bob = users.create_user(session, "bob", "hash", Role.OPERATOR)
    hers, his = open_login(session, ada, "t1"), open_login(session, bob, "t2")
    users.update_user(session, bob.id, **change)  # type: ignore[arg-type]
    assert users.live_logins(session, [hers])
    assert not users.live_logins(session, [his])
    assert users.rotate(session, "t2", "t3", NOW) is Refusal.REVOKED


def test_an_update_that_changes_nothing_ends_no_login(session: Session, ada: users.UserRow) -> None:
    login_id = open_login(session, ada)
    users.update_user(session, ada.id, role=Role.ADMIN, disabled=False)
    assert users.live_logins(session, [login_id])


def test_no_login_opens_where_the_password_changed_after_it_was_checked(
    session: Session, ada: users.UserRow
) -> None:
    users.update_user(session, ada.id, password_hash="hash-2")
    assert users.open_login(session, ada.id, "hash-1", "t1", NOW) is None


def test_no_login_opens_for_a_user_who_was_disabled_in_the_meantime(session: Session) -> None:
    bob = users.create_user(session, "bob", "hash", Role.OPERATOR)
    users.update_user(session, bob.id, disabled=True)
    assert users.open_login(session, bob.id, "hash", "t1", NOW) is None


def test_revoking_one_login_leaves_the_others(session: Session, ada: users.UserRow) -> None:
    one, other = open_login(session, ada, "t1"), open_login(session, ada, "t2")
    assert users.revoke_login(session, one, NOW) == 1
    assert users.revoke_login(session, one, NOW) == 0
    assert not users.live_logins(session, [one])
    assert users.live_logins(session, [other])
    assert users.revoke_all(session, ada.id, NOW) == 1
    assert not users.live_logins(session, [other])


def test_a_refresh_token_is_exchanged_once(session: Session, ada: users.UserRow) -> None:
    login_id = open_login(session, ada)
    assert users.rotate(session, "t1", "t2", NOW) == Rotated(ada, login_id)
    assert users.rotate(session, "t2", "t3", NOW) == Rotated(ada, login_id)


def test_reuse_of_a_superseded_token_ends_the_login(session: Session, ada: users.UserRow) -> None:
    login_id = open_login(session, ada)
    users.rotate(session, "t1", "t2", NOW)
    assert users.rotate(session, "t1", "t2", NOW + 6 * SECOND) is Refusal.REUSED
    assert not users.live_logins(session, [login_id])
    assert users.rotate(session, "t2", "t3", NOW + 6 * SECOND) is Refusal.REVOKED


def test_the_token_before_the_present_one_may_be_repeated_for_five_seconds(
    session: Session, ada: users.UserRow
) -> None:
    login_id = open_login(session, ada)
    users.rotate(session, "t1", "t2", NOW)
    assert users.rotate(session, "t1", "t2", NOW + 5 * SECOND) == Rotated(ada, login_id)
    tokens = session.exec(select(users.RefreshTokenRow.hash)).all()
    assert sorted(tokens) == ["t1", "t2"], "a repeated refresh must not open a second branch"


def test_grace_is_not_for_the_token_before_the_last_but_one(
    session: Session, ada: users.UserRow
) -> None:
    login_id = open_login(session, ada)
    users.rotate(session, "t1", "t2", NOW)
    users.rotate(session, "t2", "t3", NOW)
    assert users.rotate(session, "t1", "t2", NOW) is Refusal.REUSED
    assert not users.live_logins(session, [login_id])


def test_a_refresh_token_lives_thirty_days(session: Session, ada: users.UserRow) -> None:
    open_login(session, ada)
    later = NOW + timedelta(days=30)
    assert users.rotate(session, "t1", "t2", later) is Refusal.EXPIRED
    assert isinstance(users.rotate(session, "t1", "t2", later - SECOND), Rotated)


def test_an_unknown_refresh_token_is_refused(session: Session) -> None:
    assert users.rotate(session, "t1", "t2", NOW) is Refusal.UNKNOWN


def test_a_new_login_sweeps_the_expired_tokens(session: Session, ada: users.UserRow) -> None:
    open_login(session, ada, "old")
    users.open_login(session, ada.id, ada.password_hash, "new", NOW + timedelta(days=31))
    assert session.exec(select(col(users.RefreshTokenRow.hash))).all() == ["new"]


def test_times_come_back_aware_and_a_row_knows_when_it_changed(store: Store) -> None:
    with store.write() as session:
        made = users.create_user(session, "ada", "hash", Role.ADMIN)
    with store.write() as session:
        users.update_user(session, made.id, password_hash="hash-2")
    with store.read() as session:
        row = users.get_user(session, made.id)
    assert row.created_at == made.created_at
    assert row.updated_at.tzinfo is UTC
    assert row.updated_at > row.created_at


def test_a_new_row_was_changed_when_it_was_made() -> None:
    made = [SessionRow(id="ses_1", owner_id="a", type="t", name="n") for _ in range(2000)]
    assert all(row.created_at == row.updated_at for row in made)
