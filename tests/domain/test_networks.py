"""Bodies of networks, and which addresses are free."""

from ipaddress import IPv4Network
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from director.domain.errors import ConflictError
from director.domain.networks import (
    AccessCreate,
    NetworkCreate,
    PolicyCreate,
    PolicyRule,
    allocate,
    is_protected,
    needing_admin,
)


@pytest.mark.parametrize("body", [NetworkCreate, PolicyCreate, AccessCreate])
def test_the_documents_examples_are_accepted_as_printed(body: type[BaseModel]) -> None:
    extra: Any = body.model_config["json_schema_extra"]
    printed = extra["examples"][0]
    read = body.model_validate(printed).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert read == printed


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"subnet": "8.8.8.0/24"}, "public"),
        ({"subnet": "169.254.0.0/16"}, "special"),
        ({"subnet": "127.0.0.0/16"}, "special"),
        ({"subnet": "10.0.0.0/8"}, "wider than /16"),
        ({"subnet": "172.16.0.0/15"}, "wider than /16"),
        ({"subnet": "10.0.0.0/30"}, "narrower"),
        ({"subnet": "10.0.0.1/24"}, "host bits"),
        ({"subnet": "10.0.0.0/33"}, "no subnet"),
        ({"subnet": "here"}, "no subnet"),
        ({"subnet": "fd00::/64"}, "IPv4 only"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}, "outside"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.0.0"}, "first or the last"),
        ({"subnet": "10.0.0.0/24", "gateway": "10.0.0.255"}, "first or the last"),
        ({"subnet": "10.0.0.0/24", "gateway": "fd00::1"}, "no IPv4 address"),
        ({"gateway": "10.0.0.1"}, "send the subnet"),
        ({"enableDNS": "yes"}, "boolean"),
        ({"internal": 1}, "boolean"),
        ({"name": ""}, "at least 1"),
        ({"dns": True}, "not permitted"),
    ],
)
def test_a_wrong_network_says_what_is_wrong(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        NetworkCreate.model_validate({"name": "n", **fields})


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"action": "log"}, "'allow' or 'deny'"),
        ({"action": "allow", "protocol": "sctp"}, "'all', 'tcp', 'udp' or 'icmp'"),
        ({"action": "allow", "port": 443}, "has no ports"),
        ({"action": "allow", "protocol": "icmp", "ports": "1-2"}, "has no ports"),
        ({"action": "allow", "protocol": "tcp", "port": 0}, "greater than"),
        ({"action": "allow", "protocol": "tcp", "port": "443"}, "integer"),
        ({"action": "allow", "protocol": "tcp", "ports": "90-80"}, "lower one first"),
        ({"action": "allow", "protocol": "tcp", "ports": "0-80"}, "from 1 to 65535"),
        ({"action": "allow", "protocol": "tcp", "ports": "80,90"}, "no port and no range"),
        ({"action": "allow", "protocol": "tcp", "port": 80, "ports": "80-90"}, "exclude"),
        ({"action": "allow", "source": "nowhere"}, "no address"),
        ({"action": "allow", "destination": "::/0"}, "IPv4 only"),
        ({"action": "allow", "destinations": "10.0.0.0/8"}, "not permitted"),
    ],
)
def test_a_wrong_rule_says_what_is_wrong(rule: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PolicyCreate.model_validate({"name": "p", "outbound": [rule]})


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ({"host": "api..example.com"}, "no host name"),
        ({"host": "-a.example.com"}, "no host name"),
        ({"host": "https://api.example.com"}, "no host name"),
        ({"host": "1.2.3"}, "no host name"),
        ({"host": "10.0.0.0/8"}, "no host name"),
        ({"host": "2001:db8::1"}, "IPv4 only"),
        ({"host": ""}, "at least 1"),
        ({"host": "a" * 64 + ".example.com"}, "no host name"),
        ({"host": "example.com", "port": 65536}, "less than"),
        ({"host": "example.com", "port": 443, "protocol": "all"}, "has no ports"),
    ],
)
def test_a_wrong_destination_says_what_is_wrong(destination: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AccessCreate.model_validate({"destinations": [destination]})


def test_nothing_to_open_is_an_error() -> None:
    with pytest.raises(ValidationError, match="at least 1"):
        AccessCreate.model_validate({"destinations": []})


def test_names_are_read_as_names_and_addresses_as_addresses() -> None:
    body = {"destinations": [{"host": "API.Example.com."}, {"host": "1.2.3.4"}]}
    name, address = AccessCreate.model_validate(body).destinations
    assert (name.host, name.address) == ("api.example.com", None)
    assert str(address.address) == "1.2.3.4"


@pytest.mark.parametrize(
    ("address", "protected"),
    [
        ("10.1.2.3/32", True),
        ("169.254.169.254/32", True),
        ("168.63.129.16/32", True),
        ("100.100.100.200/32", True),
        ("127.0.0.1/32", True),
        ("192.168.0.0/16", True),
        ("0.0.0.0/0", False),
        ("8.8.8.8/32", False),
        ("172.32.0.1/32", False),
    ],
)
def test_private_and_metadata_addresses_are_known(address: str, protected: bool) -> None:
    assert is_protected(IPv4Network(address)) is protected


def test_only_what_opens_a_protected_range_outside_of_the_subnet_needs_an_admin() -> None:
    rules = [
        PolicyRule.model_validate({"action": action, "destination": destination})
        for action, destination in (
            ("allow", "192.168.1.0/24"),
            ("deny", "192.168.2.0/24"),
            ("allow", "10.0.0.7"),
            ("allow", "10.0.1.7"),
            ("allow", "0.0.0.0/0"),
            ("allow", "8.8.8.8"),
        )
    ]
    rules.append(PolicyRule.model_validate({"action": "allow"}))
    assert needing_admin(rules, IPv4Network("10.0.0.0/24")) == ["192.168.1.0/24", "10.0.1.7/32"]


def test_the_first_free_subnet_is_taken() -> None:
    pool = IPv4Network("10.9.0.0/22")
    taken = [IPv4Network("10.9.0.0/24"), IPv4Network("10.9.2.128/25")]
    assert allocate(taken, pool) == IPv4Network("10.9.1.0/24")
    assert allocate([*taken, IPv4Network("10.9.1.0/24")], pool) == IPv4Network("10.9.3.0/24")


def test_a_full_pool_is_a_conflict() -> None:
    pool = IPv4Network("10.9.0.0/24")
    with pytest.raises(ConflictError, match=r"no subnet of 10\.9\.0\.0/24 is free"):
        allocate([IPv4Network("10.0.0.0/8")], pool)
