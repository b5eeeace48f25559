"""Sandboxes on networks, through HTTP, on a host that notes what it was given."""

import uuid
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from support.networks import ScriptedHost
from support.stack import Data, Stack
from support.waiting import until_so

from director.domain.networks import Action
from director.domain.times import utc_now
from director.store.tables import HostRow, NetworkRow

Refusal = Callable[[httpx.Response, int, str], Data]


@pytest.fixture
async def host(stack: Stack) -> AsyncIterator[ScriptedHost]:
    """The host, without sandboxes and networks of other tests, and whole again after the test."""
    await _emptied(stack)
    yield stack.networks
    stack.networks.broken = ""
    await _emptied(stack)


async def _emptied(stack: Stack) -> None:
    for kind in ("sandboxes", "networks"):
        for each in await stack.call("GET", f"/{kind}?limit=100"):
            await stack.call("DELETE", f"/{kind}/{each['id']}?force=true")


async def network(stack: Stack, **fields: Any) -> Data:
    body = {"name": f"n-{uuid.uuid4().hex[:8]}", **fields}
    return dict(await stack.call("POST", "/networks", body))


async def sandbox(stack: Stack, mode: str, **fields: Any) -> Data:
    body = {"resourceLimits": {"memory": 64}, "networkMode": mode, **fields}
    return dict(await stack.call("POST", "/sandboxes?wait=30", body))


async def test_a_sandbox_starts_on_the_network_that_it_names_under_its_rules(
    stack: Stack, host: ScriptedHost, refused: Refusal
) -> None:
    joined = await network(stack)
    host.order.clear()
    made = await sandbox(stack, joined["id"])
    assert made["status"] == "running", made["error"]
    assert (made["networkMode"], made["networkId"]) == (joined["id"], joined["id"])
    on = stack.runtime.spec(made["id"]).network
    assert on is not None
    assert on.name == host.engine_name(joined["id"])
    assert f"rules {joined['id']}" in host.order, "they were asserted for this very sandbox"

    kept = await stack.http.delete(f"/networks/{joined['id']}")
    assert refused(kept, 409, "CONFLICT")["sandboxes"] == [made["id"]]
    await stack.call("DELETE", f"/networks/{joined['id']}?force=true")
    assert joined["id"] not in host.bridges
    shown = await stack.call("GET", f"/sandboxes/{made['id']}")
    assert shown["status"] == "running", "it goes on without"


async def test_only_a_network_of_the_sandboxs_owner_can_be_named(
    stack: Stack, host: ScriptedHost, refused: Refusal, operator: httpx.AsyncClient
) -> None:
    mine = await network(stack)
    theirs = (await operator.post("/networks", json={"name": "theirs"})).json()["data"]
    for client, mode in ((stack.http, "net_01h455vb4pex5vsknk084sn02q"), (operator, mine["id"])):
        refused(await client.post("/sandboxes", json={"networkMode": mode}), 404, "NOT_FOUND")
    by_admin = await stack.http.post("/sandboxes", json={"networkMode": theirs["id"]})
    assert refused(by_admin, 409, "CONFLICT")["networkId"] == theirs["id"]


async def test_a_way_out_is_a_network_of_the_owners_that_goes_with_its_last_sandbox(
    stack: Stack, host: ScriptedHost, operator: httpx.AsyncClient
) -> None:
    one, two = await sandbox(stack, "bridge"), await sandbox(stack, "bridge")
    assert one["networkId"] == two["networkId"] is not None
    body = {"networkMode": "bridge", "resourceLimits": {"memory": 64}}
    theirs = (await operator.post("/sandboxes?wait=30", json=body)).json()["data"]
    assert theirs["networkId"] not in (None, one["networkId"])

    shown = await stack.call("GET", f"/networks/{one['networkId']}")
    assert (shown["name"], shown["onDemand"]) == ("bridge-scripted", True)
    rules = host.applied[one["networkId"]]
    assert [[each.action for each in policy.inbound] for policy in rules.policies] == [
        [Action.DENY]
    ]
    assert not any(policy.outbound for policy in rules.policies)

    await stack.call("DELETE", f"/sandboxes/{one['id']}")
    assert one["networkId"] in host.bridges
    await stack.call("DELETE", f"/sandboxes/{two['id']}")

    async def gone() -> bool:
        return one["networkId"] not in {*host.bridges, *host.applied}

    await until_so(gone, "nothing of it is left")
    assert (await stack.http.get(f"/networks/{one['networkId']}")).status_code == 404
    assert theirs["networkId"] in host.bridges
    await operator.delete(f"/sandboxes/{theirs['id']}")


@pytest.mark.parametrize("mode", ["bridge", "named"])
async def test_a_sandbox_whose_network_cannot_be_filtered_is_not_made_and_says_why(
    stack: Stack, host: ScriptedHost, mode: str
) -> None:
    mode = (await network(stack))["id"] if mode == "named" else mode
    host.broken = "libnftables.so.1 is missing"
    made = await sandbox(stack, mode)
    assert made["status"] == "failed"
    assert "libnftables" in made["error"]["message"]
    assert made["id"] not in {each.id for each in stack.runtime.sandboxes()}


async def test_a_step_in_a_sandbox_that_runs_waits_only_for_rules_that_are_not_in_force(
    stack: Stack, host: ScriptedHost
) -> None:
    there = await network(stack)
    made = await sandbox(stack, there["id"])
    config = {"sandboxId": made["id"]}
    host.broken = "the kernel is busy"
    assert (await stack.run("say a", config=config))["status"] == "completed"

    path = f"/networks/{there['id']}/policies"
    deny = {"name": "p", "outbound": [{"action": "deny"}]}
    assert (await stack.http.post(path, json=deny)).status_code == 503
    workflow = await stack.workflow("say rules first", config=config)
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    assert "say rules first" not in {command.argv[-1] for _, command in stack.runtime.ran}
    host.broken = ""
    assert (await stack.ended(workflow["id"]))["status"] == "completed"
    assert host.applied[there["id"]].policies != ()


async def test_a_sandbox_whose_networks_host_is_gone_fails_and_says_so(
    stack: Stack, host: ScriptedHost
) -> None:
    there = await network(stack)
    with stack.store.write() as session:
        row = session.get_one(NetworkRow, there["id"])
        lease = utc_now() - timedelta(minutes=2)
        session.add(HostRow(id="gone", places=1, memory_mib=1024, lease_until=lease))
        row.host_id = "gone"
        session.add(row)
    made = await sandbox(stack, there["id"])
    assert made["status"] == "failed"
    assert "host gone" in made["error"]["message"]
    with stack.store.write() as session:
        row = session.get_one(NetworkRow, there["id"])
        row.host_id = "scripted"
        session.add(row)
        session.delete(session.get_one(HostRow, "gone"))


async def test_names_that_are_open_are_known_in_the_sandboxes_of_the_network(
    stack: Stack, host: ScriptedHost
) -> None:
    host.hosts["api.example.com"] = ["203.0.113.7"]
    joined = await network(stack, enableDNS=False)
    path = f"/networks/{joined['id']}"
    made = await sandbox(stack, joined["id"])
    body = {"destinations": [{"host": "api.example.com", "port": 443}]}
    opened = await stack.call("POST", f"{path}/allow-access", body)
    assert host.known[made["id"]] == {"api.example.com": ["203.0.113.7"]}
    later = await sandbox(stack, joined["id"])
    on = stack.runtime.spec(later["id"]).network
    assert on is not None
    assert (on.names, on.resolvers) == (host.known[made["id"]], [])
    await stack.call("DELETE", f"{path}/grants/{opened['grants'][0]['id']}")
    assert host.known[made["id"]] == {}
