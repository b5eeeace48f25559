"""`/checkpoints`: what the checkpoint steps of runs have kept."""

from typing import Annotated

from fastapi import APIRouter, Query

from director.api.envelope import Answer, ListAnswer, answer, page
from director.api.errors import documented
from director.api.principals import PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import PageDep, StoreDep
from director.domain.checkpoints import Checkpoint
from director.domain.errors import NotFoundError
from director.store import checkpoints

router = APIRouter(prefix="/checkpoints", tags=["checkpoints"], route_class=StrictRoute)


@router.get("", operation_id="checkpoints.list", responses=documented())
async def list_(
    principal: PrincipalDep,
    store: StoreDep,
    query: PageDep,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
) -> ListAnswer[Checkpoint]:
    """List checkpoints, newest first."""
    return page(*await store.fetch(lambda s: checkpoints.listed(s, principal, query, session_id)))


@router.get("/{checkpoint_id}", operation_id="checkpoints.get", responses=documented(NotFoundError))
async def get(checkpoint_id: str, principal: PrincipalDep, store: StoreDep) -> Answer[Checkpoint]:
    """Get a checkpoint with its manifest."""
    return answer(
        await store.fetch(
            lambda s: Checkpoint.model_validate(checkpoints.get(s, principal, checkpoint_id))
        )
    )
