"""`/sessions`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlmodel import Session as DatabaseSession

from director.api.answers import created, versioned
from director.api.envelope import Answer, Deleted, ListAnswer, answer, page
from director.api.errors import documented
from director.api.idempotency import OnceDep
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import GatewayDep, MatchDep, PageDep, QueryFlag, StoreDep
from director.domain.errors import ConflictError, NotFoundError, PreconditionError
from director.domain.sessions import Session, SessionCreate, SessionStatus, SessionUpdate
from director.store import networks, runs, sandboxes, sessions

router = APIRouter(prefix="/sessions", tags=["sessions"], route_class=StrictRoute)


@router.post(
    "",
    status_code=201,
    response_model=Answer[Session],
    operation_id="sessions.create",
    responses=documented(),
)
async def create(body: SessionCreate, principal: EditorDep, once: OnceDep) -> Response:
    """Create a session."""
    return await once.write(lambda s: created("sessions", sessions.create(s, principal, body)))


@router.get("", operation_id="sessions.list", responses=documented())
async def list_(
    principal: PrincipalDep,
    store: StoreDep,
    query: PageDep,
    status: SessionStatus | None = None,
) -> ListAnswer[Session]:
    """List sessions, newest first."""
    return page(*await store.fetch(lambda s: sessions.listed(s, principal, query, status)))


@router.get("/{session_id}", operation_id="sessions.get", responses=documented(NotFoundError))
async def get(
    session_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[Session]:
    """Get a session."""
    view = await store.look(lambda s: sessions.shown(s, principal, session_id))
    versioned(response, view)
    return answer(view)


@router.put(
    "/{session_id}",
    operation_id="sessions.update",
    responses=documented(NotFoundError, PreconditionError),
)
@router.patch(
    "/{session_id}",
    operation_id="sessions.patch",
    responses=documented(NotFoundError, PreconditionError),
)
async def update(
    session_id: str,
    body: SessionUpdate,
    principal: EditorDep,
    store: StoreDep,
    response: Response,
    match: MatchDep = None,
) -> Answer[Session]:
    """Change a session: absent is unchanged, null clears, `config` is merged by key."""
    view = await store.run(lambda s: sessions.update(s, principal, session_id, body, match))
    versioned(response, view)
    return answer(view)


@router.delete(
    "/{session_id}",
    operation_id="sessions.delete",
    responses=documented(NotFoundError, ConflictError, PreconditionError),
)
async def delete(
    session_id: str,
    principal: EditorDep,
    store: StoreDep,
    gateway: GatewayDep,
    match: MatchDep = None,
    force: Annotated[QueryFlag, Query(description="Cancel and remove what runs in it.")] = False,
) -> Answer[Deleted]:
    """Delete a session with its departments, workflows, sandboxes and networks; while a workflow or
    a sandbox runs in it, or sandboxes of elsewhere are in its networks, only by `force`. Answers
    when the end of all that is written and asked for."""

    def remove(session: DatabaseSession) -> tuple[list[str], list[str], dict[str, str]]:
        running = sessions.delete(session, principal, session_id, match, force=force)
        runs.cancel_all(session, running)
        ending = sandboxes.want_delete_all(session, session_id)
        return running, ending, networks.remove_all(session, session_id)

    running, ending, leaving = await store.run(remove)
    await gateway.cancel_all(running)
    await gateway.drop_networks(leaving)
    await gateway.end_sandboxes(ending)
    return answer(Deleted(id=session_id))
