"""`/departments`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import Session

from director.api.answers import created, versioned
from director.api.envelope import Answer, Deleted, ListAnswer, answer, page
from director.api.errors import documented
from director.api.idempotency import OnceDep
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import GatewayDep, MatchDep, PageDep, StoreDep
from director.domain.departments import (
    Department,
    DepartmentCreate,
    DepartmentMetrics,
    DepartmentUpdate,
)
from director.domain.errors import ConflictError, NotFoundError, PreconditionError
from director.store import departments, tickets

router = APIRouter(prefix="/departments", tags=["departments"], route_class=StrictRoute)


@router.post(
    "",
    status_code=201,
    response_model=Answer[Department],
    operation_id="departments.create",
    responses=documented(NotFoundError, ConflictError),
)
async def create(body: DepartmentCreate, principal: EditorDep, once: OnceDep) -> Response:
    """Create a department in a session."""
    return await once.write(
        lambda s: created("departments", departments.view(departments.create(s, principal, body)))
    )


@router.get("", operation_id="departments.list", responses=documented())
async def list_(
    principal: PrincipalDep,
    store: StoreDep,
    query: PageDep,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
    domain: str | None = None,
) -> ListAnswer[Department]:
    """List departments, newest first."""
    return page(
        *await store.fetch(lambda s: departments.listed(s, principal, query, session_id, domain))
    )


@router.get("/{department_id}", operation_id="departments.get", responses=documented(NotFoundError))
async def get(
    department_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[Department]:
    """Get a department."""
    view = await store.fetch(
        lambda s: departments.view(departments.get(s, principal, department_id))
    )
    versioned(response, view)
    return answer(view)


@router.get(
    "/{department_id}/metrics",
    operation_id="departments.metrics",
    responses=documented(NotFoundError),
)
async def metrics(
    department_id: str, principal: PrincipalDep, store: StoreDep
) -> Answer[DepartmentMetrics]:
    """What a department does and did."""
    return answer(
        await store.fetch(
            lambda s: departments.metrics(s, departments.get(s, principal, department_id))
        )
    )


@router.put(
    "/{department_id}",
    operation_id="departments.update",
    responses=documented(NotFoundError, PreconditionError),
)
@router.patch(
    "/{department_id}",
    operation_id="departments.patch",
    responses=documented(NotFoundError, PreconditionError),
)
async def update(
    department_id: str,
    body: DepartmentUpdate,
    principal: EditorDep,
    store: StoreDep,
    gateway: GatewayDep,
    response: Response,
    match: MatchDep = None,
) -> Answer[Department]:
    """Change a department: absent is unchanged, `config` is merged by key. A `paused` one lets
    its running steps end and begins no other; a `draining` one takes no new runs."""

    def change(session: Session) -> tuple[Department, list[str]]:
        row = departments.update(session, principal, department_id, body, match)
        return departments.view(row), tickets.grant(session, row.id)

    view, granted = await store.run(change)
    await gateway.granted(granted)
    versioned(response, view)
    return answer(view)


@router.delete(
    "/{department_id}",
    operation_id="departments.delete",
    responses=documented(NotFoundError, ConflictError, PreconditionError),
)
async def delete(
    department_id: str, principal: EditorDep, store: StoreDep, match: MatchDep = None
) -> Answer[Deleted]:
    """Delete a department that has no step at work."""
    await store.run(lambda s: departments.delete(s, principal, department_id, match))
    return answer(Deleted(id=department_id))
