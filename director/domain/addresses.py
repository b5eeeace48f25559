"""Which addresses Director connects to for somebody: the ones of the public internet, and those
that a setting allows. Names are looked up by the caller, who connects to what was judged here."""

from collections.abc import Iterable, Iterator
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Range = IPv4Network | IPv6Network

PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
"""The ranges of RFC 1918."""

_METADATA = "a metadata service"
_SPECIAL = {
    ip_network(text): what
    for text, what in (
        ("169.254.169.254/32", _METADATA),
        ("100.100.100.200/32", _METADATA),
        ("168.63.129.16/32", _METADATA),
        ("fd00:ec2::254/128", _METADATA),
        ("0.0.0.0/8", "this very host"),
        *((text, "private") for text in PRIVATE),
        ("100.64.0.0/10", "shared by a provider"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("192.0.0.0/24", "kept for protocols"),
        ("192.88.99.0/24", "a relay of 6to4"),
        ("198.18.0.0/15", "kept for benchmarks"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "this very host"),
        ("::1/128", "loopback"),
        ("64:ff9b::/96", "NAT64"),
        ("64:ff9b:1::/48", "NAT64"),
        ("2001::/32", "Teredo"),
        ("2001::/23", "kept for protocols"),
        ("2001:db8::/32", "kept for documents"),
        ("2002::/16", "6to4"),
        ("3fff::/20", "kept for documents"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
}
"""By range, why it is none of the public internet; the first that an address is in tells it."""

_UNICAST = IPv6Network("2000::/3")


def special_ipv4() -> Iterator[IPv4Network]:
    """The ranges of IPv4 that are none of the public internet, without those inside of others."""
    ranges = [each for each in _SPECIAL if isinstance(each, IPv4Network)]
    for each in ranges:
        if not any(each != other and each.subnet_of(other) for other in ranges):
            yield each


def refusal(address: Address, allowed: Iterable[Range] = ()) -> str | None:
    """Why an address is not connected to; None where it is. An IPv4 address that is written as an
    IPv6 one is judged as what it is."""
    at = plain(address)
    if any(at in each for each in allowed):
        return None
    for network, what in _SPECIAL.items():
        if at in network:
            return f"{address} is {what}"
    if isinstance(at, IPv6Address) and at not in _UNICAST:
        return f"{address} is no address of the public internet"
    return None


def plain(address: Address) -> Address:
    """The address without a zone, and as IPv4 where it only maps one."""
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def literal(host: str) -> Address | None:
    """The address that a host is written as; None where it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
