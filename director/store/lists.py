"""Pages of a query: newest first, stable, with a total and a cursor."""

from typing import Any, TypeVar

from sqlalchemy import func
from sqlmodel import Session, SQLModel, col, select
from sqlmodel.sql.expression import SelectOfScalar

from director.domain.errors import ValidationError
from director.domain.ids import is_id
from director.domain.pages import PageQuery, Pagination

Row = TypeVar("Row", bound=SQLModel)


def paged(
    session: Session, row: type[Row], conditions: list[Any], query: PageQuery
) -> tuple[list[Row], Pagination]:
    """The rows of a page by descending id (ids sort by time), and where it lies.

    A cursor is the last id of the page before; it stays right while rows are added."""
    total = session.exec(select(func.count()).select_from(row).where(*conditions)).one()
    key = col(row.id)  # type: ignore[attr-defined]
    statement: SelectOfScalar[Row] = select(row).where(*conditions).order_by(key.desc())
    if query.cursor is not None:
        statement = statement.where(key < _checked(query.cursor))
    found = list(session.exec(statement.offset(query.offset).limit(query.limit + 1)))
    rows, more = found[: query.limit], len(found) > query.limit
    return rows, Pagination(
        total=total,
        limit=query.limit,
        offset=query.offset,
        has_more=more,
        next_cursor=rows[-1].id if more else None,  # type: ignore[attr-defined]
    )


def _checked(cursor: str) -> str:
    if not is_id(cursor.partition("_")[0], cursor):
        issue = "is no cursor of this API; send the nextCursor of the page before"
        detail = {"field": "cursor", "issue": issue, "value": cursor[:80]}
        raise ValidationError(f"Invalid input data: cursor: {issue}", **detail, errors=[detail])
    return cursor
