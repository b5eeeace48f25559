"""Users, their logins and the refresh tokens of each login."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache

import sqlalchemy
from sqlalchemy import ColumnElement, Executable, Index, and_, bindparam, inspect, or_, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import Field, Session, col, delete, func, select, update

from director.domain.errors import ConflictError, NotFoundError
from director.domain.ids import USER, new_id
from director.domain.pages import PageQuery, Pagination
from director.domain.security_events import SecurityEventType
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.store import locks, security_events
from director.store.base import Bytewise, Row, TimedRow, UtcDateTime
from director.store.lists import paged

REFRESH_LIFE = timedelta(days=30)
GRACE = timedelta(seconds=5)
_LOGIN = "lgn"


class UserRow(TimedRow, table=True):
    """A user; the name is unique whatever its case."""

    __tablename__ = "users"
    __table_args__ = (Index("uq_users_username", text("lower(username)"), unique=True),)

    id: str = Field(primary_key=True)
    username: str
    password_hash: str
    role: str
    disabled: bool = False


class LoginRow(Row, table=True):
    """A login: the family of all tokens that came from one password check."""

    __tablename__ = "logins"

    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    created_at: datetime = Field(sa_type=UtcDateTime)
    revoked_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class RefreshTokenRow(Row, table=True):
    """A refresh token, known by its SHA-256 only."""

    __tablename__ = "refresh_tokens"

    hash: str = Field(primary_key=True)
    login_id: str = Field(foreign_key="logins.id", index=True)
    expires_at: datetime = Field(sa_type=UtcDateTime, index=True)
    superseded_at: datetime | None = Field(default=None, sa_type=UtcDateTime)


class Refusal(StrEnum):
    """Why a refresh token gives nothing."""

    UNKNOWN = "unknown"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REUSED = "reused"


@dataclass(frozen=True)
class Rotated:
    """A refresh token was exchanged for the next one of its login."""

    user: UserRow
    login_id: str


def create_user(session: Session, username: str, password_hash: str, role: Role) -> UserRow:
    """Add a user. Raises ConflictError where the name is taken, in any case."""
    row = UserRow(id=new_id(USER), username=username, password_hash=password_hash, role=role.value)
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        raise ConflictError(f"the username {username!r} is taken", username=username) from None
    return row


def any_user(session: Session) -> bool:
    """Tell whether there is a user at all."""
    return session.exec(select(UserRow.id).limit(1)).first() is not None


def get_user(session: Session, user_id: str) -> UserRow:
    """Read a user. Raises NotFoundError."""
    if (row := session.get(UserRow, user_id)) is None:
        raise NotFoundError("user", user_id)
    return row


def by_username(session: Session, username: str) -> UserRow | None:
    """Find a user by name, whatever its case."""
    # as both databases do it, whatever the language of the server
    lower = "".join(char.lower() if char.isascii() else char for char in username)
    named = func.lower(col(UserRow.username), type_=Bytewise()) == lower
    return session.exec(select(UserRow).where(named)).first()


def list_users(session: Session, query: PageQuery) -> tuple[list[UserRow], Pagination]:
    """Read one page of the users, newest first."""
    return paged(session, UserRow, [], query)


def update_user(
    session: Session,
    user_id: str,
    *,
    password_hash: str | None = None,
    role: Role | None = None,
    disabled: bool | None = None,
) -> UserRow:
    """Change what is given; what really changes ends all logins of the user.

    Raises NotFoundError, and ConflictError where no enabled admin would be left."""
    _lock_admins(session, user_id)
    row = get_user(session, user_id)
    wanted = {"password_hash": password_hash, "role": role and role.value, "disabled": disabled}
    changes = {
        name: value
        for name, value in wanted.items()
        if value is not None and value != getattr(row, name)
    }
    if not changes:
        return row
    if "role" in changes or "disabled" in changes:
        _keep_an_admin(session, row, {"role": row.role, "disabled": row.disabled, **changes})
    row.sqlmodel_update(changes)
    row.touch()
    session.add(row)
    revoke_all(session, user_id, utc_now())
    return row


def _lock_admins(session: Session, user_id: str) -> None:
    """Lock a user, and all admins of whom one must be left, in one order."""
    which = or_(and_(*_enabled_admin()), col(UserRow.id) == user_id)
    ordered = select(UserRow).where(which).order_by(col(UserRow.id))
    fresh = {"populate_existing": True}
    session.exec(ordered.with_for_update(key_share=True), execution_options=fresh).all()


def _enabled_admin() -> tuple[ColumnElement[bool], ...]:
    return col(UserRow.role) == Role.ADMIN.value, col(UserRow.disabled).is_(False)


def _keep_an_admin(session: Session, row: UserRow, future: dict[str, object]) -> None:
    if future["role"] == Role.ADMIN and not future["disabled"]:
        return
    if session.exec(select(UserRow.id).where(*_enabled_admin())).all() == [row.id]:
        raise ConflictError(
            f"{row.username!r} is the last enabled admin: make another user an admin first",
            username=row.username,
        )


def open_login(
    session: Session, user_id: str, verified_hash: str, refresh_hash: str, now: datetime
) -> str | None:
    """Open a login with its first refresh token and give its id.

    `verified_hash` is the password hash that was checked outside of this transaction: None is
    given where the password was changed, or the user disabled, in the meantime."""
    row = locks.get(session, UserRow, user_id)
    if row is None or row.disabled or row.password_hash != verified_hash:
        return None
    session.exec(delete(RefreshTokenRow).where(col(RefreshTokenRow.expires_at) <= now))
    login = LoginRow(id=new_id(_LOGIN), user_id=user_id, created_at=now)
    session.add(login)
    session.flush()
    _add_token(session, refresh_hash, login.id, now)
    return login.id


def rotate(session: Session, token_hash: str, next_hash: str, now: datetime) -> Rotated | Refusal:
    """Supersede a refresh token by its successor.

    The token before the present one may be sent again for `GRACE` (an answer was lost, two tabs
    refreshed at once) and leads to the same successor; any other reuse ends the login. That must
    be committed although the caller is refused, so nothing is raised here."""
    token = locks.get(session, RefreshTokenRow, token_hash)
    if token is None:
        return Refusal.UNKNOWN
    if (user := live_user(session, token.login_id)) is None:
        return Refusal.REVOKED
    if token.superseded_at is not None:
        if _in_grace(session, token.superseded_at, next_hash, now):
            return Rotated(user, token.login_id)
        revoke_login(session, token.login_id, now)
        security_events.note(
            session,
            SecurityEventType.TOKEN_REUSED,
            owner_id=user.id,
            subject=user.id,
            rule="refreshToken",
            message=f"a refresh token of {user.username!r} was used twice; its login has ended",
            details={"userId": user.id},
        )
        return Refusal.REUSED
    if token.expires_at <= now:
        return Refusal.EXPIRED
    token.superseded_at = now
    session.add(token)
    _add_token(session, next_hash, token.login_id, now)
    return Rotated(user, token.login_id)


def _in_grace(session: Session, superseded_at: datetime, next_hash: str, now: datetime) -> bool:
    successor = session.get(RefreshTokenRow, next_hash)
    is_present = successor is not None and successor.superseded_at is None
    return is_present and now - superseded_at <= GRACE


def _add_token(session: Session, token_hash: str, login_id: str, now: datetime) -> None:
    session.add(RefreshTokenRow(hash=token_hash, login_id=login_id, expires_at=now + REFRESH_LIFE))


def live_user(session: Session, login_id: str) -> UserRow | None:
    """Read the user of a login that is not revoked, unless the user is disabled."""
    of_login = select(UserRow).join(LoginRow).where(LoginRow.id == login_id)
    return session.exec(of_login.where(*_live())).first()


def principal(session: Session, login_id: str) -> Principal | None:
    """Who a login stands for, with the role of now; None where it is revoked, or its user
    disabled."""
    found = session.execute(_principal(), {"login_id": login_id}).first()
    if found is None:
        return None
    user_id, username, role = found
    return Principal(user_id=user_id, username=username, role=Role(role), login_id=login_id)


@cache
def _principal() -> Executable:
    """Made once, and without a row's object: every request asks it."""
    user, login = inspect(UserRow).local_table, inspect(LoginRow).local_table
    return (
        sqlalchemy.select(user.c.id, user.c.username, user.c.role)
        .join_from(user, login)
        .where(login.c.id == bindparam("login_id"), *_live())
    )


def _live() -> tuple[ColumnElement[bool], ...]:
    return col(LoginRow.revoked_at).is_(None), col(UserRow.disabled).is_(False)


def live_logins(session: Session, login_ids: Collection[str]) -> set[str]:
    """Those of some logins that still count, e.g. for the WebSockets that they opened."""
    found = select(LoginRow.id).join(UserRow).where(col(LoginRow.id).in_(login_ids), *_live())
    return set(session.exec(found))


def revoke_login(session: Session, login_id: str, now: datetime) -> int:
    """End one login with all its tokens; give how many were ended (0 or 1)."""
    return _revoke(session, col(LoginRow.id) == login_id, now)


def revoke_all(session: Session, user_id: str, now: datetime) -> int:
    """End all logins of a user; give how many were ended."""
    return _revoke(session, col(LoginRow.user_id) == user_id, now)


def _revoke(session: Session, which: ColumnElement[bool], now: datetime) -> int:
    open_ones = update(LoginRow).where(which, col(LoginRow.revoked_at).is_(None))
    return session.exec(open_ones.values(revoked_at=now)).rowcount
