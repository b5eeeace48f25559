"""The public internet may be connected to; nothing of the inside, in whatever notation."""

from ipaddress import IPv4Network, ip_address, ip_network

import pytest

from director.domain.addresses import literal, refusal, special_ipv4

PUBLIC = [
    "1.1.1.1",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700::1111",
    "2001:200::1",
    "2a00::1",
    "::ffff:1.1.1.1",
]

REFUSED = {
    "0.0.0.0": "this very host",
    "0.255.255.255": "this very host",
    "10.0.0.0": "private",
    "10.255.255.255": "private",
    "100.64.0.0": "shared",
    "100.127.255.255": "shared",
    "100.100.100.200": "metadata",
    "127.0.0.1": "loopback",
    "127.255.255.254": "loopback",
    "168.63.129.16": "metadata",
    "169.254.0.1": "link-local",
    "169.254.169.254": "metadata",
    "172.16.0.0": "private",
    "172.31.255.255": "private",
    "192.0.0.0": "protocols",
    "192.0.0.192": "protocols",
    "192.88.99.1": "6to4",
    "192.168.255.255": "private",
    "198.18.0.0": "benchmarks",
    "198.19.255.255": "benchmarks",
    "224.0.0.1": "multicast",
    "239.255.255.255": "multicast",
    "240.0.0.0": "reserved",
    "255.255.255.255": "broadcast",
    "::": "this very host",
    "::1": "loopback",
    "::127.0.0.1": "no address of the public internet",
    "::ffff:0:127.0.0.1": "no address of the public internet",
    "::ffff:127.0.0.1": "loopback",
    "::ffff:10.0.0.1": "private",
    "::ffff:169.254.169.254": "metadata",
    "64:ff9b::a00:1": "NAT64",
    "64:ff9b::101:101": "NAT64",
    "64:ff9b:1::1": "NAT64",
    "100::1": "no address of the public internet",
    "2001::1": "Teredo",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2": "Teredo",
    "2001:2::1": "protocols",
    "2001:20::1": "protocols",
    "2001:db8::1": "documents",
    "2002:a00:1::1": "6to4",
    "2002:7f00:1::": "6to4",
    "3fff::1": "documents",
    "fc00::1": "private",
    "fd00:ec2::254": "metadata",
    "fdff:ffff::1": "private",
    "fe80::1": "link-local",
    "fe80::1%eth0": "link-local",
    "febf::1": "link-local",
    "fec0::1": "private",
    "ff02::1": "multicast",
}


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_connected_to(address: str) -> None:
    assert refusal(ip_address(address)) is None


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused_with_the_reason(address: str) -> None:
    told = refusal(at := ip_address(address)) or "is connected to"
    assert told.startswith(f"{at} is ")
    assert REFUSED[address] in told


@pytest.mark.parametrize(
    ("address", "cidr", "allowed"),
    [
        ("10.1.2.3", "10.1.0.0/16", True),
        ("10.2.2.3", "10.1.0.0/16", False),
        ("::ffff:10.1.2.3", "10.1.0.0/16", True),
        ("10.1.2.3", "::ffff:0:0/96", False),
        ("169.254.169.254", "10.0.0.0/8", False),
        ("fd12::1", "fd12::/64", True),
        ("64:ff9b::a00:1", "10.0.0.0/8", False),
        ("64:ff9b::a00:1", "64:ff9b::/96", True),
        ("1.1.1.1", "10.0.0.0/8", True),
    ],
)
def test_a_setting_allows_a_range_and_nothing_beside_it(
    address: str, cidr: str, allowed: bool
) -> None:
    assert (refusal(ip_address(address), [ip_network(cidr)]) is None) is allowed


@pytest.mark.parametrize(
    ("host", "there"),
    [
        ("10.0.0.1", True),
        ("fd00::1", True),
        ("git.example.com", False),
        ("127.1", False),
        ("2130706433", False),
        ("0x7f.0.0.1", False),
        ("", False),
    ],
)
def test_only_the_usual_notation_is_an_address(host: str, there: bool) -> None:
    assert (literal(host) is not None) is there


def test_no_range_lies_in_another_as_the_packet_filter_wants_it() -> None:
    ranges = list(special_ipv4())
    assert IPv4Network("10.0.0.0/8") in ranges
    assert not any(
        one.overlaps(other) for at, one in enumerate(ranges) for other in ranges[at + 1 :]
    )
