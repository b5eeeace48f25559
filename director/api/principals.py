"""Who makes a request, and whether they may: dependencies for the routes."""

from typing import Annotated

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from director.api.tokens import Tokens
from director.domain.errors import AuthenticationError, AuthorizationError
from director.domain.users import Principal, Role
from director.store import users
from director.store.engine import Store


class _Bearer(HTTPBearer):
    """The scheme, as the API's description names it."""

    def __init__(self) -> None:
        super().__init__(
            auto_error=False,
            scheme_name="bearer",
            bearerFormat="JWT",
            description="The `accessToken` of `POST /v1/auth/login`.",
        )


BearerDep = Annotated[HTTPAuthorizationCredentials | None, Security(_Bearer())]


async def _tokens(request: Request) -> Tokens:
    tokens: Tokens = request.app.state.tokens
    return tokens


TokensDep = Annotated[Tokens, Depends(_tokens)]


async def principal_of(token: str, store: Store, tokens: Tokens) -> Principal:
    """Tell who an access token stands for. Raises AuthenticationError.

    The role is the one that the database has now."""
    claims = tokens.verify(token)
    principal = await store.look(lambda session: users.principal(session, claims.sid))
    if principal is None or principal.user_id != claims.sub:
        raise AuthenticationError("this login has ended: log in again")
    return principal


class _Login(_Bearer):
    """Tells who makes a request; in one, since each dependency costs as much as a look at a row."""

    async def __call__(self, request: Request) -> Principal:  # type: ignore[override]
        bearer = await super().__call__(request)
        if bearer is None:
            raise AuthenticationError(_why_no_token(request))
        state = request.app.state
        principal = await principal_of(bearer.credentials, state.store, state.tokens)
        structlog.contextvars.bind_contextvars(user_id=principal.user_id)
        return principal


def _why_no_token(request: Request) -> str:
    if "authorization" in request.headers:
        return "the Authorization header is not of the form 'Bearer TOKEN'"
    return "the access token is missing: send 'Authorization: Bearer TOKEN'"


PrincipalDep = Annotated[Principal, Security(_Login())]


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
