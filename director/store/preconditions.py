"""ETags of rows, and `If-Match` judged inside the transaction that changes the row."""

import hashlib
from datetime import datetime
from typing import Protocol

from director.domain.errors import PreconditionError


class Timed(Protocol):
    """A row, or what the API shows of it."""

    @property
    def id(self) -> str: ...

    @property
    def updated_at(self) -> datetime: ...


def etag(row: Timed) -> str:
    """The entity tag of a resource: it changes whenever its row does."""
    seen = f"{row.id} {row.updated_at.isoformat()}"
    return f'"{hashlib.sha256(seen.encode()).hexdigest()[:20]}"'


def check_match(row: Timed, if_match: str | None) -> None:
    """Raise PreconditionError unless `If-Match` is absent, `*`, or names the present version."""
    if if_match is None or if_match.strip() == "*":
        return
    tags = [tag.strip().removeprefix("W/") for tag in if_match.split(",")]
    if (present := etag(row)) not in tags:
        raise PreconditionError("the resource has changed since it was read", etag=present)
