"""Tokens and passwords: what proves who a caller is."""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import jwt
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from director.domain.base import Shape
from director.domain.errors import AuthenticationError
from director.domain.times import utc_now
from director.domain.users import Role
from director.keys import Keys, UnknownKeyError

ACCESS_LIFE = timedelta(minutes=15)
REFRESH_PREFIX = "drt_"

_AUDIENCE = "director-api"
_HASHES_AT_ONCE = 4  # each takes 64 MiB
_REMEMBERED = 1000
"""Access tokens of which it is known that they are good: to find out again costs as much as to
read a row."""


class Claims(Shape):
    """What an access token says: the user, the login and the role at the time of issue."""

    sub: str
    sid: str
    role: Role


class _Good(NamedTuple):
    claims: Claims
    until: datetime


class Passwords:
    """argon2id off the event loop, at most four at once."""

    def __init__(self, hasher: Argon2Hasher | None = None) -> None:
        self._hasher = PasswordHash((hasher or Argon2Hasher(),))
        self._dummy = self._hasher.hash(secrets.token_urlsafe())
        self._pool = ThreadPoolExecutor(_HASHES_AT_ONCE, thread_name_prefix="passwords")

    def hash_now(self, password: str) -> str:
        """Hash a password on this thread; for the roots, before anything is served."""
        return self._hasher.hash(password)

    async def hash(self, password: str) -> str:
        """Hash a password."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._hasher.hash, password)

    async def verify(self, password: str, known: str | None) -> bool:
        """Compare a password with a hash; None takes as long and is never right."""
        loop, hashed = asyncio.get_running_loop(), known or self._dummy
        same = await loop.run_in_executor(self._pool, self._hasher.verify, password, hashed)
        return same and known is not None


class Tokens:
    """Access tokens (JWT, checked without the database) and refresh tokens (opaque)."""

    def __init__(self, keys: Sequence[str], passwords: Passwords | None = None) -> None:
        self._keys = Keys(keys)
        self.passwords = passwords or Passwords()
        self._good: dict[str, _Good] = {}

    def access(self, user_id: str, login_id: str, role: Role, now: datetime | None = None) -> str:
        """Make an access token that is good for `ACCESS_LIFE`."""
        return self._keys.signed(
            _AUDIENCE, user_id, ACCESS_LIFE, now, sid=login_id, role=role.value
        )

    def verify(self, token: str) -> Claims:
        """Read an access token. Raises AuthenticationError that says what is wrong with it."""
        if (good := self._good.get(token)) is not None and utc_now() < good.until:
            return good.claims
        if token.startswith(REFRESH_PREFIX):
            raise AuthenticationError(
                "this is a refresh token, which is good for POST /v1/auth/refresh only:"
                " send the access token"
            )
        try:
            return self._decoded(token)
        except UnknownKeyError:
            raise AuthenticationError(
                "the access token was signed with a key that is not used any more: log in again"
            ) from None
        except jwt.ExpiredSignatureError:
            raise AuthenticationError(
                "the access token has expired: get a new one from POST /v1/auth/refresh"
            ) from None
        except (jwt.InvalidTokenError, ValueError):
            raise AuthenticationError(
                "the access token is not valid: it is garbled or not made by this server"
            ) from None

    def _decoded(self, token: str) -> Claims:
        claims = self._keys.read(token, _AUDIENCE, ("sid", "role"))
        good = _Good(Claims.model_validate(claims), datetime.fromtimestamp(claims["exp"], UTC))
        if len(self._good) >= _REMEMBERED:
            self._good.clear()
        self._good[token] = good
        return good.claims

    def first_refresh(self) -> str:
        """Make the first refresh token of a login, 256 random bits."""
        return REFRESH_PREFIX + secrets.token_urlsafe(32)

    def next_refresh(self, refresh_token: str) -> str:
        """Derive the successor of a refresh token, 256 bits that only the key's owner can tell.

        The same token has the same successor, so that a repeated refresh (its answer was lost)
        gets what the first one got and a login never has two branches."""
        message = b"refresh:" + refresh_token.encode(errors="replace")
        digest = self._keys.digest(message)
        return REFRESH_PREFIX + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def refresh_hash(refresh_token: str) -> str:
    """The SHA-256 under which a refresh token is stored."""
    return hashlib.sha256(refresh_token.encode(errors="replace")).hexdigest()
