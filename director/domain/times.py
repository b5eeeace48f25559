"""One clock and one spelling of time: aware UTC inside, RFC 3339 with `Z` outside."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import PlainSerializer


def utc_now() -> datetime:
    """The present, aware and in UTC."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC with milliseconds, e.g. `2023-06-30T12:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_millis(millis: int) -> timedelta:
    """A duration of the API (integer milliseconds) as a timedelta."""
    return timedelta(milliseconds=millis)


def to_millis(duration: timedelta) -> int:
    """A duration in whole milliseconds, as the API gives it."""
    return round(duration.total_seconds() * 1000)


Moment = Annotated[datetime, PlainSerializer(rfc3339, return_type=str, when_used="json")]
