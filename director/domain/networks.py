"""Networks of sandboxes: what may be asked for, what is shown, and which addresses are free."""

import re
from collections.abc import Iterable
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from director.domain.addresses import PRIVATE, literal, special_ipv4
from director.domain.base import (
    Body,
    Description,
    Flag,
    Int,
    Name,
    PlacedError,
    Shape,
    Text,
    example,
)
from director.domain.errors import ConflictError
from director.domain.times import Moment

POOL = IPv4Network("10.213.0.0/16")
"""Where subnets are taken from that nobody named, unless the settings say so."""

QUOTA = 50
"""Networks that one owner may have, unless the settings say so."""

_POOL_PREFIX = 24
_LARGEST_POOL, _SMALLEST_POOL = 8, 20
_WIDEST, _NARROWEST = 16, 29

PROTECTED = tuple(special_ipv4())
"""Private, metadata and other special addresses: only an admin opens them, one by one."""

_LABEL = r"(?!-)[a-z0-9_-]{1,63}(?<!-)"
_HOST_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class Protocol(StrEnum):
    """What a rule is about."""

    ALL = "all"
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"


class Action(StrEnum):
    """What a rule does with what it matches."""

    ALLOW = "allow"
    DENY = "deny"


class NetworkStatus(StrEnum):
    """Where a network stands: one that is being made has no bridge yet."""

    CREATING = "creating"
    ACTIVE = "active"
    ISOLATED = "isolated"


class Direction(StrEnum):
    """From which side a connection is begun, seen from a sandbox."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


def _ipv4_only(text: str) -> str:
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no address and no CIDR range such as 10.0.0.0/8") from None
    if found.version != 4:
        raise ValueError("networks carry IPv4 only: all IPv6 is denied already")
    return str(found)


def _subnet(text: str) -> str:
    try:
        found = ip_network(text)
    except ValueError as error:
        raise ValueError(f"no subnet such as 172.30.0.0/24: {error}") from None
    if found.version != 4:
        raise ValueError("networks carry IPv4 only")
    if found.prefixlen < _WIDEST:
        raise ValueError(f"wider than /{_WIDEST}: a network has at most 65536 addresses")
    if found.prefixlen > _NARROWEST:
        raise ValueError(f"narrower than /{_NARROWEST}: no room for sandboxes")
    if not _is_private(found):
        raise ValueError(f"a public or special range: take one inside of {', '.join(PRIVATE)}")
    return str(found)


def _is_private(network: IPv4Network) -> bool:
    return any(network.subnet_of(IPv4Network(range)) for range in PRIVATE)


def _gateway(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError(f"{text!r} is no IPv4 address") from None


def _ports(text: str) -> str:
    match = _PORTS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no port and no range such as 80-90")
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{text!r} is no range of ports from 1 to 65535, the lower one first")
    return str(first) if first == last else f"{first}-{last}"


def checked_host(text: str) -> str:
    """An IPv4 address, or a name in lower case without the dot at its end. Raises ValueError."""
    if (address := literal(text)) is not None:
        if not isinstance(address, IPv4Address):
            raise ValueError("networks carry IPv4 only: all IPv6 is denied")
        return text
    name = text.lower()
    if not _HOST_NAME.fullmatch(name) or re.fullmatch(r"[0-9.]+", name):
        raise ValueError(f"{text!r} is no host name and no IPv4 address")
    return name.rstrip(".")


Cidr = Annotated[str, Field(max_length=64), AfterValidator(_ipv4_only)]
Subnet = Annotated[str, Field(max_length=64), AfterValidator(_subnet)]
Gateway = Annotated[str, Field(max_length=64), AfterValidator(_gateway)]
Port = Annotated[Int, Field(ge=1, le=65535)]
Ports = Annotated[str, AfterValidator(_ports)]
Host = Annotated[Text, Field(min_length=1, max_length=253), AfterValidator(checked_host)]


class NetworkCreate(Body):
    """A network to make. Without a subnet one is taken from the pool."""

    model_config = example(
        name="sandbox-network",
        subnet="172.30.0.0/24",
        gateway="172.30.0.1",
        enableDNS=True,
        internal=True,
    )

    name: Name
    session_id: str | None = None
    description: Description | None = None
    subnet: Subnet | None = None
    gateway: Gateway | None = None
    enable_dns: Annotated[Flag, Field(alias="enableDNS")] = True
    internal: Flag = False

    @model_validator(mode="after")
    def _gateway_inside(self) -> Self:
        if self.gateway is None:
            return self
        if self.subnet is None:
            raise PlacedError("names an address in a subnet: send the subnet as well", "gateway")
        problem = gateway_problem(IPv4Network(self.subnet), IPv4Address(self.gateway))
        if problem is not None:
            raise PlacedError(problem, "gateway")
        return self


class PolicyRule(Body):
    """What of a direction is allowed or denied; what is not said matches anything."""

    action: Action
    protocol: Protocol = Protocol.ALL
    port: Port | None = None
    ports: Ports | None = None
    source: Cidr | None = None
    destination: Cidr | None = None
    description: Description | None = None

    @model_validator(mode="after")
    def _ports_of_a_protocol_with_ports(self) -> Self:
        if self.port is not None and self.ports is not None:
            raise PlacedError("`port` and `ports` exclude each other", "ports")
        if self.port_range is not None and self.protocol not in (Protocol.TCP, Protocol.UDP):
            field = "port" if self.port is not None else "ports"
            raise PlacedError(f"protocol {self.protocol} has no ports: use tcp or udp", field)
        return self

    @property
    def port_range(self) -> str | None:
        """The ports as `443` or `80-90`; None is any."""
        return str(self.port) if self.port is not None else self.ports


Rules = Annotated[list[PolicyRule], Field(max_length=200)]


class PolicyCreate(Body):
    """A policy for a network: rules in order, the first that matches decides, and a direction that
    has any rule ends in deny. One of the same name is replaced; all policies must allow."""

    model_config = example(
        name="restrictive-policy",
        description="Block all outbound traffic",
        inbound=[{"action": "allow", "protocol": "all", "source": "127.0.0.1/32"}],
        outbound=[{"action": "deny", "protocol": "all"}],
        logging=True,
        metrics=True,
    )

    name: Name
    description: Description | None = None
    inbound: Rules = []
    outbound: Rules = []
    logging: Flag = False
    metrics: Flag = False

    def rules(self, direction: Direction) -> list[PolicyRule]:
        """The rules of a direction."""
        return self.inbound if direction is Direction.INBOUND else self.outbound


class Destination(Body):
    """What a network may reach: a host by name or address, a port or all of them."""

    host: Host
    port: Port | None = None
    protocol: Protocol = Protocol.TCP
    description: Description | None = None

    @model_validator(mode="after")
    def _port_of_a_protocol_with_ports(self) -> Self:
        if self.port is not None and self.protocol not in (Protocol.TCP, Protocol.UDP):
            raise PlacedError(f"protocol {self.protocol} has no ports: use tcp or udp", "port")
        return self

    @property
    def address(self) -> IPv4Address | None:
        """The host as an address; None where it is a name."""
        found = literal(self.host)
        return found if isinstance(found, IPv4Address) else None


class AccessCreate(Body):
    """What to open in a network, whatever its policies say and also while it is isolated."""

    model_config = example(
        destinations=[
            {
                "host": "api.example.com",
                "port": 443,
                "protocol": "tcp",
                "description": "Allow API access",
            }
        ]
    )

    destinations: Annotated[list[Destination], Field(min_length=1, max_length=100)]


class RuleCounter(Shape):
    """What a rule has matched, as the packet filter counted it."""

    direction: Direction
    rule: int
    """Counted from 0; one more than the last rule is the deny at the end."""
    packets: int
    bytes: int


class Policy(Shape):
    """A policy as the API shows it."""

    id: str
    network_id: str
    name: str
    description: str | None
    inbound: list[PolicyRule]
    outbound: list[PolicyRule]
    logging: bool
    metrics: bool
    counters: list[RuleCounter] = []
    """With `metrics` only; a few seconds old."""
    created_at: Moment
    updated_at: Moment


class Grant(Shape):
    """An opened destination as the API shows it."""

    id: str
    host: str
    port: int | None
    protocol: Protocol
    description: str | None
    created_at: Moment


class Member(Shape):
    """A sandbox in a network, with its address."""

    sandbox_id: str
    address: str


class Network(Shape):
    """A network as the API shows it."""

    model_config = ConfigDict(populate_by_name=True)

    id: str
    session_id: str | None
    """The session that it is deleted with; sandboxes of others may join it all the same."""
    name: str
    description: str | None
    status: NetworkStatus
    subnet: str
    gateway: str
    enable_dns: Annotated[bool, Field(alias="enableDNS")]
    internal: bool
    isolated: bool
    on_demand: bool
    """Made for sandboxes of `networkMode` bridge; it goes with the last of them."""
    enforced: bool
    """Whether the packet filter has what is shown here; false for a moment after a change."""
    owner_id: str
    host_id: str
    policies: list[Policy]
    grants: list[Grant]
    sandboxes: list[Member]
    created_at: Moment
    updated_at: Moment


class NetworkInput(Shape):
    """The network that an activity is about; `force` detaches the sandboxes of one to remove."""

    network_id: str
    force: bool = False


class NetworkOutcome(Shape):
    """What became of a network on its host."""

    attached: list[str] = []
    """The sandboxes that kept it from being removed."""


def gateway_problem(subnet: IPv4Network, gateway: IPv4Address) -> str | None:
    """Why an address cannot be a subnet's gateway; None where it can."""
    if gateway not in subnet:
        return f"outside of the subnet {subnet}"
    if gateway in (subnet.network_address, subnet.broadcast_address):
        return f"the first or the last address of {subnet}, which no host can have"
    return None


def is_protected(address: IPv4Network | IPv4Address) -> bool:
    """Whether an address, or a whole range, is one that only an admin opens."""
    network = address if isinstance(address, IPv4Network) else IPv4Network(address)
    return any(network.subnet_of(each) for each in PROTECTED)


def read_pool(text: str) -> IPv4Network:
    """A pool of subnets, of which each network takes a /24. Raises ValueError."""
    try:
        pool = IPv4Network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is no IPv4 range such as {POOL}: {error}") from None
    if not _LARGEST_POOL <= pool.prefixlen <= _SMALLEST_POOL:
        raise ValueError(f"{text!r} is none of /{_LARGEST_POOL} to /{_SMALLEST_POOL}")
    if not _is_private(pool):
        raise ValueError(f"{text!r} is not private: take one inside of {', '.join(PRIVATE)}")
    return pool


def needing_admin(rules: Iterable[PolicyRule], subnet: IPv4Network) -> list[str]:
    """The destinations that rules open and that only an admin may open."""
    opened = [IPv4Network(rule.destination) for rule in rules if _opens(rule)]
    return [str(each) for each in opened if is_protected(each) and not each.subnet_of(subnet)]


def _opens(rule: PolicyRule) -> bool:
    return rule.action is Action.ALLOW and rule.destination is not None


def allocate(taken: Iterable[IPv4Network], pool: IPv4Network = POOL) -> IPv4Network:
    """The first subnet of a pool that overlaps none that is taken. Raises ConflictError."""
    used = list(taken)
    for subnet in pool.subnets(new_prefix=_POOL_PREFIX):
        if not any(subnet.overlaps(each) for each in used):
            return subnet
    raise ConflictError(f"no subnet of {pool} is free: delete a network, or name a subnet")
