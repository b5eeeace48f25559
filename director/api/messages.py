"""`/sessions/{id}/messages`."""

from fastapi import APIRouter, Response
from sqlmodel import Session

from director.api.answers import created, versioned
from director.api.envelope import Answer, ListAnswer, answer, page
from director.api.errors import documented
from director.api.idempotency import OnceDep
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import OrderedPageDep, StoreDep
from director.domain.errors import ConflictError, NotFoundError
from director.domain.messages import Message, MessageCreate
from director.store import messages
from director.store.idempotency import Reply

router = APIRouter(
    prefix="/sessions/{session_id}/messages", tags=["messages"], route_class=StrictRoute
)


@router.post(
    "",
    status_code=201,
    response_model=Answer[Message],
    operation_id="messages.create",
    responses=documented(NotFoundError, ConflictError),
)
async def create(
    session_id: str, body: MessageCreate, principal: EditorDep, once: OnceDep
) -> Response:
    """Say something in a session. Messages are never changed; their order is that of the log."""

    def write(session: Session) -> Reply:
        made = messages.create(session, principal, session_id, body)
        return created(f"sessions/{session_id}/messages", made)

    return await once.write(write)


@router.get("", operation_id="messages.list", responses=documented(NotFoundError))
async def list_(
    session_id: str, principal: PrincipalDep, store: StoreDep, query: OrderedPageDep
) -> ListAnswer[Message]:
    """List the messages of a session, newest first; `order=asc` reads the log from its begin."""
    return page(*await store.fetch(lambda s: messages.listed(s, principal, session_id, query)))


@router.get("/{message_id}", operation_id="messages.get", responses=documented(NotFoundError))
async def get(
    session_id: str, message_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[Message]:
    """Get a message."""
    view = await store.fetch(lambda s: messages.get(s, principal, session_id, message_id))
    versioned(response, view)
    return answer(view)
