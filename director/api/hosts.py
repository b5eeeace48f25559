"""`/hosts`, for those who operate Director."""

from fastapi import APIRouter

from director.api.envelope import Answer, ListAnswer, answer, page
from director.api.errors import documented
from director.api.principals import ADMIN_ONLY
from director.api.requests import StrictRoute
from director.api.state import GatewayDep, PageDep, StoreDep
from director.domain.errors import AuthorizationError, ConflictError, NotFoundError
from director.domain.hosts import Host, HostForgotten, HostUpdate
from director.store import hosts, losses

router = APIRouter(
    prefix="/hosts", tags=["hosts"], route_class=StrictRoute, dependencies=[ADMIN_ONLY]
)


@router.get("", operation_id="hosts.list", responses=documented(AuthorizationError))
async def list_hosts(store: StoreDep, query: PageDep) -> ListAnswer[Host]:
    """List the hosts with what is used of them, newest first; further pages by `offset`."""
    return page(*await store.fetch(lambda session: hosts.listed(session, query)))


@router.put(
    "/{host_id}",
    operation_id="hosts.update",
    responses=documented(AuthorizationError, NotFoundError),
)
async def update_host(host_id: str, body: HostUpdate, store: StoreDep) -> Answer[Host]:
    """Drain a host, so that it takes no new sandboxes, or let it take them again."""
    return answer(
        await store.run(lambda session: hosts.set_draining(session, host_id, body.draining))
    )


@router.delete(
    "/{host_id}",
    operation_id="hosts.delete",
    responses=documented(AuthorizationError, NotFoundError, ConflictError),
)
async def delete_host(host_id: str, store: StoreDep, gateway: GatewayDep) -> Answer[HostForgotten]:
    """Give up a host that will not come back: the sandboxes that people made there fail with
    `HOST_LOST`, and its runs go on elsewhere. A 409 while its lease lasts. A host that does come
    back removes what it has of them, and is a new one."""
    lost = await store.run(lambda session: losses.forget(session, host_id))
    await gateway.end_sandboxes(lost.sandboxes)
    await gateway.granted(lost.granted)
    return answer(HostForgotten(id=host_id, sandboxes=lost.sandboxes, runs=lost.runs))
