"""`/networks`: written first, then enforced by the network's host, which answers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from sqlmodel import Session

from director.api.answers import created, reply, versioned
from director.api.envelope import Answer, Deleted, ListAnswer, answer, page
from director.api.errors import documented
from director.api.idempotency import OnceDep
from director.api.principals import EditorDep, PrincipalDep
from director.api.refusals import HostAwayError
from director.api.requests import StrictRoute
from director.api.state import GatewayDep, MatchDep, PageDep, QueryFlag, StoreDep
from director.domain.errors import (
    AuthorizationError,
    ConflictError,
    DirectorError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from director.domain.networks import AccessCreate, Network, NetworkCreate, Policy, PolicyCreate
from director.store import hosts, networks
from director.store.idempotency import Reply
from director.store.tables import NetworkRow

router = APIRouter(prefix="/networks", tags=["networks"], route_class=StrictRoute)

_CHANGES = documented(
    NotFoundError, ConflictError, AuthorizationError, PreconditionError, UnavailableError
)


@dataclass(frozen=True)
class Changing:
    """What the routes that change a network have in common."""

    network_id: str
    principal: EditorDep
    store: StoreDep
    gateway: GatewayDep
    match: MatchDep = None

    async def answered(self, once: OnceDep, change: Callable[[Session], NetworkRow]) -> Response:
        """Write, have it enforced, answer with what is so then."""

        def write(session: Session) -> tuple[str, Reply]:
            row = change(session)
            return row.host_id, reply(200, networks.view(session, row), row.id)

        await self.gateway.apply_network(await once.begin(write, known=False), self.network_id)
        view = await self.view()
        return await once.finish(reply(200, view, view.id))

    async def enforced(self, change: Callable[[Session], NetworkRow]) -> None:
        """Write, and have it enforced."""
        row = await self.store.run(change)
        await self.gateway.apply_network(row.host_id, self.network_id)

    async def view(self) -> Network:
        """The network as it is now."""
        return await self.store.fetch(
            lambda s: networks.view(s, networks.get(s, self.principal, self.network_id))
        )


ChangingDep = Annotated[Changing, Depends()]


@router.post(
    "",
    status_code=201,
    response_model=Answer[Network],
    operation_id="networks.create",
    responses=documented(ConflictError, UnavailableError),
)
async def create(
    body: NetworkCreate, principal: EditorDep, once: OnceDep, store: StoreDep, gateway: GatewayDep
) -> Response:
    """Create a network. Without `subnet` one is picked; overlap or a used name is a 409. While its
    host does not answer it stays `creating`."""

    def write(session: Session) -> tuple[NetworkRow, Reply]:
        row = once.again(session, NetworkRow) or networks.create(session, principal, body)
        return row, created("networks", networks.view(session, row))

    row = await once.begin(write, known=False)
    try:
        await gateway.apply_network(row.host_id, row.id)
    except HostAwayError:
        pass  # the host makes it when it is back
    except DirectorError:
        await store.run(lambda s: networks.remove(s, row.id))
        raise
    made = await store.fetch(lambda s: networks.view(s, s.get_one(NetworkRow, row.id)))
    return await once.finish(created("networks", made))


@router.get("", operation_id="networks.list", responses=documented())
async def list_(principal: PrincipalDep, store: StoreDep, query: PageDep) -> ListAnswer[Network]:
    """List networks, newest first."""
    return page(*await store.fetch(lambda s: networks.listed(s, principal, query)))


@router.get("/{network_id}", operation_id="networks.get", responses=documented(NotFoundError))
async def get(
    network_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[Network]:
    """Get a network with its policies, what is open in it, and the sandboxes in it."""
    view = await store.fetch(lambda s: networks.view(s, networks.get(s, principal, network_id)))
    versioned(response, view)
    return answer(view)


@router.post(
    "/{network_id}/policies",
    status_code=201,
    response_model=Answer[Policy],
    operation_id="networks.applyPolicy",
    responses=_CHANGES,
)
async def put_policy(
    network_id: str,
    body: PolicyCreate,
    principal: EditorDep,
    once: OnceDep,
    gateway: GatewayDep,
    match: MatchDep = None,
) -> Response:
    """Apply a policy, at once and to connections that exist as well. One of the same name is
    replaced, which is a 200. While the host does not enforce it, 503: it is kept and enforced as
    soon as the host can."""

    def write(session: Session) -> tuple[str, Reply]:
        policy, replaced = networks.put_policy(session, principal, network_id, body, match)
        view = networks.policy_view(policy)
        host_id = session.get_one(NetworkRow, network_id).host_id
        if replaced:
            return host_id, reply(200, view, policy.id)
        place = f"/v1/networks/{network_id}/policies/{policy.id}"
        return host_id, reply(201, view, policy.id, Location=place)

    await gateway.apply_network(await once.begin(write, known=True), network_id)
    return await once.finish()


@router.delete(
    "/{network_id}/policies/{policy_id}",
    operation_id="networks.deletePolicy",
    responses=_CHANGES,
)
async def delete_policy(network_id: str, policy_id: str, changing: ChangingDep) -> Answer[Deleted]:
    """Take a policy away, at once."""
    await changing.enforced(
        lambda s: networks.delete_policy(
            s, changing.principal, network_id, policy_id, changing.match
        )
    )
    return answer(Deleted(id=policy_id))


@router.post(
    "/{network_id}/isolate",
    response_model=Answer[Network],
    operation_id="networks.isolate",
    responses=_CHANGES,
)
async def isolate(changing: ChangingDep, once: OnceDep) -> Response:
    """Cut everything off at once, running sandboxes included; idempotent. What `allow-access`
    lists stays open."""
    return await changing.answered(once, partial(_isolate, changing, isolated=True))


@router.delete("/{network_id}/isolate", operation_id="networks.rejoin", responses=_CHANGES)
async def rejoin(changing: ChangingDep) -> Answer[Network]:
    """End the isolation: the policies hold again; idempotent."""
    await changing.enforced(partial(_isolate, changing, isolated=False))
    return answer(await changing.view())


def _isolate(changing: Changing, session: Session, *, isolated: bool) -> NetworkRow:
    return networks.isolate(
        session, changing.principal, changing.network_id, changing.match, isolated=isolated
    )


@router.post(
    "/{network_id}/allow-access",
    response_model=Answer[Network],
    operation_id="networks.allowAccess",
    responses=_CHANGES,
)
async def allow_access(changing: ChangingDep, body: AccessCreate, once: OnceDep) -> Response:
    """Open destinations, whatever policies say and also while the network is isolated or internal.
    Names are resolved and followed; private and metadata addresses need an admin."""
    return await changing.answered(
        once,
        lambda s: networks.allow(
            s, changing.principal, changing.network_id, body.destinations, changing.match
        ),
    )


@router.delete(
    "/{network_id}/grants/{grant_id}", operation_id="networks.deleteGrant", responses=_CHANGES
)
async def delete_grant(network_id: str, grant_id: str, changing: ChangingDep) -> Answer[Deleted]:
    """Close a destination again, at once."""
    await changing.enforced(
        lambda s: networks.delete_grant(s, changing.principal, network_id, grant_id, changing.match)
    )
    return answer(Deleted(id=grant_id))


@router.delete("/{network_id}", operation_id="networks.delete", responses=_CHANGES)
async def delete(
    network_id: str,
    principal: EditorDep,
    store: StoreDep,
    gateway: GatewayDep,
    force: Annotated[QueryFlag, Query(description="Detach the sandboxes in it.")] = False,
    match: MatchDep = None,
) -> Answer[Deleted]:
    """Delete a network; with sandboxes in it only by `force`, which detaches them."""
    row = await store.run(lambda s: networks.changing(s, principal, network_id, match))
    try:
        outcome = await gateway.remove_network(row.host_id, network_id, force=force)
    except HostAwayError:
        if not force or await store.fetch(lambda s: hosts.is_living(s, row.host_id)):
            raise
        await store.run(lambda s: networks.remove(s, network_id))  # its bridge goes if it returns
        return answer(Deleted(id=network_id))
    if outcome.attached:
        count = len(outcome.attached)
        raise ConflictError(
            f"{count} sandboxes are in network {network_id}: delete them, or send ?force=true",
            sandboxes=outcome.attached,
        )
    return answer(Deleted(id=network_id))
