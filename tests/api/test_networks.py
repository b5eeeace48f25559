"""Networks through HTTP, enforced on a host that notes what it was given."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import httpx
import pytest
from support.networks import ScriptedHost
from support.stack import Data, Stack
from support.waiting import until_so

from director.activities.networks import tell_blocked
from director.domain.networks import AccessCreate, Direction, NetworkCreate, PolicyCreate
from director.networks.blocked import Attempt
from director.networks.rules import Ground

Refusal = Callable[[httpx.Response, int, str], Data]


def printed(body: Any) -> Data:
    """The document's example of a body."""
    return dict(body.model_config["json_schema_extra"]["examples"][0])


@pytest.fixture
async def host(stack: Stack) -> AsyncIterator[ScriptedHost]:
    """The host, without networks of other tests, and whole again after the test."""
    await _emptied(stack)
    yield stack.networks
    stack.networks.broken, stack.networks.taken = "", []
    stack.networks.inside.clear()
    await _emptied(stack)


async def _emptied(stack: Stack) -> None:
    for network in await stack.call("GET", "/networks?limit=100"):
        await stack.call("DELETE", f"/networks/{network['id']}?force=true")


async def made(stack: Stack, **fields: Any) -> Data:
    """Make a network."""
    body = {"name": f"n-{uuid.uuid4().hex[:8]}", **fields}
    return dict(await stack.call("POST", "/networks", body))


@pytest.mark.both
async def test_the_documents_requests_work_as_printed_one_after_the_other(
    stack: Stack, host: ScriptedHost
) -> None:
    host.hosts["api.example.com"] = ["203.0.113.7"]
    response = await stack.http.post("/networks", json=printed(NetworkCreate))
    assert response.status_code == 201, response.text
    network = response.json()["data"]
    path = f"/networks/{network['id']}"
    assert response.headers["location"] == f"/v1{path}"
    assert {key: network[key] for key in printed(NetworkCreate)} == printed(NetworkCreate)
    assert (network["status"], network["enforced"]) == ("active", True)

    policy = await stack.call("POST", f"{path}/policies", printed(PolicyCreate))
    assert policy["name"] == "restrictive-policy"
    assert (await stack.call("POST", f"{path}/isolate"))["status"] == "isolated"
    opened = await stack.call("POST", f"{path}/allow-access", printed(AccessCreate))
    assert [grant["host"] for grant in opened["grants"]] == ["api.example.com"]

    rules = host.applied[network["id"]]
    assert (rules.isolated, rules.internal) == (True, True)
    assert [each.id for each in rules.policies] == [policy["id"]]
    assert [each.addresses for each in rules.grants] == [(IPv4Address("203.0.113.7"),)]

    shown = await stack.call("GET", path)
    assert [each["id"] for each in shown["policies"]] == [policy["id"]]
    assert [each["id"] for each in await stack.call("GET", "/networks?limit=20")] == [network["id"]]
    assert await stack.call("DELETE", path) == {"id": network["id"], "deleted": True}
    assert network["id"] not in {*host.applied, *host.bridges}
    assert (await stack.http.delete(path)).status_code == 404


async def test_rules_are_in_force_before_the_bridge_is_there(
    stack: Stack, host: ScriptedHost
) -> None:
    network = await made(stack)
    order = [each for each in host.order if each.endswith(network["id"])]
    assert order.index(f"rules {network['id']}") < order.index(f"bridge {network['id']}")


async def test_a_subnet_is_picked_that_neither_a_network_nor_the_host_uses(
    stack: Stack, host: ScriptedHost
) -> None:
    host.taken = [IPv4Network("10.213.0.0/23")]
    one, two = await made(stack), await made(stack)
    assert [each["subnet"] for each in (one, two)] == ["10.213.2.0/24", "10.213.3.0/24"]
    assert one["gateway"] == "10.213.2.1"
    assert host.applied[one["id"]].subnet == IPv4Network("10.213.2.0/24")


@pytest.mark.both
async def test_a_subnet_that_somebody_else_was_quicker_to_take_is_left_to_them(
    stack: Stack, host: ScriptedHost
) -> None:
    host.rivals = 3
    network = await made(stack)
    assert (network["subnet"], network["enforced"]) == ("10.213.3.0/24", True)
    assert host.applied[network["id"]].subnet == IPv4Network("10.213.3.0/24")


@pytest.mark.both
async def test_a_used_name_and_an_overlap_are_conflicts(
    stack: Stack, host: ScriptedHost, refused: Refusal
) -> None:
    await made(stack, name="mine", subnet="172.31.0.0/24")
    again = await stack.http.post("/networks", json={"name": "mine"})
    assert "already" in refused(again, 409, "CONFLICT")["message"]
    wide = await stack.http.post("/networks", json={"name": "o", "subnet": "172.31.0.0/16"})
    assert refused(wide, 409, "CONFLICT")["subnet"] == "172.31.0.0/16"


async def test_a_subnet_that_the_host_uses_leaves_no_network(
    stack: Stack, host: ScriptedHost, refused: Refusal
) -> None:
    host.taken = [IPv4Network("192.168.0.0/16")]
    response = await stack.http.post("/networks", json={"name": "lan", "subnet": "192.168.7.0/24"})
    assert "used by the host" in refused(response, 409, "CONFLICT")["message"]
    assert await stack.call("GET", "/networks") == []


async def test_without_a_packet_filter_nothing_is_made_and_503_says_why(
    stack: Stack, host: ScriptedHost, refused: Refusal
) -> None:
    network = await made(stack)
    host.broken = "libnftables.so.1 is missing"
    response = await stack.http.post("/networks", json={"name": "unfiltered"})
    assert "libnftables" in refused(response, 503, "SERVICE_UNAVAILABLE")["message"]
    assert [each["id"] for each in await stack.call("GET", "/networks")] == [network["id"]]

    isolate = await stack.http.post(f"/networks/{network['id']}/isolate")
    refused(isolate, 503, "SERVICE_UNAVAILABLE")
    assert (await stack.call("GET", f"/networks/{network['id']}"))["enforced"] is False
    host.broken = ""

    async def enforced() -> bool:
        return bool((await stack.call("GET", f"/networks/{network['id']}"))["enforced"])

    await until_so(enforced, "it is enforced once that can be")
    assert host.applied[network["id"]].isolated


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"name": "n", "subnet": "8.8.8.0/24"}, "subnet"),
        ("", {"name": "n", "subnet": "10.0.0.0/15"}, "subnet"),
        ("", {"name": "n", "subnet": "10.0.0.0/24", "gateway": "10.0.1.1"}, "gateway"),
        ("", {"name": "n", "enableDns": True}, "enableDns"),
        ("/policies", {"name": "p", "outbound": [{"action": "no"}]}, "outbound.0.action"),
        ("/policies", {"name": "p", "inbound": [{"action": "deny", "port": 1}]}, "inbound.0.port"),
        ("/allow-access", {"destinations": []}, "destinations"),
        ("/allow-access", {"destinations": [{"host": "a b"}]}, "destinations.0.host"),
    ],
)
async def test_a_wrong_body_is_a_400_that_names_the_field(
    stack: Stack, host: ScriptedHost, refused: Refusal, path: str, body: Data, field: str
) -> None:
    where = f"/networks/{(await made(stack))['id']}{path}" if path else "/networks"
    details = refused(await stack.http.post(where, json=body), 400, "VALIDATION_ERROR")
    assert details["field"] == field


async def test_a_policy_of_the_same_name_is_replaced(stack: Stack, host: ScriptedHost) -> None:
    network = await made(stack)
    path = f"/networks/{network['id']}/policies"
    deny = {"name": "p", "outbound": [{"action": "deny"}]}
    first = await stack.http.post(path, json=deny)
    assert first.status_code == 201
    second = await stack.http.post(path, json={"name": "p", "logging": True})
    assert second.status_code == 200
    assert second.json()["data"]["id"] == first.json()["data"]["id"]
    (policy,) = host.applied[network["id"]].policies
    assert (policy.outbound, policy.logging) == ((), True)

    await stack.call("DELETE", f"{path}/{policy.id}")
    assert host.applied[network["id"]].policies == ()
    assert (await stack.http.delete(f"{path}/{policy.id}")).status_code == 404


async def test_private_and_metadata_addresses_need_an_admin(
    stack: Stack, host: ScriptedHost, operator: httpx.AsyncClient, refused: Refusal
) -> None:
    response = await operator.post("/networks", json={"name": "olgas"})
    network = response.json()["data"]
    path = f"/networks/{network['id']}"
    for address in ("10.0.0.5", "169.254.169.254", "127.0.0.1"):
        body = {"destinations": [{"host": address, "port": 80}]}
        asked = await operator.post(f"{path}/allow-access", json=body)
        assert refused(asked, 403, "AUTHORIZATION_ERROR")["addresses"] == [address]
    rule = {"name": "p", "outbound": [{"action": "allow", "destination": "10.0.0.0/8"}]}
    refused(await operator.post(f"{path}/policies", json=rule), 403, "AUTHORIZATION_ERROR")

    host.hosts["inside.example.com"] = ["10.0.0.5", "203.0.113.9"]
    body = {"destinations": [{"host": "inside.example.com", "port": 80}]}
    assert (await operator.post(f"{path}/allow-access", json=body)).status_code == 200
    assert not host.applied[network["id"]].grants[0].privileged

    body = {"destinations": [{"host": "169.254.169.254", "port": 80}]}
    await stack.call("POST", f"{path}/allow-access", body)
    assert [each.privileged for each in host.applied[network["id"]].grants] == [False, True]


async def test_access_that_is_given_twice_is_one_grant_which_can_be_taken_back(
    stack: Stack, host: ScriptedHost
) -> None:
    path = f"/networks/{(await made(stack))['id']}"
    body = {"destinations": [{"host": "8.8.8.8", "port": 443}]}
    await stack.call("POST", f"{path}/allow-access", body)
    (grant,) = (await stack.call("POST", f"{path}/allow-access", body))["grants"]
    await stack.call("DELETE", f"{path}/grants/{grant['id']}")
    assert (await stack.call("GET", path))["grants"] == []
    assert host.applied[path.rpartition("/")[2]].grants == ()


async def test_isolation_is_idempotent_and_can_be_ended(stack: Stack, host: ScriptedHost) -> None:
    path = f"/networks/{(await made(stack))['id']}"
    first = await stack.call("POST", f"{path}/isolate")
    assert await stack.call("POST", f"{path}/isolate") == first
    assert (await stack.call("DELETE", f"{path}/isolate"))["status"] == "active"
    assert not host.applied[first["id"]].isolated


@pytest.mark.both
async def test_a_network_with_sandboxes_is_deleted_by_force_only(
    stack: Stack, host: ScriptedHost, refused: Refusal
) -> None:
    network = await made(stack)
    host.inside[network["id"]] = {"sbx_1": "10.213.0.2"}
    response = await stack.http.delete(f"/networks/{network['id']}")
    assert refused(response, 409, "CONFLICT")["sandboxes"] == ["sbx_1"]
    await stack.call("DELETE", f"/networks/{network['id']}?force=true")
    assert network["id"] not in host.bridges


@pytest.mark.both
async def test_a_change_of_a_version_that_is_not_the_present_one_is_refused(
    stack: Stack, host: ScriptedHost, refused: Refusal
) -> None:
    path = f"/networks/{(await made(stack))['id']}"
    seen = {"If-Match": (await stack.http.get(path)).headers["etag"]}
    assert (await stack.http.post(f"{path}/isolate", headers=seen)).status_code == 200
    for method, route, body in (
        ("POST", f"{path}/policies", {"name": "p"}),
        ("DELETE", f"{path}/policies/pol_1", None),
        ("DELETE", f"{path}/isolate", None),
        ("POST", f"{path}/allow-access", {"destinations": [{"host": "203.0.113.1"}]}),
        ("DELETE", f"{path}/grants/grt_1", None),
        ("DELETE", path, None),
    ):
        late = await stack.http.request(method, route, json=body, headers=seen)
        refused(late, 412, "PRECONDITION_FAILED")
    shown = await stack.call("GET", path)
    assert (shown["status"], shown["policies"], shown["grants"]) == ("isolated", [], [])


async def test_a_network_is_its_owners_and_the_admins(
    stack: Stack, host: ScriptedHost, operator: httpx.AsyncClient, viewer: httpx.AsyncClient
) -> None:
    network = await made(stack)
    path = f"/networks/{network['id']}"
    for method, route in (
        ("GET", path),
        ("POST", f"{path}/isolate"),
        ("DELETE", f"{path}/isolate"),
        ("DELETE", path),
        ("DELETE", f"{path}/policies/pol_1"),
        ("DELETE", f"{path}/grants/grt_1"),
    ):
        assert (await operator.request(method, route)).status_code == 404, (method, route)
    assert (await operator.get("/networks")).json()["data"] == []
    assert (await viewer.post("/networks", json={"name": "v"})).status_code == 403
    same = await operator.post("/networks", json={"name": network["name"]})
    assert same.status_code == 201, "names are each owner's own"


@pytest.mark.both
async def test_a_retried_create_gives_the_network_that_was_made(
    stack: Stack, host: ScriptedHost
) -> None:
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    body = {"name": "once"}
    first = await stack.http.post("/networks", json=body, headers=headers)
    second = await stack.http.post("/networks", json=body, headers=headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.headers["idempotency-replayed"] == "true"
    assert second.json()["data"] == first.json()["data"]
    assert len(await stack.call("GET", "/networks")) == 1


async def test_what_happens_to_a_network_is_told(stack: Stack, host: ScriptedHost) -> None:
    parent = await stack.session()
    network = await made(stack, sessionId=parent["id"])
    path = f"/networks/{network['id']}"
    await stack.call("POST", f"{path}/policies", {"name": "p"})
    await stack.call("POST", f"{path}/isolate")
    attempt = Attempt(
        Ground(network["id"], "isolated", Direction.OUTBOUND), "10.213.0.2", "8.8.8.8", "tcp", 443
    )
    host.inside[network["id"]] = {"sbx_7": "10.213.0.2"}
    for _ in range(100):
        if (await stack.call("GET", path))["sandboxes"]:
            break
        await asyncio.sleep(0.1)
    await stack.store.run(lambda s: tell_blocked(s, attempt, 3))
    await stack.call("DELETE", f"{path}?force=true")

    of_session = f"sessionId={parent['id']}&limit=1000"
    log = f"/events?after=0&types=sandbox_event,security_alert&{of_session}"
    for _ in range(100):  # the log is shown as far as the API has read it
        frames = await stack.call("GET", log)
        mine = [each for each in frames if each["data"].get("networkId") == network["id"]]
        if mine[-1]["event"] == "network.deleted":
            break
        await asyncio.sleep(0.05)
    assert [each["event"] for each in mine] == [
        "network.created",
        "network.updated",
        "network.isolated",
        "network.blocked",
        "network.deleted",
    ]
    blocked = mine[3]
    assert blocked["type"] == "security_alert"
    told = {**blocked["data"], "alert": blocked["data"]["alert"]["rule"]}
    assert told == {
        "alert": "BLOCKED_CONNECTION",
        "networkId": network["id"],
        "sessionId": parent["id"],
        "sandboxId": "sbx_7",
        "policyId": None,
        "reason": "isolated",
        "direction": "outbound",
        "source": "10.213.0.2",
        "destination": "8.8.8.8",
        "protocol": "tcp",
        "port": 443,
        "attempts": 3,
    }
    (seen,) = await stack.call("GET", "/security/events?sandboxId=sbx_7")
    assert (seen["type"], seen["rule"], seen["count"]) == ("egress_blocked", "isolated", 3)
    assert (seen["severity"], seen["details"]["destination"]) == ("medium", "8.8.8.8")
    changes = await stack.call("GET", f"/security/events?type=policy_changed&{of_session}")
    mine = [each["message"] for each in changes if each["rule"] == network["id"]]
    assert mine[0].endswith(": isolated")
    assert "added" in mine[1]


async def test_a_network_of_a_session_is_listed_there_and_goes_with_it(
    stack: Stack, host: ScriptedHost, operator: httpx.AsyncClient, refused: Refusal
) -> None:
    parent, other = await stack.session(), await stack.session()
    network, free = await made(stack, sessionId=parent["id"]), await made(stack)
    assert (network["sessionId"], free["sessionId"]) == (parent["id"], None)
    for id, listed in ((parent["id"], [network["id"]]), (other["id"], []), ("ses_1", [])):
        shown = await stack.call("GET", f"/networks?sessionId={id}")
        assert [each["id"] for each in shown] == listed
    theirs = await operator.post("/networks", json={"name": "n", "sessionId": parent["id"]})
    refused(theirs, 404, "NOT_FOUND")

    inside = {"networkMode": network["id"], "sessionId": other["id"]}
    guest = await stack.call("POST", "/sandboxes", inside)
    there = f"/sessions/{parent['id']}"
    kept = refused(await stack.http.delete(there), 409, "CONFLICT")
    assert kept["sandboxIds"] == [guest["id"]]
    assert (await stack.call("GET", f"/networks/{network['id']}"))["status"] == "active"
    await stack.call("DELETE", f"{there}?force=true")
    assert (await stack.http.get(f"/networks/{network['id']}")).status_code == 404
    assert {*host.bridges} == {*host.applied} == {free["id"]}
    late = await stack.http.post("/networks", json={"name": "n", "sessionId": parent["id"]})
    refused(late, 404, "NOT_FOUND")
    await stack.call("DELETE", f"/sandboxes/{guest['id']}")
    await made(stack, sessionId=other["id"])
    await stack.call("DELETE", f"/sessions/{other['id']}")
    assert {*host.bridges} == {free["id"]}, "what nobody else is in keeps no session"


async def test_the_counters_of_rules_are_shown(stack: Stack, host: ScriptedHost) -> None:
    network = await made(stack)
    path = f"/networks/{network['id']}"
    body = {"name": "p", "outbound": [{"action": "deny"}], "metrics": True}
    policy = await stack.call("POST", f"{path}/policies", body)
    host.counted = {f"c_{policy['id']}_outbound_0": (7, 420)}
    for _ in range(100):
        (shown,) = (await stack.call("GET", path))["policies"]
        if shown["counters"]:
            break
        await asyncio.sleep(0.1)
    assert shown["counters"] == [
        {"direction": "outbound", "rule": 0, "packets": 7, "bytes": 420},
        {"direction": "outbound", "rule": 1, "packets": 0, "bytes": 0},
    ]
