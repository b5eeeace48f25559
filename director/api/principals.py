"""Who makes a request, and whether they may: dependencies for the routes."""

from typing import Annotated

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from director.api.state import StoreDep
from director.api.tokens import Tokens
from director.domain.errors import AuthenticationError, AuthorizationError
from director.domain.users import Principal, Role
from director.store import users
from director.store.engine import Store

_bearer = HTTPBearer(
    auto_error=False,
    scheme_name="bearer",
    bearerFormat="JWT",
    description="The `accessToken` of `POST /v1/auth/login`.",
)

BearerDep = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def _tokens(request: Request) -> Tokens:
    tokens: Tokens = request.app.state.tokens
    return tokens


TokensDep = Annotated[Tokens, Depends(_tokens)]


async def principal_of(token: str, store: Store, tokens: Tokens) -> Principal:
    """Tell who an access token stands for. Raises AuthenticationError.

    The role is the one that the database has now."""
    claims = tokens.verify(token)
    user = await store.fetch(lambda session: users.live_user(session, claims.sid))
    if user is None or user.id != claims.sub:
        raise AuthenticationError("this login has ended: log in again")
    return Principal(
        user_id=user.id, username=user.username, role=Role(user.role), login_id=claims.sid
    )


async def login_is_live(login_id: str, store: Store) -> bool:
    """Tell whether a login still counts, for connections that outlive their token."""
    return await store.fetch(lambda session: users.login_is_live(session, login_id))


async def _principal(
    request: Request, bearer: BearerDep, store: StoreDep, tokens: TokensDep
) -> Principal:
    if bearer is None:
        raise AuthenticationError(_why_no_token(request))
    principal = await principal_of(bearer.credentials, store, tokens)
    structlog.contextvars.bind_contextvars(user_id=principal.user_id)
    return principal


def _why_no_token(request: Request) -> str:
    if "authorization" in request.headers:
        return "the Authorization header is not of the form 'Bearer TOKEN'"
    return "the access token is missing: send 'Authorization: Bearer TOKEN'"


PrincipalDep = Annotated[Principal, Depends(_principal)]


async def _editor(principal: PrincipalDep) -> Principal:
    if not principal.changes:
        raise AuthorizationError(
            f"the role {principal.role.value!r} may read only; this needs operator or admin",
            role=principal.role.value,
        )
    return principal


EditorDep = Annotated[Principal, Depends(_editor)]


async def _admin(principal: PrincipalDep) -> Principal:
    if principal.role is not Role.ADMIN:
        raise AuthorizationError(
            f"the role {principal.role.value!r} may not do this; it needs admin",
            role=principal.role.value,
        )
    return principal


ADMIN_ONLY = Depends(_admin)
AdminDep = Annotated[Principal, ADMIN_ONLY]
