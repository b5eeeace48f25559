"""A host whose bridges and packet filter are only noted, with the rules that it was given."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from pathlib import Path
from threading import RLock
from typing import Any

from director.activities.networks import HostNetworks
from director.domain.errors import ConflictError
from director.networks.bridges import Bridges
from director.networks.filter import FilterError
from director.networks.leased import LeasedNetworks
from director.networks.names import Names
from director.networks.rules import Network
from director.store.engine import Store


@dataclass
class ScriptedHost:
    """Bridges and filter in one; what goes wrong on it is for the test to say."""

    applied: dict[str, Network] = field(default_factory=dict)
    bridges: dict[str, str] = field(default_factory=dict)
    inside: dict[str, dict[str, str]] = field(default_factory=dict)
    counted: dict[str, tuple[int, int]] = field(default_factory=dict)
    taken: list[IPv4Network] = field(default_factory=list)
    rivals: int = 0
    """How many more times somebody else is quicker to take a subnet."""
    broken: str = ""
    home: Path = Path("nowhere")
    hosts: dict[str, list[str]] = field(default_factory=dict)
    known: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    """By sandbox, the names that it was told with their addresses."""
    order: list[str] = field(default_factory=list)
    _lock: RLock = field(default_factory=RLock)

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._lock:
            yield

    def apply(self, networks: Sequence[Network]) -> None:
        if self.broken:
            raise FilterError(self.broken)
        self.applied = {each.id: each for each in networks}
        self.order += [f"rules {id}" for id in self.applied]

    def clear(self) -> None:
        self.applied = {}

    def counters(self) -> dict[str, tuple[int, int]]:
        return self.counted

    def there(self) -> set[str]:
        return set(self.bridges)

    def create(self, network_id: str, subnet: str, gateway: str) -> None:
        if network_id not in self.bridges:
            if self.rivals:
                self.rivals -= 1
                self.taken.append(IPv4Network(subnet))
            if any(each.overlaps(IPv4Network(subnet)) for each in self.taken):
                raise ConflictError(f"subnet {subnet} is used by the host", subnet=subnet)
            self.bridges[network_id] = subnet
            self.order.append(f"bridge {network_id}")

    def used(self) -> list[IPv4Network]:
        return self.taken

    def attached(self, network_id: str) -> list[str]:
        return sorted(self.inside.get(network_id, {}))

    def members(self, network_id: str) -> dict[str, str]:
        return self.inside.get(network_id, {})

    def here(self, network_id: str) -> bool:
        return network_id in self.bridges

    def tell_names(self, sandbox_id: str, resolvers: object, names: Any) -> None:
        del resolvers
        self.known[sandbox_id] = names

    def detach(self, network_id: str, sandbox_id: str) -> None:
        self.inside.get(network_id, {}).pop(sandbox_id, None)
        self.order.append(f"detached {sandbox_id}")

    def remove(self, network_id: str) -> None:
        self.bridges.pop(network_id, None)
        self.inside.pop(network_id, None)

    engine_name = staticmethod(Bridges.engine_name)

    def resolve(self, name: str) -> list[str]:
        if name not in self.hosts:
            raise OSError(f"no such name: {name}")
        return self.hosts[name]

    def networks(self, store: Store, host_id: str) -> HostNetworks:
        """The networks of such a host, as a worker has them."""
        names = Names(self.resolve)
        return HostNetworks(
            store,
            host_id,
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            lambda id: f"br{id[-8:]}",
            LeasedNetworks(self.home),
            names,
            self.tell_names,
        )
