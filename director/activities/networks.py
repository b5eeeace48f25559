"""Networks on this host: enforced as the database wants them, whatever happened meanwhile."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import structlog
from sqlmodel import Session
from temporalio import activity

from director.activities.complaints import Complaint
from director.activities.heartbeat import heartbeating
from director.activities.refusals import refusals_told
from director.domain import names
from director.domain.base import Json
from director.domain.errors import ConflictError, DirectorError, UnavailableError
from director.domain.events import EventType
from director.domain.ids import POLICY, is_id
from director.domain.networks import (
    POOL,
    Destination,
    Direction,
    NetworkInput,
    NetworkOutcome,
    PolicyCreate,
    allocate,
    is_protected,
)
from director.domain.sandboxes import SandboxNetwork
from director.domain.security_events import SecurityEventType, Severity
from director.domain.times import rfc3339, utc_now
from director.networks.blocked import Attempt, Listener, Tally
from director.networks.bridges import Bridges
from director.networks.filter import FilterError, PacketFilter
from director.networks.leased import LeasedNetworks, lease
from director.networks.names import Names
from director.networks.rules import Grant, Network, Policy, counter_name
from director.store import events, networks, security_events
from director.store.engine import Store
from director.store.networks import Wanted
from director.store.tables import NetworkGrantRow, NetworkPolicyRow, NetworkRow, SandboxRow

log = structlog.get_logger()

_PERIOD = 5.0
_LISTEN = 1.0
_BACKSTOP = timedelta(hours=1)
_MOVES = 20
"""How often a new network looks for another subnet where others of its machine were quicker."""
"""How long the kernel keeps the addresses of a name that no worker renews."""

_RESOLVERS = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))

_SHOWN_BESIDE = ("alert", "sandboxId", "sessionId")
"""What a security event has in fields of its own."""

TellNames = Callable[[str, Sequence[str], Mapping[str, Sequence[str]]], None]
"""Has a sandbox know whom to ask for names, and the addresses of names that it need not ask for."""


def host_resolvers() -> tuple[IPv4Address, ...]:
    """Whom this host asks for names, itself aside."""
    for path in _RESOLVERS:
        found = []
        with suppress(OSError):
            for line in path.read_text().splitlines():
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver":
                    with suppress(ValueError):
                        found.append(IPv4Address(words[1]))
        if others := tuple(dict.fromkeys(each for each in found if not each.is_loopback)):
            return others
    return ()


@dataclass
class HostNetworks:
    """The networks of this host. Rules come first, bridges then: whatever has a bridge of ours and
    no rules is refused."""

    store: Store
    host_id: str
    bridges: Bridges
    filter: PacketFilter
    bridge_of: Callable[[str], str]
    leased: LeasedNetworks
    names: Names = field(default_factory=Names)
    tell_names: TellNames = lambda *_: None
    resolvers: Callable[[], Sequence[IPv4Address]] = host_resolvers
    pool: IPv4Network = POOL
    """Where subnets are taken from that nobody named."""

    def enforce(self) -> None:
        """Bring filter and bridges to what the database has now. Raises DirectorError; what could
        be enforced is."""
        self._enforce()
        if self._follow():  # not before: what is closed does not wait for who answers for a name
            self._enforce()

    def _enforce(self) -> None:
        with self.filter.locked():
            self._drop_unused()
            wanted = self._wanted()
            if not wanted and not self.leased.living() and not self.bridges.there():
                self.filter.clear()
                return
            leased = self._apply(wanted)
            failed = self._make_bridges(wanted)
            there = self.bridges.there()
            for id in there - {each.row.id for each in wanted} - {each.id for each in leased}:
                self._remove_unknown(id)
            done = [each.row for each in wanted if each.row.id in there]
            self._tell_names(wanted)
            self._note([row for row in done if row.applied != row.version])
        if failed is not None:
            raise failed

    def apply(self, network_id: str) -> None:
        """Enforce a network, which is new or was changed. Raises ConflictError where its subnet
        cannot be had here, UnavailableError where something else keeps it from being enforced."""
        try:
            self.enforce()
        except ConflictError as error:
            if error.details.get("network") == network_id:
                raise
        with self.store.read() as session:
            row = session.get(NetworkRow, network_id)
        if row is not None and row.deleted_at is None and row.applied == 0:
            raise UnavailableError(f"network {network_id} could not be made on its host")

    def remove(self, network_id: str, *, force: bool) -> list[str]:
        """Remove a network; gives the sandboxes that keep it from that, unless forced."""
        with self.filter.locked():
            attached = {*self.bridges.attached(network_id), *self._inside().get(network_id, ())}
            if attached and not force:
                return sorted(attached)
            self.bridges.remove(network_id)
            with self.store.write() as session:
                networks.remove(session, network_id)
        self.enforce()
        return []

    def joining(self, network_id: str) -> SandboxNetwork:
        """What a sandbox needs to be made on a network whose rules are in force: its container may
        start. Raises UnavailableError where they are not; FilterError where they cannot be, and
        ConflictError where its subnet cannot be had."""
        row, _, grants = self._ready(network_id)
        asked, name = [str(at) for at in self._asked(row)], self.bridges.engine_name(network_id)
        return SandboxNetwork(name=name, resolvers=asked, names=_known(grants))

    def _ready(self, network_id: str) -> Wanted:
        try:
            self._enforce()
        except ConflictError as error:
            if error.details.get("network") == network_id:
                raise
        with self.store.read() as session:
            found = networks.wanted(session, network_id)
        if found is None or found.row.host_id != self.host_id:
            raise UnavailableError(f"network {network_id} is not on this host")
        if found.row.applied != found.row.version:
            raise UnavailableError(f"network {network_id} is not enforced yet")
        self._require_here(network_id)
        return found

    def _require_here(self, network_id: str) -> None:
        if not self.bridges.here(network_id):
            raise FilterError(
                f"network {network_id} cannot be filtered: the engine has its bridge in another"
                " network namespace than the worker; run both on the machine itself"
            )

    @contextmanager
    def opened(
        self, id: str, addresses: Sequence[IPv4Address], port: int
    ) -> Iterator[SandboxNetwork]:
        """A network for one sandbox, which reaches these addresses at one port of TCP and nothing
        else, while the block lasts: the sandbox must be gone by its end.

        Raises FilterError where it cannot be filtered, UnavailableError or ConflictError where it
        cannot be made."""
        for left in reversed(range(_MOVES)):
            network = lease(id, self.bridge_of(id), self._free_subnet(), tuple(addresses), port)
            with self._held(network):
                try:
                    self._open(network)
                except ConflictError:  # somebody else of this machine was quicker
                    if left:
                        continue
                    raise
                yield SandboxNetwork(name=self.bridges.engine_name(id))
                return

    @contextmanager
    def _held(self, network: Network) -> Iterator[None]:
        """Have a leased network wanted; what it leaves is gone then, or after the next round."""
        try:
            with self.leased.held(network):
                yield
        finally:
            with suppress(DirectorError):
                self._enforce()

    def _open(self, network: Network) -> None:
        with self.filter.locked():
            self._apply(self._wanted())
            first = next(network.subnet.hosts())
            self.bridges.create(network.id, str(network.subnet), str(first))
        self._require_here(network.id)

    def _free_subnet(self) -> IPv4Network:
        with self.store.read() as session:
            taken = networks.subnets(session)
        return allocate([*taken, *self.bridges.used()], self.pool)

    def _apply(self, wanted: list[Wanted]) -> list[Network]:
        """Put the rules of all networks into force; gives those that are leased."""
        leased = self.leased.living()
        self.filter.apply([*map(self._rules, wanted), *leased])
        return leased

    def joined(self, network_id: str) -> None:
        """Write who is in a network now that somebody has come or gone."""
        members = self.bridges.members(network_id)
        with self.store.write() as session:
            networks.note(session, network_id, 0, members)

    def leave(self, network_id: str, sandbox_id: str) -> None:
        """Take a sandbox out of a network at once, with all its connections. Raises
        UnavailableError."""
        self.bridges.detach(network_id, sandbox_id)
        self.joined(network_id)

    def look(self) -> None:
        """Write what the filter has counted and who is in which network."""
        if not (wanted := self._wanted()):
            return
        counted = self.filter.counters()
        counters = {
            policy.id: _counters(policy, counted)
            for each in wanted
            for policy in each.policies
            if policy.metrics
        }
        members = {each.row.id: self.bridges.members(each.row.id) for each in wanted}
        changed = [each.row for each in wanted if each.row.members != members[each.row.id]]
        stale = {
            policy.id: counters[policy.id]
            for each in wanted
            for policy in each.policies
            if policy.metrics and policy.counters != counters[policy.id]
        }
        if not changed and not stale:
            return
        with self.store.write() as session:
            for row in changed:
                networks.note(session, row.id, row.applied, members[row.id])
            networks.note_counters(session, stale)

    def _inside(self) -> dict[str, list[str]]:
        with self.store.read() as session:
            return networks.sandboxes(session, self.host_id)

    def _drop_unused(self) -> None:
        with self.store.read() as session:
            if not networks.unused(session, self.host_id):
                return
        with self.store.write() as session:
            networks.drop_unused(session, self.host_id)

    def _tell_names(self, wanted: list[Wanted]) -> None:
        """Before it is said that a change is enforced: who is let through is known by its name."""
        inside = self._inside()
        for each in wanted:
            asked, names = [str(at) for at in self._asked(each.row)], _known(each.grants)
            for sandbox_id in inside.get(each.row.id, ()):
                self.tell_names(sandbox_id, asked, names)

    def _asked(self, row: NetworkRow) -> Sequence[IPv4Address]:
        return self.resolvers() if row.enable_dns else ()

    def _wanted(self) -> list[Wanted]:
        with self.store.read() as session:
            return networks.of_host(session, self.host_id)

    def _follow(self) -> bool:
        """Look where open names lead to now; tells whether that is to be enforced."""
        named = [
            grant for each in self._wanted() for grant in each.grants if _address(grant) is None
        ]
        known: dict[str, dict[str, str]] = {}
        for grant in named:
            known.setdefault(grant.host, {}).update(grant.addresses)
        found = self.names.followed(known)
        changed = {
            grant.id: found[grant.host] for grant in named if grant.addresses != found[grant.host]
        }
        if changed:
            with self.store.write() as session:
                networks.note_addresses(session, changed)
        return bool(changed)

    def _rules(self, wanted: Wanted) -> Network:
        row = wanted.row
        return Network(
            id=row.id,
            bridge=self.bridge_of(row.id),
            subnet=IPv4Network(row.subnet),
            internal=row.internal,
            isolated=row.isolated,
            policies=tuple(_policy(each) for each in wanted.policies),
            grants=tuple(_grant(each) for each in wanted.grants),
            resolvers=tuple(self._asked(row)),
            nameless=not row.enable_dns,
        )

    def _make_bridges(self, wanted: list[Wanted]) -> ConflictError | None:
        failed: ConflictError | None = None
        for each in wanted:
            try:
                self._make_bridge(each.row)
            except ConflictError as error:
                failed = ConflictError(error.message, **error.details, network=each.row.id)
        return failed

    def _make_bridge(self, row: NetworkRow) -> None:
        """A new network whose subnet this machine uses takes another, and again another where
        somebody else of this machine was quicker."""
        for _ in range(_MOVES):
            try:
                return self.bridges.create(row.id, row.subnet, row.gateway)
            except ConflictError:
                if not row.picked or row.applied:
                    raise
            row = self._moved(row)
        return self.bridges.create(row.id, row.subnet, row.gateway)

    def _moved(self, row: NetworkRow) -> NetworkRow:
        """The network with another subnet, whose rules are in force before its bridge is there."""
        with self.store.write() as session:
            networks.move(session, row.id, self.bridges.used(), self.pool)
        wanted = self._wanted()
        self._apply(wanted)
        (moved,) = [each.row for each in wanted if each.row.id == row.id]
        return moved

    def _remove_unknown(self, network_id: str) -> None:
        """A bridge that no row wants: rows are written before bridges are made."""
        self.bridges.remove(network_id)
        log.info("network removed, nobody wants it any more", network=network_id)

    def _note(self, rows: list[NetworkRow]) -> None:
        if not rows:
            return
        with self.store.write() as session:
            for row in rows:
                networks.note(session, row.id, row.version)


@dataclass(frozen=True)
class NetworkActivities:
    """Standalone activities on the queue of the network's host, each safe to repeat."""

    host: HostNetworks

    @activity.defn(name=names.APPLY_NETWORK, no_thread_cancel_exception=True)
    def apply_network(self, asked: NetworkInput) -> NetworkOutcome:
        """Enforce what the database has of a network."""
        with refusals_told(), heartbeating():
            self.host.apply(asked.network_id)
        return NetworkOutcome()

    @activity.defn(name=names.REMOVE_NETWORK, no_thread_cancel_exception=True)
    def remove_network(self, asked: NetworkInput) -> NetworkOutcome:
        """Remove a network unless sandboxes are in it."""
        with refusals_told(), heartbeating():
            return NetworkOutcome(attached=self.host.remove(asked.network_id, force=asked.force))


class NetworkKeeper:
    """Enforces again what somebody may have taken away, follows names, and tells of what was
    refused. Nothing that fails in here ends the worker."""

    def __init__(self, host: HostNetworks, group: int | None) -> None:
        self._host = host
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._keep, name="networks", daemon=True)]
        if group is not None:
            listen = threading.Thread(target=self._listen, args=(group,), name="blocked")
            listen.daemon = True
            self._threads.append(listen)
        self._rules = Complaint("networks are not enforced", "networks are enforced")
        self._telling = Complaint("blocked attempts are not told", "blocked attempts are told")

    def start(self) -> None:
        """Enforce what is wanted before anything else begins, then keep it so."""
        self._round()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; what is enforced stays so."""
        self._over.set()
        for thread in self._threads:
            thread.join(_PERIOD)

    def _keep(self) -> None:
        while not self._over.wait(_PERIOD):
            self._round()

    def _round(self) -> None:
        try:
            self._host.enforce()
            self._host.look()
        except Exception as error:
            self._rules.fails(error)
        else:
            self._rules.works()

    def _listen(self, group: int) -> None:
        while not self._over.is_set():
            try:
                listener = Listener(group)
            except (FilterError, OSError):  # another worker of this host listens
                self._over.wait(_PERIOD)
                continue
            try:
                self._tell(listener)
            finally:
                listener.close()

    def _tell(self, listener: Listener) -> None:
        tally = Tally()
        while not self._over.is_set():
            tally.add(listener.attempts(_LISTEN))
            if not (due := tally.due()):
                continue
            try:
                with self._host.store.write() as session:
                    for attempt, count in due:
                        tell_blocked(session, attempt, count)
            except Exception as error:
                self._telling.fails(error)
            else:
                self._telling.works()


def tell_blocked(session: Session, attempt: Attempt, count: int) -> None:
    """Append the event of a refused connection."""
    ground = attempt.ground
    row = session.get(NetworkRow, ground.network_id)
    if row is None or row.deleted_at is not None:
        return
    outbound = ground.direction is Direction.OUTBOUND
    inside = attempt.source if outbound else attempt.destination
    sandboxes = {address: id for id, address in row.members.items()}
    sandbox = session.get(SandboxRow, id) if (id := sandboxes.get(inside)) else None
    of_sandbox = sandbox.session_id if sandbox else None
    session_id = row.session_id or of_sandbox
    policy_id = ground.why if is_id(POLICY, ground.why) else None
    where = attempt.destination + (f" port {attempt.port}" if attempt.port is not None else "")
    message = f"{attempt.protocol} from {attempt.source} to {where} was refused"
    alert = {
        "rule": "BLOCKED_CONNECTION",
        "severity": "high" if ground.why in ("protected", "host", "forged") else "medium",
        "message": message,
        "timestamp": rfc3339(utc_now()),
    }
    data: Json = {
        "alert": alert,
        "networkId": row.id,
        "sessionId": session_id,
        "sandboxId": id,
        "policyId": policy_id,
        "reason": "policy" if policy_id else ground.why,
        "direction": ground.direction,
        "source": attempt.source,
        "destination": attempt.destination,
        "protocol": attempt.protocol,
        "port": attempt.port,
        "attempts": count,
    }
    kind = EventType.NETWORK_BLOCKED
    events.append(
        session, kind, subject=row.id, owner_id=row.owner_id, session_id=session_id, data=data
    )
    security_events.note(
        session,
        SecurityEventType.EGRESS_BLOCKED if outbound else SecurityEventType.INGRESS_BLOCKED,
        owner_id=row.owner_id,
        subject=id or row.id,
        sandbox_id=id,
        session_id=of_sandbox or row.session_id,
        severity=Severity(alert["severity"]),
        rule=policy_id or ground.why,
        message=message,
        details={name: value for name, value in data.items() if name not in _SHOWN_BESIDE},
        times=count,
    )


def _policy(row: NetworkPolicyRow) -> Policy:
    body = PolicyCreate.model_validate(
        {"name": row.name, "inbound": row.inbound, "outbound": row.outbound}
    )
    return Policy(
        id=row.id,
        inbound=tuple(body.inbound),
        outbound=tuple(body.outbound),
        logging=row.logging,
        metrics=row.metrics,
        privileged=row.privileged,
    )


def _address(row: NetworkGrantRow) -> IPv4Address | None:
    return Destination.model_validate({"host": row.host}).address


def _known(grants: list[NetworkGrantRow]) -> dict[str, list[str]]:
    """The names that grants open, with the addresses at which they are open."""
    found: dict[str, list[str]] = {}
    for row in grants:
        if _address(row) is None:
            open_ones = [
                at for at in row.addresses if row.privileged or not is_protected(IPv4Address(at))
            ]
            found[row.host] = sorted({*found.get(row.host, []), *open_ones})
    return found


def _grant(row: NetworkGrantRow) -> Grant:
    body = Destination.model_validate(
        {"host": row.host, "port": row.port, "protocol": row.protocol}
    )
    fixed = body.address
    found = (fixed,) if fixed else tuple(IPv4Address(each) for each in row.addresses)
    return Grant(
        id=row.id,
        addresses=found,
        protocol=body.protocol,
        port=body.port,
        privileged=row.privileged,
        lifetime=None if fixed else _BACKSTOP,
    )


def _counters(policy: NetworkPolicyRow, counted: dict[str, tuple[int, int]]) -> list[Json]:
    found: list[Json] = []
    for direction in Direction:
        rules = policy.inbound if direction is Direction.INBOUND else policy.outbound
        for number in range(len(rules) + 1 if rules else 0):
            packets, size = counted.get(counter_name(policy.id, direction, number), (0, 0))
            entry: Json = {"direction": direction, "rule": number}
            found.append(entry | {"packets": packets, "bytes": size})
    return found
