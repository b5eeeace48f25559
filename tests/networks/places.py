"""A host with an engine, its networks, and sandboxes on them, as Director makes them."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, TypeVar

import docker
from sqlmodel import Session

from director.activities.networks import HostNetworks
from director.domain.hosts import Capacity
from director.domain.lifetimes import SandboxCreate
from director.domain.networks import NetworkCreate
from director.domain.sandboxes import Command, SandboxSpec
from director.domain.users import Principal, Role
from director.networks.bridges import Bridges
from director.networks.filter import Names, PacketFilter
from director.networks.leased import LeasedNetworks
from director.networks.names import Names as HostNames
from director.sandbox.docker import DockerRuntime
from director.store import hosts, networks, sandboxes
from director.store.engine import Store
from director.store.tables import NetworkRow

T = TypeVar("T")

ADMIN = Principal(user_id="usr_1", username="admin", role=Role.ADMIN, login_id="log_1")


@dataclass
class Place:
    """What a test works with. `run` is where the packet filter is that its bridges pass."""

    client: docker.DockerClient
    store: Store
    runtime: DockerRuntime
    networks: HostNetworks
    image: str
    run: Callable[[Callable[[], Any]], Any]
    resolvers: list[IPv4Address] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def network(self, **fields: Any) -> NetworkRow:
        """Make a network and enforce it."""
        body = NetworkCreate.model_validate({"name": uuid.uuid4().hex, **fields})
        id = self.write(lambda s: networks.create(s, ADMIN, body).id)
        self.run(lambda: self.networks.apply(id))
        with self.store.read() as session:
            return session.get_one(NetworkRow, id)

    def write(self, work: Callable[[Session], T]) -> T:
        with self.store.write() as session:
            return work(session)

    def change(self, work: Callable[[Session], Any]) -> None:
        """Change what is wanted, and enforce it."""
        self.write(work)
        self.run(self.networks.enforce)

    def sandbox(self, network_id: str) -> str:
        """Make a sandbox on a network."""
        body = SandboxCreate(network_mode=network_id)
        id = self.write(lambda s: sandboxes.create(s, ADMIN, body).id)
        joining = self.run(lambda: self.networks.joining(network_id))
        spec = SandboxSpec(id=id, image=self.image, owner_id=id, memory_mib=128, network=joining)
        self.runtime.create(spec)
        return id

    def said(self, sandbox_id: str, *argv: str) -> str:
        """What a command in a sandbox says until its end."""
        command = Command(id=f"exec_{uuid.uuid4().hex}", argv=list(argv), timeout_ms=20_000)
        execution = self.runtime.run(sandbox_id, command)
        assert execution.wait(30) is not None
        return execution.read("stdout", 0, 1 << 20).decode()

    def pid(self, sandbox_id: str) -> int:
        """The first process of a sandbox."""
        found = self.client.api.inspect_container(f"director-{sandbox_id}")
        return int(found["State"]["Pid"])

    def address(self, network_id: str, sandbox_id: str) -> str:
        return self.networks.bridges.members(network_id)[sandbox_id]


@contextmanager
def place(
    client: docker.DockerClient,
    home: Path,
    image: str,
    run: Callable[[Callable[[], Any]], Any] = lambda work: work(),
) -> Iterator[Place]:
    """A host of a test's own, of which nothing is left."""
    installation = f"test-{uuid.uuid4().hex[:12]}"
    store, called = Store(f"sqlite:///{home}/director.db"), Names(installation)
    store.create_tables()
    bridges = Bridges(client, installation, called)
    runtime = DockerRuntime(client, home, installation, {})
    filter = PacketFilter(called, home)
    known = HostNetworks(store, "h", bridges, filter, called.bridge, LeasedNetworks(home))
    known.tell_names = runtime.tell_names
    made = Place(client, store, runtime, known, image, run)
    known.resolvers = lambda: made.resolvers
    known.names = HostNames(lambda name: made.names.get(name, []), lambda: made.now)
    made.write(lambda s: hosts.register(s, "h", Capacity(), timedelta(hours=1)))
    try:
        yield made
    finally:
        for each in runtime.sandboxes():
            runtime.remove(each.id)
        for id in bridges.there():
            bridges.remove(id)
        run(filter.clear)
        store.close()
