"""What the API shows to a worker: that for a minute it may do one thing with one object there."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import jwt

from director.domain.errors import AuthenticationError, AuthorizationError
from director.keys import Keys

LIFE = timedelta(seconds=60)

_AUDIENCE = "director-worker"

Verb = Literal["read"]
"""What may be done with an object."""


class Passes:
    """Makes and checks passes. A pass is none of a user's tokens, and no such token is a pass."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = Keys(keys)

    def make(self, host_id: str, object_id: str, verb: Verb, now: datetime | None = None) -> str:
        """A pass that is good for `LIFE`, on one host, for one object and one verb."""
        return self._keys.signed(_AUDIENCE, object_id, LIFE, now, host=host_id, verb=verb)

    def check(self, shown: str, host_id: str, object_id: str, verb: Verb) -> None:
        """Raise AuthenticationError for what is no pass or has expired, AuthorizationError for a
        pass for something else."""
        try:
            claims = self._keys.read(shown, _AUDIENCE, ("host", "verb"))
        except (jwt.InvalidTokenError, ValueError):
            message = "a pass is wanted that is not older than a minute, signed with our key"
            raise AuthenticationError(message) from None
        if (claims["host"], claims["sub"], claims["verb"]) != (host_id, object_id, verb):
            raise AuthorizationError("the pass is for something else")
