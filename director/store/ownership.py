"""Who sees what: a resource belongs to the principal that made it; admins see all."""

from typing import Any

from sqlalchemy import ColumnElement, false
from sqlmodel import Session, col

from director.domain.users import Principal
from director.store.tables import (
    CheckpointRow,
    ContextRow,
    DepartmentRow,
    NetworkRow,
    SandboxRow,
    SessionRow,
    WorkflowRow,
)

InSession = DepartmentRow | WorkflowRow | CheckpointRow | SandboxRow | NetworkRow | ContextRow


def visible(principal: Principal, owner_id: str) -> bool:
    """Whether the principal may know that a resource of that owner exists."""
    return principal.sees_all or principal.user_id == owner_id


def owner_of(principal: Principal) -> str | None:
    """Whose resources the principal sees; None is everybody's."""
    return None if principal.sees_all else principal.user_id


def owned(principal: Principal, row: Any) -> list[ColumnElement[bool]]:
    """The condition that rows are the principal's own, unless it sees all."""
    return [] if principal.sees_all else [col(row.owner_id) == principal.user_id]


def seen_in(
    session: Session,
    principal: Principal,
    row: type[InSession],
    session_id: str | None,
) -> list[ColumnElement[bool]]:
    """The condition that the principal may see rows, of a session where one is given: what is in a
    session belongs to its owner, so that one of the two is all that is looked for."""
    if session_id is None:
        return owned(principal, row)
    parent = session.get(SessionRow, session_id)
    if parent is None or not visible(principal, parent.owner_id):
        return [false()]
    return [col(row.session_id) == session_id]
