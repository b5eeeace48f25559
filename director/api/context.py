"""`/context`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from director.api.answers import created, versioned
from director.api.envelope import Answer, Deleted, ListAnswer, answer, page
from director.api.errors import documented
from director.api.idempotency import OnceDep
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import MatchDep, OrderedPageDep, PageDep, StoreDep
from director.domain.context import (
    AddedItem,
    Context,
    ContextCreate,
    CreatedContext,
    FilledContext,
    Item,
    ItemCreate,
)
from director.domain.errors import ConflictError, NotFoundError, PreconditionError
from director.store import context

router = APIRouter(prefix="/context", tags=["context"], route_class=StrictRoute)


@router.post(
    "",
    status_code=201,
    response_model=Answer[CreatedContext],
    operation_id="context.create",
    responses=documented(NotFoundError, ConflictError),
)
async def create(body: ContextCreate, principal: EditorDep, once: OnceDep) -> Response:
    """Create a context window in a session. Of items over its bounds the least important leave at
    once, as `evicted` tells."""
    return await once.write(lambda s: created("context", context.create(s, principal, body)))


@router.get("", operation_id="context.list", responses=documented())
async def list_(
    principal: PrincipalDep,
    store: StoreDep,
    query: PageDep,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
) -> ListAnswer[Context]:
    """List context windows without what is in them, newest first."""
    return page(*await store.fetch(lambda s: context.listed(s, principal, query, session_id)))


@router.get("/{context_id}", operation_id="context.get", responses=documented(NotFoundError))
async def get(
    context_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[FilledContext]:
    """Get a context window with counts and the first 20 items of its list."""
    view = await store.fetch(lambda s: context.shown(s, principal, context_id))
    versioned(response, view)
    return answer(view)


@router.delete(
    "/{context_id}",
    operation_id="context.delete",
    responses=documented(NotFoundError, PreconditionError),
)
async def delete(
    context_id: str, principal: EditorDep, store: StoreDep, match: MatchDep = None
) -> Answer[Deleted]:
    """Delete a context window with all that is in it."""
    await store.run(lambda s: context.delete(s, principal, context_id, match))
    return answer(Deleted(id=context_id))


@router.post(
    "/{context_id}/items",
    status_code=201,
    response_model=Answer[AddedItem],
    operation_id="context.addItem",
    responses=documented(NotFoundError, ConflictError),
)
async def add_item(
    context_id: str, body: ItemCreate, principal: EditorDep, once: OnceDep
) -> Response:
    """Add an item to a context window. What is over its bounds leaves it: what is too old, then the
    least important, then the oldest, as `evicted` tells."""
    path = f"context/{context_id}/items"
    return await once.write(lambda s: created(path, context.add(s, principal, context_id, body)))


@router.get(
    "/{context_id}/items", operation_id="context.listItems", responses=documented(NotFoundError)
)
async def list_items(
    context_id: str, principal: PrincipalDep, store: StoreDep, query: OrderedPageDep
) -> ListAnswer[Item]:
    """List the items of a context window, newest first unless `order` says otherwise."""
    return page(*await store.fetch(lambda s: context.items(s, principal, context_id, query)))


@router.get(
    "/{context_id}/items/{item_id}",
    operation_id="context.getItem",
    responses=documented(NotFoundError),
)
async def get_item(
    context_id: str, item_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[Item]:
    """Get an item of a context window."""
    view = await store.fetch(lambda s: context.item(s, principal, context_id, item_id))
    versioned(response, view)
    return answer(view)


@router.delete(
    "/{context_id}/items/{item_id}",
    operation_id="context.deleteItem",
    responses=documented(NotFoundError, PreconditionError),
)
async def delete_item(
    context_id: str,
    item_id: str,
    principal: EditorDep,
    store: StoreDep,
    match: MatchDep = None,
) -> Answer[Deleted]:
    """Delete an item of a context window."""
    await store.run(lambda s: context.remove(s, principal, context_id, item_id, match))
    return answer(Deleted(id=item_id))
