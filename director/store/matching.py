"""Which departments of a session can take a step that names none, and what to say if none can."""

from sqlmodel import Session, col, select

from director.domain.base import Json
from director.domain.departments import DepartmentStatus, Wish
from director.domain.errors import ConflictError
from director.store.tables import DepartmentRow

_SHOWN = 20


def matching(session: Session, session_id: str, wish: Wish) -> list[DepartmentRow]:
    """The departments that are as wished, oldest first; draining ones only where no other is."""
    rows = _present(session, session_id)
    found = [row for row in rows if wish.met_by(row.domain, row.capabilities)]
    return [row for row in found if _takes_runs(row)] or found


def check_startable(session: Session, session_id: str, wish: Wish) -> None:
    """Raise ConflictError where no new run can have what one of its steps wishes: the department
    that it names is draining, or none that matches takes new runs."""
    if wish.is_open:
        if not any(_takes_runs(row) for row in matching(session, session_id, wish)):
            raise ConflictError(
                unmatched(session, session_id, wish),
                domain=wish.domain,
                requires=list(wish.requires),
                departments=[_brief(row) for row in _present(session, session_id)[:_SHOWN]],
            )
    elif wish.department_id is not None:
        row = session.get_one(DepartmentRow, wish.department_id)
        if not _takes_runs(row):
            message = f"department {row.id} is {row.status} and takes no new runs"
            raise ConflictError(message, departmentId=row.id, departmentStatus=row.status)


def unmatched(session: Session, session_id: str, wish: Wish) -> str:
    """Say what was asked for, and what there is."""
    rows = _present(session, session_id)
    there = "; ".join(_described(row) for row in rows[:_SHOWN]) or "none"
    more = f"; and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
    asked = f"no department of session {session_id} can take a step that asks for {wish}"
    return f"{asked}; its departments: {there}{more}"


def _present(session: Session, session_id: str) -> list[DepartmentRow]:
    here = (DepartmentRow.session_id == session_id, col(DepartmentRow.deleted_at).is_(None))
    return list(session.exec(select(DepartmentRow).where(*here).order_by(col(DepartmentRow.id))))


def _takes_runs(row: DepartmentRow) -> bool:
    return row.status != DepartmentStatus.DRAINING


def _described(row: DepartmentRow) -> str:
    can = ", ".join(row.capabilities) or "none"
    return f"{row.id} ({row.status}, domain {row.domain!r}, capabilities {can})"


def _brief(row: DepartmentRow) -> Json:
    return {
        "id": row.id,
        "name": row.name,
        "domain": row.domain,
        "capabilities": row.capabilities,
        "status": row.status,
    }
