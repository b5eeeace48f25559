"""What can go wrong, told to people.

DirectorError
├── ValidationError        400 VALIDATION_ERROR
├── AuthenticationError    401 AUTHENTICATION_ERROR
├── AuthorizationError     403 AUTHORIZATION_ERROR
├── NotFoundError          404 NOT_FOUND
├── MethodNotAllowedError  405 METHOD_NOT_ALLOWED
├── ConflictError          409 CONFLICT
├── GoneError              410 GONE
├── PreconditionError      412 PRECONDITION_FAILED
├── PayloadTooLargeError   413 PAYLOAD_TOO_LARGE
├── MediaTypeError         415 UNSUPPORTED_MEDIA_TYPE
├── RateLimitError         429 RATE_LIMIT_EXCEEDED
├── UnavailableError       503 SERVICE_UNAVAILABLE
│   └── HostAwayError
└── DeadlineError          504 TIMEOUT
"""

from typing import Any, ClassVar


class DirectorError(Exception):
    """An error with a code of the API, an HTTP status and details for the caller."""

    code: ClassVar[str] = "INTERNAL_ERROR"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class ValidationError(DirectorError):
    """The input is wrong; `field`, `issue` and `value` in the details say where."""

    code, status = "VALIDATION_ERROR", 400


def refused(field: str, issue: str, value: str | None = None) -> ValidationError:
    """A ValidationError of one problem that no model could see."""
    detail = {"field": field, "issue": issue}
    if value is not None:
        detail["value"] = value[:200]
    return ValidationError(f"Invalid input data: {field}: {issue}", **detail, errors=[detail])


class AuthenticationError(DirectorError):
    """Who the caller is cannot be told."""

    code, status = "AUTHENTICATION_ERROR", 401


class AuthorizationError(DirectorError):
    """The caller is known and may not do this."""

    code, status = "AUTHORIZATION_ERROR", 403


class NotFoundError(DirectorError, LookupError):
    """There is no such thing, or it is somebody else's."""

    code, status = "NOT_FOUND", 404

    def __init__(self, resource: str, id: str) -> None:
        super().__init__(f"{resource} {id[:80]!r} does not exist", resource=resource, id=id[:80])


class MethodNotAllowedError(DirectorError):
    """The path exists, the method does not."""

    code, status = "METHOD_NOT_ALLOWED", 405


class ConflictError(DirectorError):
    """The state of the resource does not allow this now."""

    code, status = "CONFLICT", 409


class GoneError(DirectorError):
    """It was there and is no longer kept."""

    code, status = "GONE", 410


class PreconditionError(DirectorError):
    """`If-Match` names a version that is no longer the present one."""

    code, status = "PRECONDITION_FAILED", 412


class PayloadTooLargeError(DirectorError):
    """The body is larger than allowed."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class MediaTypeError(DirectorError):
    """The content type of the body is not one that the route takes."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415


class RateLimitError(DirectorError):
    """The caller asks too often."""

    code, status = "RATE_LIMIT_EXCEEDED", 429


class UnavailableError(DirectorError, ConnectionError):
    """A part that the request needs does not answer now; the same request may work later."""

    code, status = "SERVICE_UNAVAILABLE", 503


class HostAwayError(UnavailableError):
    """A host does not answer now, or could not do in time what it was asked for."""


class DeadlineError(DirectorError, TimeoutError):
    """The work was not done in the time that was given."""

    code, status = "TIMEOUT", 504


class BrokenOffError(Exception):
    """What was given of a stream does not lead to a whole: it is to end so that this is seen."""
