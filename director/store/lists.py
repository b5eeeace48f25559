"""Pages of a query: newest first, stable, with a total and a cursor."""

import re
from typing import Any, TypeVar

from sqlalchemy import func
from sqlalchemy.orm import InstrumentedAttribute
from sqlmodel import Session, SQLModel, select
from sqlmodel.sql.expression import SelectOfScalar

from director.domain.errors import refused
from director.domain.ids import is_id
from director.domain.pages import Order, PageQuery, Pagination

Row = TypeVar("Row", bound=SQLModel)

_NUMBER = re.compile(r"[0-9]{1,15}")


def paged(
    session: Session, row: type[Row], conditions: list[Any], query: PageQuery, by: str = "id"
) -> tuple[list[Row], Pagination]:
    """The rows of a page by descending id (ids sort by time), or by a column that numbers them, and
    where it lies; ascending where the query asks for that.

    A cursor is the last id or number of the page before, which stays right while rows are added,
    and the total that was counted for the first page: counting again would make a deep page the
    slower the longer the list is."""
    behind, total = (None, None) if query.cursor is None else _read(query.cursor, by)
    if total is None:
        total = session.exec(select(func.count()).select_from(row).where(*conditions)).one()
    key: InstrumentedAttribute[Any] = getattr(row, by)
    rising = query.order is Order.ASC
    ordered: SelectOfScalar[Row] = select(row).where(*conditions)
    statement = ordered.order_by(key.asc() if rising else key.desc())
    if behind is not None:
        statement = statement.where(key > behind if rising else key < behind)
    found = list(session.exec(statement.offset(query.offset).limit(query.limit + 1)))
    rows, more = found[: query.limit], len(found) > query.limit
    return rows, Pagination(
        total=total,
        limit=query.limit,
        offset=query.offset,
        has_more=more,
        next_cursor=f"{getattr(rows[-1], by)}.{total}" if more else None,
    )


def _read(cursor: str, by: str) -> tuple[str | int, int | None]:
    """The id or number and the total of a cursor; the first alone is one as well."""
    last, dot, total = cursor.partition(".")
    known = is_id(last.partition("_")[0], last) if by == "id" else _NUMBER.fullmatch(last)
    if not known or (dot and not _NUMBER.fullmatch(total)):
        issue = "is no cursor of this list; send the nextCursor of the page before"
        raise refused("cursor", issue, cursor[:80])
    return last if by == "id" else int(last), int(total) if dot else None
