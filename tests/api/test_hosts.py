"""Operators see what each host holds, and drain it."""

from collections.abc import Callable

import httpx
import pytest
from support.stack import Data, Stack

Refusal = Callable[[httpx.Response, int, str], Data]


async def host_of(stack: Stack) -> Data:
    (found,) = await stack.call("GET", "/hosts")
    return dict(found)


async def test_a_host_shows_what_open_runs_hold_of_it(stack: Stack) -> None:
    before = await host_of(stack)
    workflow = await stack.workflow(
        "wait shown", config={"sandbox": {"resourceLimits": {"memory": 256}}}
    )
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    run = await stack.until(workflow["id"], "running")
    while not run["resolvedImage"]:
        run = await stack.until(workflow["id"], "running")
    during = await host_of(stack)
    stack.gates.open("shown")
    await stack.ended(workflow["id"])
    after = await host_of(stack)

    assert set(before) == {
        "id",
        "places",
        "used",
        "memoryMib",
        "usedMemoryMib",
        "draining",
        "leaseUntil",
        "living",
    }
    assert (before["id"], before["places"], before["living"]) == ("scripted", 64, True)
    assert during["used"] == before["used"] + 1
    assert during["usedMemoryMib"] == before["usedMemoryMib"] + 256
    assert (after["used"], after["usedMemoryMib"]) == (before["used"], before["usedMemoryMib"])


async def test_a_draining_host_ends_what_it_has_and_takes_what_is_new_afterwards(
    stack: Stack,
) -> None:
    going = await stack.workflow("wait drained", "say after")
    await stack.start(going["id"])
    run = await stack.until(going["id"], "running")
    while not run["resolvedImage"]:
        run = await stack.until(going["id"], "running")

    drained = await stack.call("PUT", "/hosts/scripted", {"draining": True})
    waiting = await stack.workflow("say new")
    await stack.start(waiting["id"])
    stack.gates.open("drained")
    ended = await stack.ended(going["id"])
    held = await stack.call("GET", f"/workflows/{waiting['id']}/status?wait=1")
    back = await stack.call("PUT", "/hosts/scripted", {"draining": False})
    taken = await stack.ended(waiting["id"])

    assert (drained["draining"], back["draining"]) == (True, False)
    assert ended["status"] == "completed"
    assert held["completedAt"] is None
    assert taken["status"] == "completed"


@pytest.mark.parametrize("body", [{}, {"draining": None}, {"draining": "yes"}, {"drain": True}])
async def test_a_wrong_change_is_refused(stack: Stack, refused: Refusal, body: Data) -> None:
    response = await stack.http.put("/hosts/scripted", json=body)
    refused(response, 400, "VALIDATION_ERROR")


async def test_an_unknown_host_is_a_404(stack: Stack, refused: Refusal) -> None:
    response = await stack.http.put("/hosts/nobody", json={"draining": True})
    assert refused(response, 404, "NOT_FOUND")["resource"] == "host"


async def test_hosts_are_for_admins(
    operator: httpx.AsyncClient, viewer: httpx.AsyncClient, refused: Refusal
) -> None:
    for http in (operator, viewer):
        refused(await http.get("/hosts"), 403, "AUTHORIZATION_ERROR")
        response = await http.put("/hosts/scripted", json={"draining": True})
        refused(response, 403, "AUTHORIZATION_ERROR")
        refused(await http.delete("/hosts/scripted"), 403, "AUTHORIZATION_ERROR")
