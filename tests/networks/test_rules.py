"""The script for the packet filter, as text; what it does is tried in test_packets."""

import re
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network

import pytest

from director.domain.networks import Action, Direction, PolicyRule, Protocol
from director.networks.filter import Names
from director.networks.rules import Existing, Grant, Ground, Network, Policy, script

SUBNET = IPv4Network("172.30.0.0/24")


def network(**fields: object) -> Network:
    given = {"id": "net_a", "bridge": "dn00000a", "subnet": SUBNET, **fields}
    return Network(**given)  # type: ignore[arg-type]


def text(*networks: Network, existing: Existing | None = None) -> str:
    return script("director_t", "dn", 1234, networks, existing or Existing())


def rules(chain: str, *networks: Network) -> list[str]:
    """The rules of a chain."""
    head = f"add rule inet director_t {chain} "
    return [
        line.removeprefix(head) for line in text(*networks).splitlines() if line.startswith(head)
    ]


def rule(**fields: object) -> PolicyRule:
    return PolicyRule.model_validate({"action": "allow", **fields})


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (rule(), "return"),
        (rule(protocol="tcp"), "meta l4proto tcp return"),
        (rule(protocol="icmp"), "meta l4proto icmp return"),
        (rule(protocol="tcp", port=443), "meta l4proto tcp ct original proto-dst 443 return"),
        (
            rule(protocol="udp", ports="80-90"),
            "meta l4proto udp ct original proto-dst 80-90 return",
        ),
        (rule(protocol="udp", ports="80-80"), "meta l4proto udp ct original proto-dst 80 return"),
        (rule(source="10.0.0.7"), "ct original ip saddr 10.0.0.7/32 return"),
        (rule(destination="8.8.0.1/16"), "ct original ip daddr 8.8.0.0/16 return"),
        (rule(action="deny"), "goto no_net_a_pol_a_outbound"),
        (
            rule(action="deny", protocol="tcp", port=22, source="10.0.0.7", destination="8.8.8.8"),
            "ct original ip saddr 10.0.0.7/32 ct original ip daddr 8.8.8.8/32"
            " meta l4proto tcp ct original proto-dst 22 goto no_net_a_pol_a_outbound",
        ),
    ],
)
def test_a_rule_becomes_a_match_and_a_verdict(given: PolicyRule, wanted: str) -> None:
    made = network(policies=(Policy("pol_a", outbound=(given,)),))
    assert rules("pol_a_outbound", made) == [wanted, "goto no_net_a_pol_a_outbound"]


def test_a_direction_without_rules_is_left_open_by_the_policy() -> None:
    made = network(policies=(Policy("pol_a", inbound=(rule(),)),))
    assert rules("all_net_a_outbound", made) == []
    assert rules("all_net_a_inbound", made) == ["jump pol_a_inbound"]


def test_all_policies_are_asked_one_after_the_other() -> None:
    both = tuple(Policy(id, outbound=(rule(),)) for id in ("pol_a", "pol_b"))
    wanted = ["jump pol_a_outbound", "jump pol_b_outbound"]
    assert rules("all_net_a_outbound", network(policies=both)) == wanted


def test_only_a_policy_that_logs_tells_of_what_it_refuses() -> None:
    for logging in (True, False):
        made = network(policies=(Policy("pol_a", outbound=(rule(),), logging=logging),))
        told = [each for each in rules("no_net_a_pol_a_outbound", made) if " log " in each]
        assert len(told) == logging
        assert all("limit rate" in each and "group 1234" in each for each in told)


def test_each_rule_is_counted_where_that_is_wanted() -> None:
    deny = PolicyRule(action=Action.DENY)
    made = network(policies=(Policy("pol_a", outbound=(rule(), deny), metrics=True),))
    found = rules("pol_a_outbound", made)
    assert [f"counter name c_pol_a_outbound_{n}" in each for n, each in enumerate(found)] == [
        True
    ] * 3


@pytest.mark.parametrize("fields", [{}, {"internal": True}, {"isolated": True}])
def test_ipv6_and_forged_sources_are_refused_before_anything_else(fields: dict[str, bool]) -> None:
    grant = Grant("grt_a", (IPv4Address("1.2.3.4"),), privileged=True)
    made = network(grants=(grant,), **fields)
    for chain in ("out_net_a", "host_net_a"):
        first, second, third, *_ = rules(chain, made)
        assert first == "meta nfproto != ipv4 goto no_net_a_ipv6_outbound"
        assert second == "ct original ip saddr != 172.30.0.0/24 goto no_net_a_forged_outbound"
        assert third == "ct original ip daddr @g_grt_a meta l4proto tcp return"
    assert rules("in_net_a", made)[0] == "meta nfproto != ipv4 goto no_net_a_ipv6_inbound"


def test_the_host_is_open_to_grants_of_admins_only() -> None:
    grant = Grant("grt_a", (IPv4Address("1.2.3.4"),))
    assert not any("g_grt_a" in each for each in rules("host_net_a", network(grants=(grant,))))


def test_names_that_resolve_to_protected_addresses_open_nothing_unless_an_admin_said_so() -> None:
    addresses = tuple(map(IPv4Address, ("1.2.3.4", "10.0.0.1", "169.254.169.254")))
    for privileged, wanted in ((False, "1.2.3.4 timeout 60s"), (True, "1.2.3.4 timeout 60s, 10.0")):
        grant = Grant("grt_a", addresses, privileged=privileged, lifetime=timedelta(minutes=1))
        (line,) = [
            each for each in text(network(grants=(grant,))).splitlines() if "element" in each
        ]
        assert f"g_grt_a {{ {wanted}" in line
        assert ("169.254.169.254" in line) is privileged


def test_a_grant_of_a_name_without_addresses_is_an_empty_set() -> None:
    made = text(network(grants=(Grant("grt_a", (), Protocol.ALL),)))
    assert "add set inet director_t g_grt_a" in made
    assert "add element" not in made


def test_what_is_no_longer_wanted_is_deleted_and_what_is_stays() -> None:
    policy = Policy("pol_a", outbound=(rule(),), metrics=True)
    there = Existing(
        chains=frozenset({"forward", "out_net_a", "out_net_old"}),
        sets=frozenset({"g_grt_old"}),
        counters=frozenset({"c_pol_a_outbound_0", "c_pol_old_outbound_0"}),
    )
    lines = text(network(policies=(policy,)), existing=there).splitlines()
    assert [line for line in lines if line.startswith("delete")] == [
        "delete chain inet director_t out_net_old",
        "delete set inet director_t g_grt_old",
        "delete counter inet director_t c_pol_old_outbound_0",
    ]


@pytest.mark.parametrize("id", ["net a", "net_a;", 'net_"', "Net", "a" * 121, "net\n"])
def test_a_name_that_is_not_of_our_making_gets_into_no_script(id: str) -> None:
    with pytest.raises(ValueError, match="no name for the packet filter"):
        text(network(id=id))


def test_ids_of_full_length_make_names_and_prefixes_that_the_kernel_takes() -> None:
    ids = {prefix: f"{prefix}_" + 26 * "z" for prefix in ("net", "pol", "grt")}
    policy = Policy(ids["pol"], outbound=(rule(),), inbound=(rule(),), logging=True, metrics=True)
    grant = Grant(ids["grt"], (IPv4Address("1.2.3.4"),))
    made = text(network(id=ids["net"], policies=(policy,), grants=(grant,)))
    prefixes = re.findall('log prefix "([^"]*)"', made)
    assert str(Ground(ids["net"], ids["pol"], Direction.OUTBOUND)) in prefixes
    assert max(map(len, prefixes)) < 128


def test_ranges_that_overlap_are_opened_once() -> None:
    named = tuple(rule(destination=each) for each in ("10.0.0.0/16", "10.0.5.0/24", "10.0.0.0/16"))
    made = network(policies=(Policy("pol_a", outbound=named, privileged=True),))
    (line,) = [each for each in rules("out_net_a", made) if "protected" in each]
    assert "!= { 10.0.0.0/16 }" in line


def test_a_ground_is_read_as_it_was_written() -> None:
    ground = Ground("net_a", "pol_a", Direction.OUTBOUND)
    assert Ground.read(str(ground)) == ground
    assert Ground.read("somebody else's ") is None
    assert Ground.read("a|b|sideways") is None


def test_bridges_of_two_installations_never_have_the_same_beginning() -> None:
    one, two = Names("one"), Names("two")
    id = "net_01j9zqk3v8x4r2m6n0p5t7w1ya"
    assert len(one.bridge(id)) == 15
    assert one.bridge(id).startswith(one.prefix)
    assert not one.bridge(id).startswith(two.prefix)
    assert (one.table, one.group) != (two.table, two.group)
