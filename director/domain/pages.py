"""Pages of lists."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from director.domain.base import Shape

DEFAULT_LIMIT, MAX_LIMIT = 20, 100


class Order(StrEnum):
    """From which end a list is shown."""

    ASC = "asc"
    DESC = "desc"


class PageQuery(Shape):
    """Which part of a list is wanted; out of range is an error, never clamped."""

    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT
    offset: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0
    cursor: str | None = None
    order: Order = Order.DESC


class Pagination(Shape):
    """Where a page lies in its list."""

    total: Annotated[int, Field(description="With a cursor, as it was for the first page.")]
    limit: int
    offset: int
    has_more: bool
    next_cursor: str | None = None
