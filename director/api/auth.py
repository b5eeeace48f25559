"""Log in, refresh, log out, and who am I."""

import structlog
from fastapi import APIRouter

from director.api.envelope import Answer, answer
from director.api.errors import documented
from director.api.principals import BearerDep, PrincipalDep, TokensDep
from director.api.requests import StrictRoute
from director.api.state import StoreDep
from director.api.tokens import ACCESS_LIFE, Tokens, refresh_hash
from director.domain.base import Shape
from director.domain.errors import AuthenticationError
from director.domain.times import utc_now
from director.domain.users import Credentials, RefreshBody, Role, TokenPair, User, UserBrief
from director.store import security_events, users
from director.store.engine import Store

log = structlog.get_logger()
router = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictRoute)

_REFUSALS = {
    users.Refusal.UNKNOWN: "the refresh token is not known here: log in again",
    users.Refusal.EXPIRED: "the refresh token has expired: log in again",
    users.Refusal.REVOKED: "this login has ended: log in again",
    users.Refusal.REUSED: "the refresh token was used twice, so this login has ended: log in again",
}


class LoggedOut(Shape):
    """How many logins were ended."""

    ended_logins: int


@router.post("/login", operation_id="auth.login", responses=documented())
async def login(body: Credentials, store: StoreDep, tokens: TokensDep) -> Answer[TokenPair]:
    """Exchange a username and a password for an access token and a refresh token."""
    user = await store.fetch(lambda session: users.by_username(session, body.username))
    known = None if user is None or user.disabled else user.password_hash
    matches = await tokens.passwords.verify(body.password, known)
    refresh_token = tokens.first_refresh()
    login_id = await _open_login(store, user, refresh_token) if user and matches else None
    if user is None or login_id is None:
        log.warning("login refused", user_id=user and user.id)
        who = (user.id, user.username) if user else (None, None)
        await store.run(lambda session: security_events.login_failed(session, *who))
        raise AuthenticationError("wrong username or password")
    return answer(_pair(tokens, user, login_id, refresh_token))


@router.post("/refresh", operation_id="auth.refresh", responses=documented())
async def refresh(
    store: StoreDep, tokens: TokensDep, bearer: BearerDep, body: RefreshBody | None = None
) -> Answer[TokenPair]:
    """Exchange a refresh token for a new pair; it comes as Bearer, or in the body, which wins."""
    token = (body and body.refresh_token) or (bearer and bearer.credentials)
    if not token:
        raise AuthenticationError(
            "the refresh token is missing: send it as 'Authorization: Bearer TOKEN'"
            ' or as {"refreshToken": TOKEN}'
        )
    successor = tokens.next_refresh(token)
    outcome = await _rotate(store, token, successor)
    if isinstance(outcome, users.Refusal):
        log.warning("refresh refused", reason=outcome.value)
        raise AuthenticationError(_REFUSALS[outcome])
    return answer(_pair(tokens, outcome.user, outcome.login_id, successor))


@router.post("/logout", operation_id="auth.logout", responses=documented())
async def logout(principal: PrincipalDep, store: StoreDep) -> Answer[LoggedOut]:
    """End this login: its access and refresh tokens count no more."""
    login_id = principal.login_id
    ended = await store.run(lambda session: users.revoke_login(session, login_id, utc_now()))
    return answer(LoggedOut(ended_logins=ended))


@router.post("/logout-all", operation_id="auth.logoutAll", responses=documented())
async def logout_all(principal: PrincipalDep, store: StoreDep) -> Answer[LoggedOut]:
    """End all logins of the user, this one included."""
    user_id = principal.user_id
    ended = await store.run(lambda session: users.revoke_all(session, user_id, utc_now()))
    return answer(LoggedOut(ended_logins=ended))


@router.get("/me", operation_id="auth.me", responses=documented())
async def me(principal: PrincipalDep, store: StoreDep) -> Answer[User]:
    """Tell which user the token stands for."""
    row = await store.fetch(lambda session: users.get_user(session, principal.user_id))
    return answer(User.model_validate(row))


async def _open_login(store: Store, user: users.UserRow, refresh_token: str) -> str | None:
    return await store.run(
        lambda session: users.open_login(
            session, user.id, user.password_hash, refresh_hash(refresh_token), utc_now()
        )
    )


async def _rotate(store: Store, token: str, successor: str) -> users.Rotated | users.Refusal:
    return await store.run(
        lambda session: users.rotate(
            session, refresh_hash(token), refresh_hash(successor), utc_now()
        )
    )


def _pair(tokens: Tokens, user: users.UserRow, login_id: str, refresh_token: str) -> TokenPair:
    role = Role(user.role)
    access_token = tokens.access(user.id, login_id, role)
    return TokenPair(
        token=access_token,
        access_token=access_token,
        refresh_token=refresh_token,
        expires_in=int(ACCESS_LIFE.total_seconds()),
        refresh_expires_in=int(users.REFRESH_LIFE.total_seconds()),
        user=UserBrief(id=user.id, username=user.username, role=role),
    )
