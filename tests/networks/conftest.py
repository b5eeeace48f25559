"""A host with two networks of sandboxes, made of network namespaces: no engine is needed."""

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from networks.lab import HOST, LAN, METADATA, WORLD, A, B, Lab
from networks.spaces import Space, ip, may

from director.networks.filter import Names, PacketFilter
from director.networks.rules import Network


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if not may():
        pytest.skip("needs root, which may make network namespaces")
    home: Path = tmp_path_factory.mktemp("lab")
    names = Names(str(home))
    spaces: list[Space] = []

    def space(name: str) -> Space:
        spaces.append(Space(name))
        return spaces[-1]

    try:
        host, world = space("h"), space("w")
        one, two, other = space("1"), space("2"), space("3")
        for path in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            host.write(f"/proc/sys/net/{path}", "1")
        _wire_world(host, world)
        bridges = {A: names.bridge(A), B: names.bridge(B)}
        for number, bridge in enumerate(bridges.values()):
            _bridge(host, bridge, f"172.30.{number}.1/24", f"fd00:{number}::1/64")
        _plug(host, bridges[A], one, "172.30.0.2/24", "fd00:0::2/64")
        _plug(host, bridges[A], two, "172.30.0.3/24", "fd00:0::3/64")
        _plug(host, bridges[B], other, "172.30.1.2/24", "fd00:1::2/64")
        post = "{ type nat hook postrouting priority 100 ; }"
        host.nft("add table ip nat", f"add chain ip nat post {post}")
        host.nft("add rule ip nat post oifname wan masquerade")
        networks = {
            id: Network(id, bridges[id], IPv4Network(f"172.30.{number}.0/24"))
            for number, id in enumerate(bridges)
        }
        yield Lab(
            host, world, one, two, other, names, PacketFilter(names, home), networks[A], networks[B]
        )
    finally:
        for made in reversed(spaces):
            made.close()


@pytest.fixture(autouse=True)
def _bare(request: pytest.FixtureRequest) -> None:
    """Let each test begin without our table."""
    if "lab" in request.fixturenames:
        lab = request.getfixturevalue("lab")
        lab.host.run(lab.filter.clear)


def _wire_world(host: Space, world: Space) -> None:
    _veth(host, "wan", world)
    for address in (f"{HOST}/24", "10.99.0.1/24", "169.254.169.1/24", "2001:db8::1/64"):
        host.ip("addr", "add", address, "dev", "wan", *_at_once(address))
    for address in (f"{WORLD}/24", f"{LAN}/24", f"{METADATA}/24", "2001:db8::2/64"):
        world.ip("addr", "add", address, "dev", "eth0", *_at_once(address))
    host.ip("link", "set", "wan", "up")
    world.ip("link", "set", "eth0", "up")
    world.ip("route", "add", "172.30.0.0/16", "via", HOST)
    world.ip("route", "add", "fd00::/16", "via", "2001:db8::1")


def _bridge(host: Space, bridge: str, *gateways: str) -> None:
    host.ip("link", "add", bridge, "type", "bridge")
    for gateway in gateways:
        host.ip("addr", "add", gateway, "dev", bridge, *_at_once(gateway))
    host.ip("link", "set", bridge, "up")


def _plug(host: Space, bridge: str, sandbox: Space, *addresses: str) -> None:
    port = f"p{sandbox.name[-7:]}"
    _veth(host, port, sandbox)
    host.ip("link", "set", port, "master", bridge, "up")
    sandbox.ip("link", "set", "eth0", "up")
    for address in addresses:
        sandbox.ip("addr", "add", address, "dev", "eth0", *_at_once(address))
        gateway = address.split("/")[0][:-1] + "1"
        sandbox.ip("route", "add", "default", "via", gateway)


def _veth(host: Space, port: str, other: Space) -> None:
    """A cable from a port of the host to `eth0` of another machine."""
    ends = ("peer", "name", "eth0", "netns", other.name)
    ip("link", "add", port, "netns", host.name, "type", "veth", *ends)


def _at_once(address: str) -> Sequence[str]:
    return ("nodad",) if ":" in address else ()
