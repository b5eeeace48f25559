"""The machines that the tests of packets play on, and their addresses."""

from dataclasses import dataclass

from networks.spaces import Space

from director.networks.filter import Names, PacketFilter
from director.networks.rules import Network

WORLD = "203.0.113.2"
HOST = "203.0.113.1"
LAN = "10.99.0.2"
METADATA = "169.254.169.254"
A, B = "net_0000000000000000000000000a", "net_0000000000000000000000000b"


@dataclass
class Lab:
    """`one` and `two` are sandboxes in network A, `other` is one in network B."""

    host: Space
    world: Space
    one: Space
    two: Space
    other: Space
    names: Names
    filter: PacketFilter
    a: Network
    b: Network

    def apply(self, *networks: Network) -> None:
        """Enforce these networks, and no others, on the host."""
        self.host.run(lambda: self.filter.apply(networks or (self.a, self.b)))
