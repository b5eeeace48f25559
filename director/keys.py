"""The installation's keys: they sign what the API gives its callers, and what it shows workers."""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import jwt

from director.domain.times import utc_now

_ALGORITHM, _ISSUER = "HS256", "director"
_CLAIMS = ["iss", "aud", "sub", "iat", "nbf", "exp", "jti"]
_CLOCK_SKEW = timedelta(seconds=5)  # between the clocks of several processes


class UnknownKeyError(jwt.InvalidTokenError):
    """A token was signed with a key that is not used any more."""


class Keys:
    """Makes and reads tokens (JWT). The first signs, all verify, so that keys can be rotated."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {hashlib.sha256(key.encode()).hexdigest()[:8]: key for key in keys}
        self._signing_id, self._signing_key = next(iter(self._keys.items()))

    def signed(
        self, audience: str, subject: str, life: timedelta, now: datetime | None = None, **more: Any
    ) -> str:
        """Make a token for an audience that is good for so long."""
        now = now or utc_now()
        claims = {
            "iss": _ISSUER,
            "aud": audience,
            "sub": subject,
            "iat": now,
            "nbf": now,
            "exp": now + life,
            "jti": secrets.token_urlsafe(16),
            **more,
        }
        return jwt.encode(claims, self._signing_key, _ALGORITHM, {"kid": self._signing_id})

    def read(self, token: str, audience: str, more: Sequence[str] = ()) -> dict[str, Any]:
        """The claims of a token that was made for an audience; all the usual ones, and `more`, are
        in there. Raises jwt.InvalidTokenError, whose kind says what is wrong."""
        if (key_id := jwt.get_unverified_header(token).get("kid")) is None:
            raise jwt.InvalidTokenError("no key id")
        if (key := self._keys.get(key_id)) is None:
            raise UnknownKeyError
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[_ALGORITHM],
            issuer=_ISSUER,
            audience=audience,
            leeway=_CLOCK_SKEW,
            options={"require": [*_CLAIMS, *more]},
        )
        return claims

    def digest(self, message: bytes) -> bytes:
        """What only the owner of the key can tell of a message."""
        return hmac.digest(self._signing_key.encode(), message, "sha256")
