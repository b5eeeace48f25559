"""What a host may say of what it was asked for, as the caller is told."""

from typing import Any

from director.domain.errors import (
    ConflictError,
    DirectorError,
    NotFoundError,
    PayloadTooLargeError,
    UnavailableError,
)

_KINDS: dict[str | None, type[DirectorError]] = {
    kind.code: kind
    for kind in (ConflictError, PayloadTooLargeError, NotFoundError, UnavailableError)
}


def refusal(code: str | None, message: str, details: dict[str, Any]) -> DirectorError | None:
    """What a host has said, as its own error said it; None for what the caller cannot mend."""
    if code == NotFoundError.code:
        return NotFoundError(**details)
    return _KINDS[code](message, **details) if code in _KINDS else None
