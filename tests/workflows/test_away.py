"""Sandboxes that people make, while their host is away, and once it is given up."""

import asyncio
from collections.abc import Callable

import httpx
from support.stack import Data, Stack
from support.waiting import until_so
from workflows.test_hosts import Machine, bare, going, machine

from director.store import losses
from director.store.tables import HostRow

__all__ = ["bare", "machine"]

Hosts = Callable[..., Machine]
REQUESTS = [
    ("POST", "/execute", {"command": "say hi", "timeout": 600_000}),
    ("POST", "/stop", None),
    ("POST", "/pause", None),
    ("GET", "/metrics", None),
    ("GET", "/files?path=a", None),
    ("PUT", "/files?path=a", None),
    ("POST", "/snapshot", None),
]


async def made(stack: Stack, **fields: object) -> str:
    body = {"resourceLimits": {"memory": 64}, **fields}
    return str((await stack.call("POST", "/sandboxes", body))["id"])


async def shown(stack: Stack, id: str) -> Data:
    return dict(await stack.call("GET", f"/sandboxes/{id}"))


async def executed(stack: Stack, id: str, command: str) -> httpx.Response:
    body = {"command": command, "timeout": 600_000}
    return await stack.http.post(f"/sandboxes/{id}/execute", json=body)


def kept(host: Machine, id: str) -> bool:
    """Whether a host has a sandbox."""
    return id in {each.id for each in host.runtime.sandboxes()}


async def test_a_host_that_is_away_is_told_and_nothing_waits_for_it(
    bare: Stack, machine: Hosts
) -> None:
    one = machine("one")
    await one.start()
    id = await made(bare)
    assert (await shown(bare, id))["host"] == {"id": one.id, "reachable": True, "since": None}
    waiting = asyncio.create_task(executed(bare, id, "wait away; say once"))
    await until_so(lambda: one.runtime.executions(id), "the command runs")

    await one.stop()
    late = await waiting
    assert (late.status_code, late.json()["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
    sandbox = await shown(bare, id)
    assert (sandbox["status"], sandbox["host"]["reachable"]) == ("running", False)
    assert sandbox["host"]["since"]
    for method, path, body in REQUESTS:
        answer = await bare.http.request(method, f"/sandboxes/{id}{path}", json=body)
        assert answer.status_code == 503, f"{method} {path}: {answer.text}"
        assert answer.json()["error"]["details"]["hostId"] == one.id
    (listed,) = await bare.call("GET", f"/sandboxes/{id}/executions")
    assert listed["status"] == "running", "what was refused is not written"

    await one.start()
    bare.gates.open("away")
    where = f"/sandboxes/{id}/executions/{listed['executionId']}?wait=30"
    ended = await bare.call("GET", where)
    assert (ended["status"], ended["stdout"]) == ("completed", "once\n")
    assert len(one.runtime.ran) == 1
    assert (await shown(bare, id))["host"]["reachable"] is True
    await bare.call("DELETE", f"/sandboxes/{id}")


async def test_a_delete_is_kept_for_a_host_that_is_away_and_force_does_not_wait(
    bare: Stack, machine: Hosts
) -> None:
    one = machine("one")
    await one.start()
    ids = [await made(bare), await made(bare)]
    await one.stop()

    for id in ids:
        assert (await bare.call("DELETE", f"/sandboxes/{id}"))["deleted"] is True
    assert (await bare.call("DELETE", f"/sandboxes/{ids[0]}?force=true"))["deleted"] is True
    again = await bare.http.delete(f"/sandboxes/{ids[0]}?force=true")
    assert again.status_code == 404
    (host,) = [each for each in await bare.call("GET", "/hosts") if each["id"] == one.id]
    assert host["used"] == 1, "the one that waits for its end"
    assert all(kept(one, id) for id in ids)

    await one.start()
    for id in ids:
        result = await bare.temporal.get_workflow_handle(id).result()
        assert result["status"] == "deleted"
        await until_so(lambda id=id: not kept(one, id), "nothing is left")


async def test_a_life_ends_on_time_although_its_host_is_away_and_the_host_clears_up(
    bare: Stack, machine: Hosts
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    id = await made(bare, resourceLimits={"memory": 64, "maxDuration": 2000})
    await two.start()
    await one.stop()

    async def expired() -> bool:
        return (await shown(bare, id))["status"] == "expired"

    await until_so(expired, "it has expired")
    assert kept(one, id)
    await one.start()
    await until_so(lambda: not kept(one, id), "the host has removed what it has lost")


async def test_a_host_that_is_given_up_fails_what_it_had_and_comes_back_with_nothing(
    bare: Stack, machine: Hosts
) -> None:
    one, two = machine("one"), machine("two")
    await one.start()
    id = await made(bare, command="wait given-up")
    run = await going(bare, "given-up")
    joined = await bare.workflow("wait given-up", config={"sandboxId": id})
    await bare.start(joined["id"])
    await until_so(lambda: len(one.runtime.ran) == 3, "all run")
    lives = await bare.http.delete(f"/hosts/{one.id}")
    assert (lives.status_code, lives.json()["error"]["code"]) == (409, "CONFLICT")

    await one.stop()
    given_up = await bare.call("DELETE", f"/hosts/{one.id}")
    assert given_up == {
        "id": one.id,
        "deleted": True,
        "sandboxes": [id],
        "runs": [run["runId"]],
    }
    sandbox = await shown(bare, id)
    assert (sandbox["status"], sandbox["error"]["code"], sandbox["host"]) == (
        "failed",
        "HOST_LOST",
        None,
    )
    (lost,) = await bare.call("GET", f"/sandboxes/{id}/executions")
    assert (lost["status"], lost["cause"], lost["error"]["code"]) == ("failed", "lost", "HOST_LOST")
    events = await bare.call("GET", "/events?after=0&limit=1000&types=sandbox.failed")
    assert [each["data"]["sandboxId"] for each in events] == [id]
    assert one.id not in {each["id"] for each in await bare.call("GET", "/hosts")}
    assert (await bare.http.delete(f"/hosts/{one.id}")).status_code == 404

    await two.start()
    bare.gates.open("given-up")
    result = await bare.temporal.get_workflow_handle(id).result()
    assert result["status"] == "failed"
    ended = await bare.ended(run["workflowId"])
    assert (ended["status"], ended["sandboxLosses"]) == ("completed", 1)
    failed = await bare.ended(joined["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "SANDBOX_FAILED")

    assert kept(one, id)
    await one.start()
    await until_so(lambda: not one.runtime.sandboxes(), "it has nothing of that")


async def test_a_host_that_was_given_up_while_it_slept_removes_what_it_lost(
    bare: Stack, machine: Hosts
) -> None:
    one = machine("one")
    await one.start()
    id = await made(bare)
    with bare.store.write() as session:
        row = session.get_one(HostRow, one.id)
        row.lease_until = row.created_at
        session.add(row)
        session.flush()
        assert losses.forget(session, one.id).sandboxes == [id]

    await until_so(lambda: not kept(one, id), "it is removed")
    assert await until_so(lambda: one.row, "it has registered again")
