"""Queries of networks: what is wanted of them, and what their hosts have made of it."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from enum import Enum, auto
from ipaddress import IPv4Address, IPv4Network
from typing import Any, NamedTuple

from sqlalchemy import delete as delete_rows
from sqlalchemy import func
from sqlmodel import Session, col, select

from director.domain import networks as domain
from director.domain.base import Json
from director.domain.errors import (
    AuthorizationError,
    ConflictError,
    NotFoundError,
    UnavailableError,
)
from director.domain.events import EventType
from director.domain.ids import GRANT, NETWORK, POLICY, new_id
from director.domain.lifetimes import OPEN_SANDBOXES
from director.domain.networks import NetworkStatus, needing_admin
from director.domain.pages import PageQuery, Pagination
from director.domain.policies import NetworkMode
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.store import events, hosts, locks, security_events, sessions
from director.store.lists import paged
from director.store.ownership import seen_in, visible
from director.store.preconditions import check_match
from director.store.tables import (
    HostRow,
    NetworkGrantRow,
    NetworkPolicyRow,
    NetworkRow,
    SandboxRow,
)

_PARTS = 50
"""Policies of a network, and 10 times as many grants."""

_GONE = timedelta(minutes=1)
"""A host whose lease is over for so long is waited for no more by who needs its networks."""


class Seat(Enum):
    """Where the network is that a sandbox names, seen from a host that could make it."""

    HERE = auto()
    ELSEWHERE = auto()
    AWAY = auto()
    """On a host that has not answered for a moment."""
    GONE = auto()
    DELETED = auto()


class Wanted(NamedTuple):
    """A network as its host is to enforce it."""

    row: NetworkRow
    policies: list[NetworkPolicyRow]
    grants: list[NetworkGrantRow]


def create(
    session: Session,
    principal: Principal,
    body: domain.NetworkCreate,
    pool: IPv4Network = domain.POOL,
    quota: int = domain.QUOTA,
) -> NetworkRow:
    """Add a network, on a host of its own choice. Raises ConflictError for a name of the owner's
    or a subnet that is taken, for a session that takes nothing new, and where the owner has as many
    as the quota; NotFoundError for a session of others; UnavailableError without hosts."""
    owner_id = principal.user_id
    if body.session_id is not None:
        owner_id = sessions.usable(session, principal, body.session_id).owner_id
    locks.hold(session, locks.Name.SUBNETS)
    _check_name(session, owner_id, body.name, quota)
    subnet = _free_subnet(session, body, pool)
    row = NetworkRow(
        id=new_id(NETWORK),
        owner_id=owner_id,
        session_id=body.session_id,
        name=body.name,
        description=body.description,
        subnet=str(subnet),
        gateway=body.gateway or _first(subnet),
        picked=body.subnet is None,
        enable_dns=body.enable_dns,
        internal=body.internal,
        host_id=_host(session).id,
    )
    session.add(row)
    session.flush()
    tell(session, row, EventType.NETWORK_CREATED, "created")
    return row


def get(session: Session, principal: Principal, id: str) -> NetworkRow:
    """The network of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(NetworkRow, id)
    if row is None or row.deleted_at is not None or not visible(principal, row.owner_id):
        raise NotFoundError("network", id)
    return row


def changing(
    session: Session, principal: Principal, id: str, match: str | None = None
) -> NetworkRow:
    """The same, locked, for who is to change it. Raises PreconditionError where `If-Match` names
    another version as well."""
    if (parent := get(session, principal, id).session_id) is not None:
        sessions.used(session, parent)
    locks.get_one(session, NetworkRow, id)
    row = get(session, principal, id)
    check_match(row, match)
    return row


def listed(
    session: Session, principal: Principal, query: PageQuery, session_id: str | None = None
) -> tuple[list[domain.Network], Pagination]:
    """A page of the networks that the principal may see."""
    shown = [
        col(NetworkRow.deleted_at).is_(None),
        *seen_in(session, principal, NetworkRow, session_id),
    ]
    rows, pagination = paged(session, NetworkRow, shown, query)
    return [view(session, row) for row in rows], pagination


def view(session: Session, row: NetworkRow) -> domain.Network:
    """The network as the API shows it."""
    policies, grants = _parts(session, row.id)
    return domain.Network.model_validate(
        {
            **row.model_dump(),
            "status": _status(row),
            "enforced": row.applied == row.version,
            "policies": [policy_view(each) for each in policies],
            "grants": [each.model_dump() for each in grants],
            "sandboxes": [
                {"sandbox_id": id, "address": at} for id, at in sorted(row.members.items())
            ],
        }
    )


def policy_view(row: NetworkPolicyRow) -> domain.Policy:
    """The policy as the API shows it."""
    return domain.Policy.model_validate(row.model_dump())


def put_policy(
    session: Session,
    principal: Principal,
    id: str,
    body: domain.PolicyCreate,
    match: str | None = None,
) -> tuple[NetworkPolicyRow, bool]:
    """Add a policy, or replace the one of that name; tells whether one was replaced.

    Raises AuthorizationError where it opens what only an admin may open."""
    row = changing(session, principal, id, match)
    _check_rights(principal, needing_admin(body.outbound, IPv4Network(row.subnet)))
    named = (NetworkPolicyRow.network_id == id, NetworkPolicyRow.name == body.name)
    policy = session.exec(select(NetworkPolicyRow).where(*named)).first()
    replaced = policy is not None
    if policy is None:
        _check_count(session, NetworkPolicyRow, id, _PARTS)
        policy = NetworkPolicyRow(
            id=new_id(POLICY),
            network_id=id,
            name=body.name,
            logging=False,
            metrics=False,
            privileged=False,
        )
    content = body.model_dump(mode="json", by_alias=True, exclude_none=True)
    policy.description = body.description
    policy.inbound, policy.outbound = content["inbound"], content["outbound"]
    policy.logging, policy.metrics, policy.counters = body.logging, body.metrics, []
    policy.privileged = principal.role is Role.ADMIN
    policy.touch()
    session.add(policy)
    change = f"policy {policy.id} {'replaced' if replaced else 'added'}"
    _changed(session, row, change)
    return policy, replaced


def delete_policy(
    session: Session, principal: Principal, id: str, policy_id: str, match: str | None = None
) -> NetworkRow:
    """Take a policy away. Raises NotFoundError."""
    row = changing(session, principal, id, match)
    _delete(session, NetworkPolicyRow, "policy", row, policy_id)
    return row


def allow(
    session: Session,
    principal: Principal,
    id: str,
    destinations: list[domain.Destination],
    match: str | None = None,
) -> NetworkRow:
    """Open destinations; one that is open already stays so.

    Raises AuthorizationError for private and metadata addresses unless an admin asks."""
    row = changing(session, principal, id, match)
    addresses = (each.address for each in destinations)
    _check_rights(principal, [str(at) for at in addresses if at and domain.is_protected(at)])
    there = {(each.host, each.port, each.protocol): each for each in _parts(session, id)[1]}
    for wanted in destinations:
        grant = there.get((wanted.host, wanted.port, wanted.protocol)) or NetworkGrantRow(
            id=new_id(GRANT),
            network_id=id,
            host=wanted.host,
            port=wanted.port,
            protocol=wanted.protocol,
            privileged=False,
        )
        grant.description = wanted.description
        grant.privileged = grant.privileged or principal.role is Role.ADMIN
        session.add(grant)
    session.flush()
    _check_count(session, NetworkGrantRow, id, 10 * _PARTS + 1)
    _changed(session, row, f"{len(destinations)} destinations opened")
    return row


def delete_grant(
    session: Session, principal: Principal, id: str, grant_id: str, match: str | None = None
) -> NetworkRow:
    """Close a destination. Raises NotFoundError."""
    row = changing(session, principal, id, match)
    _delete(session, NetworkGrantRow, "grant", row, grant_id)
    return row


def isolate(
    session: Session, principal: Principal, id: str, match: str | None = None, *, isolated: bool
) -> NetworkRow:
    """Cut a network off, or join it again; idempotent."""
    row = changing(session, principal, id, match)
    if row.isolated != isolated:
        row.isolated = isolated
        kind = EventType.NETWORK_ISOLATED if isolated else EventType.NETWORK_UPDATED
        _changed(session, row, "isolated" if isolated else "isolation ended", kind)
    return row


def remove(session: Session, id: str) -> None:
    """Write that a network is gone; idempotent."""
    row = locks.get(session, NetworkRow, id)
    if row is None or row.deleted_at is not None:
        return
    row.deleted_at = utc_now()
    row.touch()
    session.add(row)
    for part in (NetworkPolicyRow, NetworkGrantRow):
        session.exec(delete_rows(part).where(col(part.network_id) == id))
    tell(session, row, EventType.NETWORK_DELETED, "deleted")


def remove_all(session: Session, session_id: str) -> dict[str, str]:
    """Write that the networks of a session are gone; gives one of them for each host that is to
    take them away."""
    left = (NetworkRow.session_id == session_id, col(NetworkRow.deleted_at).is_(None))
    found = dict(session.exec(select(NetworkRow.id, NetworkRow.host_id).where(*left)).all())
    for id in sorted(found):
        remove(session, id)
    return {host_id: id for id, host_id in found.items()}


def named(session: Session, principal: Principal, owner_id: str, mode: str) -> str | None:
    """The network that the mode of an owner's new sandbox names; None where it names none.

    Raises NotFoundError, and ConflictError where the network is another owner's."""
    if mode in tuple(NetworkMode):
        return None
    row = get(session, principal, mode)
    if row.owner_id != owner_id:
        raise ConflictError(
            f"network {row.id} is another owner's than the sandbox would be: name one of the"
            " sandbox's owner",
            networkId=row.id,
            ownerId=owner_id,
        )
    return row.id


def is_named(row: SandboxRow) -> bool:
    """Whether a sandbox names a network, and so can be on that one's host only."""
    return row.network_mode not in tuple(NetworkMode)


def seat(session: Session, row: SandboxRow, host_id: str) -> tuple[Seat, NetworkRow | None]:
    """Where the network is that a sandbox names, if it names one."""
    if not is_named(row):
        return Seat.HERE, None
    network = session.get_one(NetworkRow, row.network_id)
    if network.deleted_at is not None:
        return Seat.DELETED, network
    if network.host_id == host_id:
        return Seat.HERE, network
    host = session.get(HostRow, network.host_id)
    if host is not None and host.living:
        return Seat.ELSEWHERE, network
    waited = host is None or host.lease_until < utc_now() - _GONE
    return (Seat.GONE if waited else Seat.AWAY), network


def on_demand(
    session: Session, owner_id: str, host_id: str, pool: IPv4Network = domain.POOL
) -> NetworkRow:
    """The network through which an owner's sandboxes on a host get out and nobody gets in; made
    where there is none. Raises ConflictError where no subnet is free."""
    locks.hold(session, locks.Name.SUBNETS)
    shown = (NetworkRow.owner_id == owner_id, col(NetworkRow.deleted_at).is_(None))
    mine = list(session.exec(select(NetworkRow).where(*shown)))
    for there in mine:
        if there.on_demand and there.host_id == host_id:
            return there
    subnet, id = domain.allocate(subnets(session), pool), new_id(NETWORK)
    name = f"bridge-{host_id}"
    row = NetworkRow(
        id=id,
        owner_id=owner_id,
        name=name if name not in {each.name for each in mine} else f"{name}-{id[-8:]}",
        description="A way out for sandboxes of networkMode bridge; it goes with the last of them.",
        subnet=str(subnet),
        gateway=_first(subnet),
        picked=True,
        enable_dns=True,
        internal=False,
        on_demand=True,
        host_id=host_id,
    )
    nobody = NetworkPolicyRow(
        id=new_id(POLICY),
        network_id=id,
        name="nobody-in",
        inbound=[{"action": "deny", "protocol": "all"}],
        logging=False,
        metrics=False,
        privileged=False,
    )
    session.add(row)
    session.flush()
    session.add(nobody)
    session.flush()
    tell(session, row, EventType.NETWORK_CREATED, "created")
    return row


def unused(session: Session, host_id: str) -> list[str]:
    """The networks of a host that were made on demand and that no sandbox is to be in any more."""
    going = select(SandboxRow.id).where(
        SandboxRow.network_id == NetworkRow.id, col(SandboxRow.status).in_(OPEN_SANDBOXES)
    )
    here = (
        NetworkRow.host_id == host_id,
        col(NetworkRow.deleted_at).is_(None),
        col(NetworkRow.on_demand),
    )
    return list(session.exec(select(NetworkRow.id).where(*here, ~going.exists())))


def drop_unused(session: Session, host_id: str) -> None:
    """Write that those are gone; nobody is put into one of them meanwhile."""
    locks.hold(session, locks.Name.SUBNETS)
    for id in sorted(unused(session, host_id)):
        remove(session, id)


def sandboxes(session: Session, host_id: str) -> dict[str, list[str]]:
    """The sandboxes that are to be in networks of a host and have not ended, by the network."""
    going = (SandboxRow.network_id == NetworkRow.id, col(SandboxRow.status).in_(OPEN_SANDBOXES))
    here = (NetworkRow.host_id == host_id, col(NetworkRow.deleted_at).is_(None))
    found: defaultdict[str, list[str]] = defaultdict(list)
    statement = select(NetworkRow.id, SandboxRow.id).where(*here, *going)
    for network_id, sandbox_id in session.exec(statement.order_by(col(SandboxRow.id))):
        found[network_id].append(sandbox_id)
    return dict(found)


def of_host(session: Session, host_id: str) -> list[Wanted]:
    """The networks that a host is to enforce, by id."""
    here = (NetworkRow.host_id == host_id, col(NetworkRow.deleted_at).is_(None))
    rows = session.exec(select(NetworkRow).where(*here).order_by(col(NetworkRow.id))).all()
    return [Wanted(row, *_parts(session, row.id)) for row in rows]


def wanted(session: Session, id: str) -> Wanted | None:
    """A network as its host is to enforce it; None where it is gone."""
    row = session.get(NetworkRow, id)
    if row is None or row.deleted_at is not None:
        return None
    return Wanted(row, *_parts(session, id))


def move(
    session: Session, id: str, taken: Iterable[IPv4Network], pool: IPv4Network = domain.POOL
) -> None:
    """Give a network whose subnet nobody named another one, free of what its host uses as well."""
    locks.hold(session, locks.Name.SUBNETS)
    row = locks.get_one(session, NetworkRow, id)
    subnet = domain.allocate([*subnets(session), *taken], pool)
    row.subnet, row.gateway = str(subnet), _first(subnet)
    session.add(row)


def note(session: Session, id: str, version: int, members: dict[str, str] | None = None) -> None:
    """Write which version of a network its host enforces, and who is in it."""
    row = locks.get_one(session, NetworkRow, id)
    row.applied = max(row.applied, version)
    if members is not None:
        row.members = members
    session.add(row)


def note_counters(session: Session, counters: dict[str, list[Json]]) -> None:
    """Write what the rules of policies have matched."""
    for id, counted in sorted(counters.items()):
        policy = locks.get(session, NetworkPolicyRow, id)
        if policy is not None and policy.counters != counted:
            policy.counters = counted
            session.add(policy)


def note_addresses(session: Session, addresses: dict[str, dict[str, str]]) -> None:
    """Write what the names of grants resolve to."""
    for id, found in sorted(addresses.items()):
        grant = locks.get(session, NetworkGrantRow, id)
        if grant is not None and grant.addresses != found:
            grant.addresses = found
            session.add(grant)


def tell(session: Session, row: NetworkRow, kind: EventType, change: str) -> None:
    """Append an event of a network."""
    data = {
        "networkId": row.id,
        "sessionId": row.session_id,
        "event": kind,
        "status": "deleted" if row.deleted_at else _status(row),
        "change": change,
    }
    events.append(
        session, kind, subject=row.id, owner_id=row.owner_id, session_id=row.session_id, data=data
    )


def _parts(session: Session, id: str) -> tuple[list[NetworkPolicyRow], list[NetworkGrantRow]]:
    policies = select(NetworkPolicyRow).where(NetworkPolicyRow.network_id == id)
    grants = select(NetworkGrantRow).where(NetworkGrantRow.network_id == id)
    return (
        list(session.exec(policies.order_by(col(NetworkPolicyRow.id)))),
        list(session.exec(grants.order_by(col(NetworkGrantRow.id)))),
    )


def _status(row: NetworkRow) -> NetworkStatus:
    if row.applied == 0:
        return NetworkStatus.CREATING
    return NetworkStatus.ISOLATED if row.isolated else NetworkStatus.ACTIVE


def _changed(
    session: Session, row: NetworkRow, change: str, kind: EventType = EventType.NETWORK_UPDATED
) -> None:
    row.version += 1
    row.touch()
    session.add(row)
    session.flush()
    tell(session, row, kind, change)
    security_events.changed(session, row, f"network {row.name!r}: {change}")


def _delete(
    session: Session,
    kind: type[NetworkPolicyRow] | type[NetworkGrantRow],
    name: str,
    row: NetworkRow,
    id: str,
) -> None:
    part: Any = session.get(kind, id)
    if part is None or part.network_id != row.id:
        raise NotFoundError(name, id)
    session.delete(part)
    _changed(session, row, f"{name} {id} removed")


def _check_name(session: Session, owner_id: str, name: str, quota: int) -> None:
    mine = (NetworkRow.owner_id == owner_id, col(NetworkRow.deleted_at).is_(None))
    names = list(session.exec(select(NetworkRow.name).where(*mine)))
    if name in names:
        raise ConflictError(f"you have a network {name!r} already", name=name)
    if len(names) >= quota:
        message = f"you have {len(names)} networks, the most that one user may have is {quota}"
        raise ConflictError(
            f"{message}: delete some, or raise DIRECTOR_NETWORK_QUOTA",
            quota="networks",
            limit=quota,
        )


def _check_rights(principal: Principal, protected: list[str]) -> None:
    if protected and principal.role is not Role.ADMIN:
        raise AuthorizationError(
            f"private, metadata and other special addresses are opened by an admin only:"
            f" {', '.join(protected)}",
            addresses=protected,
        )


def _check_count(
    session: Session, kind: type[NetworkPolicyRow] | type[NetworkGrantRow], id: str, most: int
) -> None:
    count = session.exec(select(func.count()).select_from(kind).where(kind.network_id == id)).one()
    if count >= most:
        raise ConflictError(f"network {id} has {count} of these, as many as allowed")


def subnets(session: Session) -> list[IPv4Network]:
    """The subnets of all networks, also of those that their hosts have not made yet."""
    found = select(NetworkRow.subnet).where(col(NetworkRow.deleted_at).is_(None))
    return [IPv4Network(each) for each in session.exec(found)]


def _free_subnet(session: Session, body: domain.NetworkCreate, pool: IPv4Network) -> IPv4Network:
    taken = subnets(session)
    if body.subnet is None:
        return domain.allocate(taken, pool)
    wanted = IPv4Network(body.subnet)
    if overlapping := [each for each in taken if each.overlaps(wanted)]:
        raise ConflictError(
            f"subnet {wanted} overlaps one that is taken: {overlapping[0]}", subnet=str(wanted)
        )
    return wanted


def _first(subnet: IPv4Network) -> str:
    return str(IPv4Address(int(subnet.network_address) + 1))


def _host(session: Session) -> HostRow:
    """The host with fewest networks among those that live and take sandboxes."""
    ready = [each for each in hosts.living(session) if not each.draining]
    if not ready:
        raise UnavailableError("no host is there that could hold a network: start a worker")
    here = (col(NetworkRow.host_id), func.count())
    held = select(*here).where(col(NetworkRow.deleted_at).is_(None)).group_by(here[0])
    counts = dict(session.exec(held).all())
    return min(ready, key=lambda each: (counts.get(each.id, 0), each.id))
