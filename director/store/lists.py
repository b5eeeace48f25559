"""Pages of a query: newest first, stable, with a total and a cursor."""

import re
from typing import Any, TypeVar

from sqlalchemy import func
from sqlmodel import Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from director.domain.errors import ValidationError
from director.domain.ids import is_id
from director.domain.pages import PageQuery, Pagination

Row = TypeVar("Row", bound=SQLModel)

_TOTAL = re.compile(r"[0-9]{1,15}")


def paged(
    session: Session, row: type[Row], conditions: list[Any], query: PageQuery
) -> tuple[list[Row], Pagination]:
    """The rows of a page by descending id (ids sort by time), and where it lies.

    A cursor is the last id of the page before, which stays right while rows are added, and the
    total that was counted for the first page: counting again would make a deep page the slower the
    longer the list is."""
    behind, total = (None, None) if query.cursor is None else _read(query.cursor)
    if total is None:
        total = session.exec(select(func.count()).select_from(row).where(*conditions)).one()
    key = col(row.id)  # type: ignore[attr-defined]
    statement: SelectOfScalar[Row] = select(row).where(*conditions).order_by(key.desc())
    if behind is not None:
        statement = statement.where(key < behind)
    found = list(session.exec(statement.offset(query.offset).limit(query.limit + 1)))
    rows, more = found[: query.limit], len(found) > query.limit
    return rows, Pagination(
        total=total,
        limit=query.limit,
        offset=query.offset,
        has_more=more,
        next_cursor=f"{rows[-1].id}.{total}" if more else None,  # type: ignore[attr-defined]
    )


def _read(cursor: str) -> tuple[str, int | None]:
    """The id and the total of a cursor; an id alone is one as well."""
    id, dot, total = cursor.partition(".")
    if not is_id(id.partition("_")[0], id) or (dot and not _TOTAL.fullmatch(total)):
        issue = "is no cursor of this API; send the nextCursor of the page before"
        detail = {"field": "cursor", "issue": issue, "value": cursor[:80]}
        raise ValidationError(f"Invalid input data: cursor: {issue}", **detail, errors=[detail])
    return id, int(total) if dot else None
