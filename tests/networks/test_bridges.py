"""Networks on a real engine, with real containers and the packet filter of this machine."""

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from networks.spaces import may
from sqlmodel import Session
from support.waiting import until

from director.activities.networks import HostNetworks
from director.domain import networks as domain
from director.domain.errors import ConflictError
from director.domain.events import EventType
from director.domain.hosts import Capacity
from director.domain.users import Principal, Role
from director.networks.bridges import Bridges
from director.networks.filter import Names, PacketFilter, run_nft
from director.networks.leased import LeasedNetworks
from director.store import events, hosts, networks
from director.store.engine import Store

pytestmark = pytest.mark.docker

ADMIN = Principal(user_id="usr_1", username="admin", role=Role.ADMIN, login_id="log_1")


@dataclass
class Host:
    """One host with its networks, and sandboxes on them."""

    home: Path
    store: Store
    bridges: Bridges
    names: Names
    networks: HostNetworks
    engine: docker.DockerClient
    installation: str
    image: str
    containers: list[Any]

    def network(self, **fields: Any) -> networks.NetworkRow:
        """Make a network and enforce it."""
        body = domain.NetworkCreate.model_validate({"name": uuid.uuid4().hex, **fields})
        row = self.write(lambda s: networks.create(s, ADMIN, body))
        self.networks.apply(row.id)
        return self.row(row.id)

    def row(self, id: str) -> networks.NetworkRow:
        with self.store.read() as session:
            return session.get_one(networks.NetworkRow, id)

    def write(self, work: Callable[[Session], Any]) -> Any:
        with self.store.write() as session:
            return work(session)

    def change(self, work: Callable[[Session], Any]) -> None:
        """Change what is wanted and enforce it."""
        self.write(work)
        self.networks.enforce()

    def sandbox(self, network_id: str, command: str = "sleep 1000") -> Any:
        """A container that starts on a network."""
        made = self.engine.containers.run(
            self.image,
            ["/bin/sh", "-c", command],
            detach=True,
            init=True,
            cap_drop=["ALL"],
            network=self.networks.joining(network_id).name,
            labels={
                "director.installation": self.installation,
                "director.sandbox": f"sbx_{uuid.uuid4().hex[:8]}",
            },
        )
        self.containers.append(made)
        made.reload()
        return made


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient) -> str:
    given = os.environ.get("DIRECTOR_TEST_IMAGE")
    if given is None:
        pytest.skip("needs DIRECTOR_TEST_IMAGE, an image with a shell and busybox or python")
    return given


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture
def host(engine: docker.DockerClient, image: str, tmp_path: Path) -> Iterator[Host]:
    if not may():
        pytest.skip("needs root, which may filter packets")
    installation = f"test-{uuid.uuid4().hex[:12]}"
    store = Store(f"sqlite:///{tmp_path}/director.db")
    store.create_tables()
    names = Names(installation)
    bridges = Bridges(engine, installation, names)
    filter, leased = PacketFilter(names, tmp_path), LeasedNetworks(tmp_path)
    host = HostNetworks(store, "h", bridges, filter, names.bridge, leased)
    made = Host(tmp_path, store, bridges, names, host, engine, installation, image, [])
    made.write(lambda s: hosts.register(s, "h", Capacity()))
    try:
        yield made
    finally:
        for container in made.containers:
            container.remove(force=True)
        for id in bridges.there():
            bridges.remove(id)
        host.filter.clear()
        store.close()


def reached(container: Any, address: str, port: int) -> bool:
    """Whether a connection from a sandbox is taken."""
    code = (
        "import socket,sys\n"
        "s=socket.socket(); s.settimeout(1)\n"
        f"sys.exit(s.connect_ex(({address!r},{port})) != 0)"
    )
    return bool(container.exec_run(["python3", "-c", code]).exit_code == 0)


def address(container: Any) -> str:
    container.reload()
    (found,) = container.attrs["NetworkSettings"]["Networks"].values()
    return str(found["IPAddress"])


SERVER = (
    'python3 -c "import socket\ns=socket.socket()\n'
    "s.setsockopt(1,2,1)\ns.bind(('0.0.0.0',80))\ns.listen(50)\nwhile 1: s.accept()\""
)


def test_a_network_lives_with_its_rules_and_leaves_nothing(host: Host) -> None:
    links = set(os.listdir("/sys/class/net"))
    row = host.network(subnet="172.29.251.0/24", gateway="172.29.251.1")
    assert row.applied == row.version
    assert host.names.table in run_nft("list tables")
    assert host.names.bridge(row.id) in os.listdir("/sys/class/net")
    assert host.bridges.there() == {row.id}

    one, two = host.sandbox(row.id), host.sandbox(row.id, SERVER)
    until(lambda: reached(one, address(two), 80), "peers reach each other")
    assert host.bridges.members(row.id) == {
        each.labels["director.sandbox"]: address(each) for each in (one, two)
    }

    host.change(lambda s: networks.isolate(s, ADMIN, row.id, isolated=True))
    assert not reached(one, address(two), 80)
    host.change(lambda s: networks.isolate(s, ADMIN, row.id, isolated=False))
    assert reached(one, address(two), 80)

    attached = host.networks.remove(row.id, force=False)
    assert attached == sorted(each.labels["director.sandbox"] for each in (one, two))
    assert host.networks.remove(row.id, force=True) == []
    assert host.bridges.there() == set()
    assert host.row(row.id).deleted_at is not None
    assert host.names.table not in run_nft("list tables")
    until(lambda: set(os.listdir("/sys/class/net")) <= links, "no link is left")


def test_neither_the_host_nor_another_network_is_reached(host: Host) -> None:
    a, b = host.network(), host.network()
    one, other = host.sandbox(a.id), host.sandbox(b.id, SERVER)
    until(lambda: reached(other, "127.0.0.1", 80), "it serves")
    listener = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import socket,time\ns=socket.create_server(('0.0.0.0',0))\n"
            "print(s.getsockname()[1],flush=True)\ntime.sleep(100)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert listener.stdout is not None
        port = int(listener.stdout.readline())
        for gateway in (a.gateway, b.gateway, "172.17.0.1"):
            assert not reached(one, gateway, port)
        assert not reached(one, address(other), 80)
        grant = domain.Destination(host=a.gateway, port=port)
        host.change(lambda s: networks.allow(s, ADMIN, a.id, [grant]))
        assert reached(one, a.gateway, port), "an admin may open even that"
    finally:
        listener.kill()
        listener.wait()
        if listener.stdout is not None:
            listener.stdout.close()


def test_a_subnet_that_this_machine_uses_is_refused_or_another_is_picked(host: Host) -> None:
    used = next(each for each in host.bridges.used() if each.prefixlen >= 16)
    with pytest.raises(ConflictError, match="overlaps"):
        host.network(subnet=str(used))


def test_a_bridge_that_nobody_wants_goes(host: Host) -> None:
    host.bridges.create("net_unknown0000", "172.29.252.0/24", "172.29.252.1")
    host.networks.enforce()
    assert host.bridges.there() == set()


KILLED = """
import sys, threading
import docker
from pathlib import Path
from director.activities.networks import HostNetworks, NetworkKeeper
from director.networks.bridges import Bridges
from director.networks.filter import Names, PacketFilter
from director.networks.leased import LeasedNetworks
from director.store.engine import Store

home, installation = sys.argv[1:]
names = Names(installation)
networks = HostNetworks(
    Store(f"sqlite:///{home}/director.db"),
    "h",
    Bridges(docker.from_env(), installation, names),
    PacketFilter(names, Path(home)),
    names.bridge,
    LeasedNetworks(Path(home)),
)
NetworkKeeper(networks, names.group).start()
print("serves", flush=True)
threading.Event().wait()
"""


def worker(host: Host) -> subprocess.Popen[str]:
    """A process that keeps the host's networks as a worker does."""
    made = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(host.home), host.installation],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert made.stdout is not None
    while "serves" not in (line := made.stdout.readline()):
        assert line, "it ended"
    return made


@pytest.mark.alone  # five workers start one after the other beside who sends without end
def test_a_killed_worker_leaves_no_window_for_a_denied_packet(host: Host) -> None:
    row = host.network()
    sink = host.sandbox(
        row.id,
        "exec python3 -c \"import socket\ns=socket.socket(2,2)\ns.bind(('0.0.0.0',5353))\n"
        "while 1:\n d,_=s.recvfrom(99)\n open('/tmp/got','ab').write(d+b'\\n')\"",
    )
    sender = host.sandbox(
        row.id,
        'exec python3 -c "import socket,time\ns=socket.socket(2,2)\nn=0\nwhile 1:\n'
        " n+=1\n d=str(n).encode()\n open('/tmp/sent','ab').write(d+b'\\n')\n"
        f" try: s.sendto(d, ('{address(sink)}',5353))\n except OSError: pass\n"
        ' time.sleep(0.01)"',
    )

    def last(container: Any, file: str) -> int:
        """The number of the last packet; each is written before it is sent."""
        lines = container.exec_run(["cat", file]).output.splitlines(keepends=True)
        return max(int(each) for each in lines if each.endswith(b"\n"))

    until(lambda: sink.exec_run(["test", "-s", "/tmp/got"]).exit_code == 0, "it passes at first")
    rule = {"name": "p", "outbound": [{"action": "deny"}], "logging": True}
    policy = domain.PolicyCreate.model_validate(rule)
    host.change(lambda s: networks.put_policy(s, ADMIN, row.id, policy))
    count = last(sender, "/tmp/sent")
    for _ in range(3):
        running = worker(host)
        running.send_signal(signal.SIGKILL)
        running.wait()
        if running.stdout is not None:
            running.stdout.close()
    running = worker(host)
    try:
        until(lambda: last(sender, "/tmp/sent") > count + 100, "it goes on sending")
        assert last(sink, "/tmp/got") <= count
        until(lambda: told(host, row.id), "the next worker tells of what is refused")
    finally:
        running.kill()
        running.wait()
        if running.stdout is not None:
            running.stdout.close()
    (first, *_) = told(host, row.id)
    sandbox = sender.labels["director.sandbox"]
    assert (first["sandboxId"], first["port"], first["protocol"]) == (sandbox, 5353, "udp")


def told(host: Host, network_id: str) -> list[Any]:
    """The events of refused connections."""
    with host.store.read() as session:
        found = events.after(session, 0, 1000)
    return [
        each.data
        for each in found
        if each.type is EventType.NETWORK_BLOCKED and each.subject == network_id
    ]
