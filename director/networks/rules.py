"""What a host's networks allow, as one script for nftables. Pure: the same input, the same script.

Each packet is judged by the first packet of its connection, which conntrack remembers: whoever
began it, and to where. So a change holds for connections that exist as well, from one packet to the
next, and nothing is accepted only because it is established."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network

from director.domain.networks import (
    PROTECTED,
    Action,
    Direction,
    PolicyRule,
    Protocol,
    is_protected,
)

_HOOKS = ("forward", "input", "output")
_PRIORITY = -10
"""Before Docker's own chains, which are asked as well: our deny is final, our allow is not."""

_ERRORS = "icmp type { destination-unreachable, time-exceeded, parameter-problem }"
"""What routers say of packets of a connection."""

_REFUSALS = (f"{_ERRORS} accept", "tcp flags & (fin | syn | rst) == rst accept")
"""How this host itself says that it refuses: without it whoever is refused would wait."""

_NO_BEGINNING = "ct direction original ct state new tcp flags & (fin | syn | rst | ack) != syn drop"
"""A connection that was cut and forgotten never goes on as one that the other side begins."""

_LOG_RATE = "limit rate 10/second burst 20 packets"
_SAFE = re.compile(r"[a-z0-9_]{1,120}")
_IN, _OUT = Direction.INBOUND, Direction.OUTBOUND


@dataclass(frozen=True)
class Policy:
    """A policy; `privileged` where an admin made it: it opens the protected addresses it names."""

    id: str
    inbound: tuple[PolicyRule, ...] = ()
    outbound: tuple[PolicyRule, ...] = ()
    logging: bool = False
    metrics: bool = False
    privileged: bool = False

    def rules(self, direction: Direction) -> tuple[PolicyRule, ...]:
        """The rules of a direction; none of them leaves it open."""
        return self.inbound if direction is _IN else self.outbound


@dataclass(frozen=True)
class Grant:
    """A destination that is open whatever else holds, at the addresses that it has now. Those of
    a name are forgotten by the kernel after `lifetime`, should nobody renew them."""

    id: str
    addresses: tuple[IPv4Address, ...]
    protocol: Protocol = Protocol.TCP
    port: int | None = None
    privileged: bool = False
    lifetime: timedelta | None = None


@dataclass(frozen=True)
class Network:
    """A network as its host is to filter it."""

    id: str
    bridge: str
    subnet: IPv4Network
    internal: bool = False
    isolated: bool = False
    policies: tuple[Policy, ...] = ()
    grants: tuple[Grant, ...] = ()
    resolvers: tuple[IPv4Address, ...] = ()
    """Whom its sandboxes ask for names, as far as the policies allow it."""
    nameless: bool = False
    """Whether they may ask nobody at all for names, in DNS at least."""


@dataclass(frozen=True)
class Existing:
    """What is in our table besides rules: the names of its chains, sets and counters."""

    chains: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    counters: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Ground:
    """Why a packet is refused: `why` is a policy's id, or a word of ours."""

    network_id: str
    why: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.network_id}|{self.why}|{self.direction}"

    @staticmethod
    def read(text: str) -> "Ground | None":
        """The ground in a log prefix; None where it is none of ours."""
        parts = text.split("|")
        if len(parts) != 3 or parts[2] not in (_IN, _OUT):
            return None
        return Ground(parts[0], parts[1], Direction(parts[2]))


def script(
    table: str, prefix: str, group: int, networks: Sequence[Network], existing: Existing
) -> str:
    """The script that replaces all of our table's rules at once and leaves its counters.

    Whatever goes through an interface whose name begins with `prefix` and belongs to none of the
    networks is refused. Blocked packets are told to NFLOG's `group`."""
    made = _Table(table, group)
    for hook in _HOOKS:
        made.chain(hook, f"type filter hook {hook} priority {_PRIORITY}; policy accept;")
    made.hooks(prefix, networks)
    for network in networks:
        _network(made, network)
    return made.text(existing)


def counter_name(policy_id: str, direction: Direction, rule: int) -> str:
    """The counter of a policy's rule."""
    return f"c_{policy_id}_{direction}_{rule}"


class _Table:
    """Collects what a table holds."""

    def __init__(self, name: str, group: int) -> None:
        self._name, self._group = _safe(name), group
        self._chains: dict[str, str] = {}
        self._rules: list[str] = []
        self._sets: dict[str, list[str]] = {}
        self._counters: list[str] = []

    def chain(self, name: str, hook: str = "") -> str:
        self._chains[_safe(name)] = hook
        return name

    def rule(self, chain: str, *parts: str) -> None:
        words = " ".join(part for part in parts if part)
        self._rules.append(f"add rule inet {self._name} {chain} {words}")

    def addresses(self, name: str, elements: list[str]) -> str:
        self._sets[_safe(name)] = elements
        return f"@{name}"

    def counter(self, name: str) -> str:
        self._counters.append(_safe(name))
        return f"counter name {name}"

    def verdict(self, ground: Ground, *, log: bool, silent: bool = False) -> str:
        """A chain that refuses, and tells of the first packets of what it refuses."""
        name = f"no_{ground.network_id}_{ground.why}_{ground.direction}"
        if name not in self._chains:
            self.chain(name)
            if log:
                told = f'log prefix "{ground}" group {self._group} snaplen 128'
                self.rule(name, "ct direction original", _LOG_RATE, told)
            if not silent:
                self.rule(name, "meta l4proto tcp reject with tcp reset")
            self.rule(name, "drop" if silent else "reject with icmpx type admin-prohibited")
        return f"goto {name}"

    def hooks(self, prefix: str, networks: Sequence[Network]) -> None:
        """Send each packet of ours to the chains of the networks that it comes from and goes to,
        from the one that began its connection to the other."""
        ours, bridges = f'"{_safe(prefix)}*"', [f'"{_safe(each.bridge)}"' for each in networks]
        entry = ("ct state { invalid, untracked } drop",)
        known = f"!= {{ {', '.join(bridges)} }}" if bridges else ""

        def to(kind: str, side: str, direction: str) -> list[str]:
            pairs = [f'"{each.bridge}" : jump {kind}_{each.id}' for each in networks]
            return (
                [f"ct direction {direction} {side} vmap {{ {', '.join(pairs)} }}"] if pairs else []
            )

        def stranger(side: str) -> str:
            return f"{side} {ours} {side} {known} drop" if known else f"{side} {ours} drop"

        self._hook("forward", f"iifname != {ours} oifname != {ours} accept", *entry)
        self.rule("forward", f"iifname != {ours} ct state related {_ERRORS} accept")
        self._hook("forward", stranger("iifname"), stranger("oifname"), _NO_BEGINNING)
        if networks:
            inside = ", ".join(str(each.subnet) for each in networks)
            outside = f"iifname != {ours} ct direction original ct original ip saddr"
            self.rule("forward", f"{outside} {{ {inside} }} drop")
        self._hook("forward", *to("out", "iifname", "original"), *to("out", "oifname", "reply"))
        self._hook("forward", *to("in", "oifname", "original"), *to("in", "iifname", "reply"))
        self._hook("input", f"iifname != {ours} accept", *entry, stranger("iifname"))
        self.rule("input", _NO_BEGINNING)
        self._hook("input", *to("host", "iifname", "original"), *to("in", "iifname", "reply"))
        self._hook("output", f"oifname != {ours} accept", *_REFUSALS, *entry)
        self._hook("output", stranger("oifname"), _NO_BEGINNING)
        self._hook("output", *to("in", "oifname", "original"), *to("host", "oifname", "reply"))

    def _hook(self, chain: str, *rules: str) -> None:
        for rule in rules:
            self.rule(chain, rule)

    def text(self, existing: Existing) -> str:
        """All as one transaction."""
        table = f"inet {self._name}"
        lines = [f"add table {table}", f"flush table {table}"]
        lines += [_chain(table, name, hook) for name, hook in self._chains.items()]
        for name, elements in self._sets.items():
            lines.append(f"add set {table} {name} {{ type ipv4_addr; flags timeout; }}")
            lines.append(f"flush set {table} {name}")
            if elements:
                lines.append(f"add element {table} {name} {{ {', '.join(elements)} }}")
        lines += [f"add counter {table} {name}" for name in self._counters]
        lines += self._rules
        lines += _deletes(table, "chain", existing.chains, self._chains)
        lines += _deletes(table, "set", existing.sets, self._sets)
        lines += _deletes(table, "counter", existing.counters, self._counters)
        return "\n".join(lines) + "\n"


def _chain(table: str, name: str, hook: str) -> str:
    return f"add chain {table} {name}" + (f" {{ {hook} }}" if hook else "")


def _deletes(table: str, kind: str, there: Iterable[str], kept: Iterable[str]) -> list[str]:
    return [f"delete {kind} {table} {_safe(name)}" for name in sorted(set(there) - set(kept))]


def _network(made: _Table, network: Network) -> None:
    for grant in network.grants:
        made.addresses(f"g_{grant.id}", _elements(grant))
    for policy in network.policies:
        for direction in Direction:
            if policy.rules(direction):
                _policy(made, network, policy, direction)
    _outbound(made, network)
    _to_the_host(made, network)
    _inbound(made, network)


def _outbound(made: _Table, network: Network) -> None:
    """What a sandbox of the network begins, to whoever is not this host."""
    chain = made.chain(f"out_{network.id}")
    _common(made, network, chain, _OUT)
    for grant in network.grants:
        made.rule(chain, _granted(grant), "return")
    if network.isolated:
        made.rule(chain, _denied(made, network, "isolated", _OUT, silent=True))
        return
    judged = _policies(made, network, _OUT)
    # what the host passes on to another address is perhaps a port that a container publishes on it
    made.rule(chain, "ct status dnat", _denied(made, network, "host", _OUT))
    made.rule(chain, f"ct original ip daddr {network.subnet}", judged)
    if network.nameless:
        for protocol in (Protocol.UDP, Protocol.TCP):
            made.rule(chain, _ports(protocol, "53"), _denied(made, network, "dns", _OUT))
    if network.internal:
        made.rule(chain, _denied(made, network, "internal", _OUT))
        return
    if network.resolvers:
        asked = f"ct original ip daddr {{ {_listed(network.resolvers)} }}"
        for protocol in (Protocol.UDP, Protocol.TCP):
            made.rule(chain, asked, _ports(protocol, "53"), judged)
    unopened = f"ct original ip daddr {{ {_listed(PROTECTED)} }}"
    if opened := _opened(network.policies):
        unopened += f" ct original ip daddr != {{ {_listed(opened)} }}"
    made.rule(chain, unopened, _denied(made, network, "protected", _OUT))
    made.rule(chain, judged)


def _to_the_host(made: _Table, network: Network) -> None:
    """What a sandbox begins to an address of this host, whichever it is."""
    chain = made.chain(f"host_{network.id}")
    _common(made, network, chain, _OUT)
    for grant in network.grants:
        if grant.privileged:
            made.rule(chain, _granted(grant), "return")
    if network.isolated:
        made.rule(chain, _denied(made, network, "isolated", _OUT, silent=True))
    else:
        made.rule(chain, _denied(made, network, "host", _OUT))


def _inbound(made: _Table, network: Network) -> None:
    """What others begin to a sandbox of the network: another one of it, or this host."""
    chain = made.chain(f"in_{network.id}")
    made.rule(chain, "meta nfproto != ipv4", _denied(made, network, "ipv6", _IN))
    if network.isolated:
        made.rule(chain, _denied(made, network, "isolated", _IN, silent=True))
    elif any(policy.inbound for policy in network.policies):
        made.rule(chain, _policies(made, network, _IN))
    else:
        made.rule(chain, f"ct original ip saddr {network.subnet} return")
        made.rule(chain, _denied(made, network, "outside", _IN))


def _common(made: _Table, network: Network, chain: str, direction: Direction) -> None:
    made.rule(chain, "meta nfproto != ipv4", _denied(made, network, "ipv6", direction))
    forged = f"ct original ip saddr != {network.subnet}"
    made.rule(chain, forged, _denied(made, network, "forged", direction))


def _denied(
    made: _Table, network: Network, why: str, direction: Direction, *, silent: bool = False
) -> str:
    return made.verdict(Ground(network.id, why, direction), log=True, silent=silent)


def _policies(made: _Table, network: Network, direction: Direction) -> str:
    """A chain that returns where every policy allows."""
    chain = made.chain(f"all_{network.id}_{direction}")
    for policy in network.policies:
        if policy.rules(direction):
            made.rule(chain, f"jump {policy.id}_{direction}")
    return f"goto {chain}"


def _policy(made: _Table, network: Network, policy: Policy, direction: Direction) -> None:
    """A chain that returns where the policy allows."""
    chain = made.chain(f"{policy.id}_{direction}")
    ground = Ground(network.id, policy.id, direction)
    refused = made.verdict(ground, log=policy.logging)
    rules = [*policy.rules(direction), PolicyRule(action=Action.DENY)]
    for number, rule in enumerate(rules):
        name = counter_name(policy.id, direction, number)
        counted = made.counter(name) if policy.metrics else ""
        verdict = "return" if rule.action is Action.ALLOW else refused
        made.rule(chain, *_matches(rule), counted, verdict)


def _matches(rule: PolicyRule) -> Iterator[str]:
    if rule.source is not None:
        yield f"ct original ip saddr {rule.source}"
    if rule.destination is not None:
        yield f"ct original ip daddr {rule.destination}"
    if rule.protocol is not Protocol.ALL:
        yield _ports(rule.protocol, rule.port_range)


def _granted(grant: Grant) -> str:
    matched = f"ct original ip daddr @g_{grant.id}"
    if grant.protocol is Protocol.ALL:
        return matched
    port = None if grant.port is None else str(grant.port)
    return f"{matched} {_ports(grant.protocol, port)}"


def _ports(protocol: Protocol, ports: str | None) -> str:
    matched = f"meta l4proto {protocol}"
    return matched if ports is None else f"{matched} ct original proto-dst {ports}"


def _elements(grant: Grant) -> list[str]:
    lifetime = grant.lifetime
    timeout = "" if lifetime is None else f" timeout {int(lifetime.total_seconds())}s"
    allowed = sorted(each for each in grant.addresses if grant.privileged or not is_protected(each))
    return [f"{address}{timeout}" for address in allowed]


def _opened(policies: Iterable[Policy]) -> list[IPv4Network]:
    """The protected ranges that policies of admins open by their names."""
    named = [
        IPv4Network(rule.destination)
        for policy in policies
        if policy.privileged
        for rule in policy.outbound
        if rule.action is Action.ALLOW and rule.destination is not None
    ]
    return _merged(each for each in named if is_protected(each))


def _merged(networks: Iterable[IPv4Network]) -> list[IPv4Network]:
    """Without those that lie in another: a set of ranges must not overlap."""
    kept: list[IPv4Network] = []
    for each in sorted(networks, key=lambda network: network.prefixlen):
        if not any(each.subnet_of(other) for other in kept):
            kept.append(each)
    return kept


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def _safe(name: str) -> str:
    """Names are of our own making: nobody else's text gets into a script."""
    if not _SAFE.fullmatch(name):
        raise ValueError(f"{name!r} is no name for the packet filter")
    return name
