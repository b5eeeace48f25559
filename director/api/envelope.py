"""The envelope of every answer: success, data or error, and metadata."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Generic, Literal, TypeVar

from director import API_VERSION
from director.domain.base import Shape
from director.domain.errors import DirectorError
from director.domain.pages import Pagination
from director.domain.times import Moment, utc_now

T = TypeVar("T")

request_id: ContextVar[str] = ContextVar("request_id", default="")


class Metadata(Shape):
    """When the answer was made, to which request, by which version of the API."""

    timestamp: Moment
    request_id: str
    version: str = API_VERSION


class PageMetadata(Metadata):
    """Metadata of a list."""

    pagination: Pagination


class Answer(Shape, Generic[T]):
    """A success with one object."""

    success: Literal[True] = True
    data: T
    metadata: Metadata


class ListAnswer(Shape, Generic[T]):
    """A success with one page of a list."""

    success: Literal[True] = True
    data: list[T]
    metadata: PageMetadata


class ErrorBody(Shape):
    """What went wrong: a code for programs, a message for people, details for both."""

    code: str
    message: str
    details: dict[str, Any] = {}


class ErrorAnswer(Shape):
    """A failure."""

    success: Literal[False] = False
    error: ErrorBody
    metadata: Metadata


class Deleted(Shape):
    """The answer of a delete."""

    id: str
    deleted: Literal[True] = True


def answer(data: T) -> Answer[T]:
    """Wrap one object."""
    return Answer[T].model_construct(success=True, data=data, metadata=_metadata())


def page(items: Sequence[T], pagination: Pagination) -> ListAnswer[T]:
    """Wrap one page of a list."""
    metadata = PageMetadata(timestamp=utc_now(), request_id=request_id.get(), pagination=pagination)
    return ListAnswer[T].model_construct(success=True, data=list(items), metadata=metadata)


def failure(error: DirectorError) -> dict[str, Any]:
    """Wrap an error, ready to be serialised."""
    body = ErrorBody(code=error.code, message=error.message, details=error.details)
    return ErrorAnswer(error=body, metadata=_metadata()).model_dump(mode="json")


def _metadata() -> Metadata:
    return Metadata(timestamp=utc_now(), request_id=request_id.get())
