"""The sandbox of a run: under the whole of a policy, somebody's that lives already, or kept."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from support.stack import Data, Stack

from director.activities import settling
from director.activities.telling import Signals
from director.domain.sandboxes import SandboxSpec

Refusal = Callable[[httpx.Response, int, str], Data]


@pytest.fixture
async def sandbox(stack: Stack) -> AsyncIterator[Data]:
    """A living sandbox."""
    made = await stack.call(
        "POST",
        "/sandboxes?wait=30",
        {"environment": {"A": "sandbox", "B": "sandbox"}, "resourceLimits": {"memory": 64}},
    )
    yield made
    await stack.http.delete(f"/sandboxes/{made['id']}")


@contextmanager
def specs_of(stack: Stack) -> Iterator[list[SandboxSpec]]:
    """What the runtime is asked to make meanwhile."""
    made: list[SandboxSpec] = []
    create = stack.runtime.create

    def noted(spec: SandboxSpec, **more: Any) -> Any:
        made.append(spec)
        return create(spec, **more)

    stack.runtime.create = noted  # type: ignore[method-assign]
    try:
        yield made
    finally:
        stack.runtime.create = create  # type: ignore[method-assign]


async def becomes(stack: Stack, sandbox_id: str, status: str) -> Data:
    """Wait until a sandbox has a status."""
    for _ in range(600):
        found = await stack.call("GET", f"/sandboxes/{sandbox_id}")
        if found["status"] == status:
            return dict(found)
        await asyncio.sleep(0.05)
    raise AssertionError(f"the sandbox is {found['status']}, not {status}")


async def execute(stack: Stack, sandbox_id: str, command: str) -> Data:
    return dict(await stack.call("POST", f"/sandboxes/{sandbox_id}/execute", {"command": command}))


def on_host(stack: Stack) -> set[str]:
    return {one.id for one in stack.runtime.sandboxes()}


async def test_the_sandbox_of_a_run_is_under_the_whole_of_its_policy(stack: Stack) -> None:
    limits = {"cpu": 0.5, "memory": 128, "disk": 256, "network": False, "maxDuration": 60_000}
    policy = {
        "allowedPaths": ["/app"],
        "blockedPaths": ["/etc"],
        "readOnlyRoot": True,
        "allowFilesystem": True,
        "maxProcesses": 7,
        "maxOpenFiles": 99,
    }
    wanted = {"resourceLimits": limits, "securityPolicy": policy, "networkMode": "isolated"}
    with specs_of(stack) as made:
        run = await stack.run("say x", "say y", config={"sandbox": wanted})

    spec = made[0]
    assert (spec.cpus, spec.memory_mib, spec.disk_mib) == (0.5, 128, 256)
    assert (spec.read_only_root, spec.allow_filesystem) == (True, True)
    assert (spec.allowed_paths, spec.blocked_paths) == (["/app"], ["/etc"])
    assert (spec.max_processes, spec.max_open_files) == (7, 99)
    shown = run["effectivePolicy"]
    assert shown["resourceLimits"] == limits
    assert (shown["securityPolicy"]["readOnlyRoot"], shown["networkMode"]) == (True, "none")
    assert shown["held"]["maxDuration"]["how"] == "enforced"
    assert len({*map(repr, made)}) == 1, "each step asks for the same"


async def test_a_run_ends_when_the_max_duration_of_its_sandbox_is_over(stack: Stack) -> None:
    limits = {"resourceLimits": {"maxDuration": 1200}}

    run = await stack.run("wait never-max-duration", config={"sandbox": limits})

    assert (run["status"], run["error"]["code"]) == ("timed_out", "TIMEOUT")
    assert "maxDuration" in run["error"]["message"]


async def test_a_run_works_in_a_living_sandbox_and_leaves_it_as_it_is(
    stack: Stack, sandbox: Data
) -> None:
    id = sandbox["id"]
    await execute(stack, id, "write before.txt there")
    used = (await stack.call("GET", "/hosts"))[0]["used"]

    workflow = await stack.workflow(
        "wait lent; write made.txt by-the-run",
        {"type": "verify", "criteria": "file exists before.txt and file exists given.txt"},
        config={"sandboxId": id},
        environment={"B": "workflow"},
        workspace={"files": {"given.txt": "given"}},
    )
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    holds = (await stack.call("GET", "/hosts"))[0]["used"]
    stack.gates.open("lent")
    run = await stack.ended(workflow["id"])

    assert (run["status"], run["sandboxId"]) == ("completed", id), run["error"]
    assert run["resolvedImage"] == sandbox["resolvedImage"]
    assert run["effectivePolicy"]["resourceLimits"]["memory"] == 64
    assert holds <= used, "it takes no place of its own"
    place, command = next(one for one in stack.runtime.ran if "by-the-run" in str(one[1].argv))
    assert place == id
    assert (command.environment["A"], command.environment["B"]) == ("sandbox", "workflow")
    assert (await becomes(stack, id, "running"))["endedAt"] is None
    assert (await stack.http.get(f"/sandboxes/{id}/files?path=made.txt")).text == "by-the-run"
    again = await stack.call("POST", f"/workflows/{workflow['id']}/start?wait=30")
    assert again["status"] == "completed"


async def test_a_cancel_ends_what_the_run_began_in_a_sandbox_and_nothing_else(
    stack: Stack, sandbox: Data
) -> None:
    id = sandbox["id"]
    body = {"command": "wait never-mine", "async": True}
    mine = await stack.call("POST", f"/sandboxes/{id}/execute", body)
    workflow = await stack.workflow("wait never-run", config={"sandboxId": id})
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    while not any("never-run" in str(command.argv) for _, command in stack.runtime.ran):
        await asyncio.sleep(0.02)

    await stack.call("POST", f"/workflows/{workflow['id']}/cancel")
    run = await stack.ended(workflow["id"])

    assert run["status"] == "cancelled"
    assert id in on_host(stack)
    going = [one for one in stack.runtime.executions(id) if one.wait(0) is None]
    assert len(going) == 1, "only the other's goes on"
    shown = await stack.call("GET", f"/sandboxes/{id}/executions/{mine['executionId']}")
    assert shown["status"] == "running"


@pytest.mark.parametrize("how", ["stop", "delete"])
async def test_a_run_fails_clearly_where_its_sandbox_ends_under_it(
    stack: Stack, sandbox: Data, how: str
) -> None:
    id = sandbox["id"]
    workflow = await stack.workflow("wait never-ends", "say x", config={"sandboxId": id})
    await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    while not any("never-ends" in str(c.argv) for where, c in stack.runtime.ran if where == id):
        await asyncio.sleep(0.02)

    if how == "stop":
        await stack.call("POST", f"/sandboxes/{id}/stop")
    else:
        await stack.call("DELETE", f"/sandboxes/{id}")
    run = await stack.ended(workflow["id"])

    assert (run["status"], run["error"]["code"]) == ("failed", "SANDBOX_FAILED")
    assert id in run["error"]["message"]
    assert ("stop" if how == "stop" else "deleted") in run["error"]["message"]


async def test_a_sandbox_that_no_run_can_work_in_is_refused(
    stack: Stack, operator: httpx.AsyncClient, sandbox: Data, refused: Refusal
) -> None:
    id, path = sandbox["id"], f"/sandboxes/{sandbox['id']}"
    session = await stack.session()
    steps = [{"type": "execute", "command": "say x"}]
    body = {"sessionId": session["id"], "name": "w", "steps": steps}
    for config, field in (
        ({"sandboxId": "sbx_nobodys"}, "config.sandboxId"),
        ({"sandboxId": id, "sandbox": {"image": "x"}}, "config.sandbox"),
        ({"sandboxId": id, "keepSandbox": True}, "config.keepSandbox"),
    ):
        response = await stack.http.post("/workflows", json={**body, "config": config})
        assert refused(response, 400, "VALIDATION_ERROR")["field"] == field
    closed = await stack.call("POST", "/sandboxes", {"securityPolicy": {"allowExec": False}})
    response = await stack.http.post(
        "/workflows", json={**body, "config": {"sandboxId": closed["id"]}}
    )
    assert "allows commands" in refused(response, 400, "VALIDATION_ERROR")["issue"]
    await stack.call("DELETE", f"/sandboxes/{closed['id']}")

    theirs = await operator.post("/sessions", json={"type": "director", "name": "theirs"})
    hers = {**body, "sessionId": theirs.json()["data"]["id"], "config": {"sandboxId": id}}
    issue = refused(await operator.post("/workflows", json=hers), 400, "VALIDATION_ERROR")["issue"]
    assert issue == "names no sandbox of yours"

    workflow = await stack.workflow("say x", session_id=session["id"], config={"sandboxId": id})
    start = f"/workflows/{workflow['id']}/start"
    for verb, status in (("pause", "paused"), ("stop", "stopped")):
        assert (await stack.call("POST", f"{path}/{verb}"))["status"] == status
        details = refused(await stack.http.post(start), 409, "CONFLICT")
        assert (details["sandboxId"], details["status"]) == (id, status)
    await stack.call("DELETE", path)
    details = refused(await stack.http.post(start), 409, "CONFLICT")
    assert details["field"] == "config.sandboxId"


async def test_a_sandbox_in_which_a_run_works_is_not_paused_under_it(
    stack: Stack, sandbox: Data, refused: Refusal
) -> None:
    id = sandbox["id"]
    workflow = await stack.workflow("wait pausing", config={"sandboxId": id})
    run = await stack.start(workflow["id"])
    pause = f"/sandboxes/{id}/pause"
    details = refused(await stack.http.post(pause), 409, "CONFLICT")
    assert details["runId"] == run["runId"]
    stack.gates.open("pausing")
    await stack.ended(workflow["id"])
    assert (await stack.call("POST", pause))["status"] == "paused"


async def test_a_sandbox_larger_than_a_department_allows_is_refused_its_steps(
    stack: Stack, sandbox: Data, refused: Refusal
) -> None:
    session = await stack.session()
    config = {"resourceLimits": {"memory": 32}}
    body = {"sessionId": session["id"], "name": "small", "domain": "small", "config": config}
    department = await stack.call("POST", "/departments", body)
    workflow = await stack.workflow(
        "say x",
        session_id=session["id"],
        departmentId=department["id"],
        config={"sandboxId": sandbox["id"]},
    )
    response = await stack.http.post(f"/workflows/{workflow['id']}/start")
    assert refused(response, 409, "CONFLICT")["limit"] == "memory"


async def test_a_kept_sandbox_goes_on_as_one_like_any_other(stack: Stack) -> None:
    limits = {"resourceLimits": {"memory": 64, "maxDuration": 600_000}}
    body = {"name": "for what is kept", "level": "low"}
    profile = (await stack.call("POST", "/security/profiles", body))["id"]
    config = {"keepSandbox": True, "sandbox": limits, "securityProfileId": profile}
    run = await stack.run("write out.txt done", config=config, name="Keeps")
    id = run["sandboxId"]
    assert run["status"] == "completed"
    kept = await becomes(stack, id, "running")
    assert (kept["name"], kept["resolvedImage"]) == ("Keeps", run["resolvedImage"])
    assert kept["resourceLimits"]["memory"] == 64
    assert kept["securityProfileId"] == profile
    in_use = await stack.http.delete(f"/security/profiles/{profile}")
    assert in_use.status_code == 409, "a living sandbox is under it"
    assert kept["expiresAt"] > kept["startedAt"]
    assert (await stack.http.get(f"/sandboxes/{id}/files?path=out.txt")).text == "done"
    assert (await execute(stack, id, "say again"))["stdout"] == "again\n"
    follows = await stack.run(
        {"type": "execute", "command": "say x"},
        {"type": "verify", "criteria": "file exists out.txt"},
        config={"sandboxId": id},
    )
    assert follows["status"] == "completed"
    await stack.call("DELETE", f"/sandboxes/{id}")
    assert id not in on_host(stack)
    assert (await stack.temporal.get_workflow_handle(id).result())["status"] == "deleted"


async def test_a_kept_sandbox_expires_when_its_time_is_over(stack: Stack) -> None:
    limits = {"resourceLimits": {"maxDuration": 1500}}
    run = await stack.run("say x", config={"keepSandbox": True, "sandbox": limits})
    await becomes(stack, run["sandboxId"], "expired")
    assert run["sandboxId"] not in on_host(stack)


async def test_a_cancelled_run_keeps_its_files_and_nothing_that_runs(stack: Stack) -> None:
    workflow = await stack.workflow(
        "write out.txt done", "wait never-kept", config={"keepSandbox": True}
    )
    await stack.start(workflow["id"])
    while not any("never-kept" in str(command.argv) for _, command in stack.runtime.ran):
        await asyncio.sleep(0.02)
    await stack.call("POST", f"/workflows/{workflow['id']}/cancel")
    run = await stack.ended(workflow["id"])
    id = run["sandboxId"]
    assert run["status"] == "cancelled"
    await becomes(stack, id, "running")
    assert not [one for one in stack.runtime.executions(id) if one.wait(0) is None]
    assert (await stack.http.get(f"/sandboxes/{id}/files?path=out.txt")).text == "done"
    await stack.call("DELETE", f"/sandboxes/{id}")


async def test_nothing_is_kept_of_a_sandbox_that_never_was(stack: Stack) -> None:
    stack.runtime._missing = ["never:was"]
    config = {"keepSandbox": True, "sandbox": {"image": "never:was"}}
    run = await stack.run("say x", config=config)
    assert (run["status"], run["sandboxId"]) == ("failed", None)
    assert run["runId"].removeprefix("run") not in str(on_host(stack))


async def test_a_hand_over_that_is_cut_off_before_or_behind_its_commit_loses_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, tries = settling.settling.settle, 0

    def cut_off(*args: Any, **options: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("the worker was killed before the commit")
        return settle(*args, **options)

    monkeypatch.setattr(settling.settling, "settle", cut_off)
    monkeypatch.setattr(Signals, "begin", lambda self, sandbox: None)

    run = await stack.run("write out.txt done", config={"keepSandbox": True})

    assert (run["status"], tries > 1) == ("completed", True)
    id = run["sandboxId"]
    await becomes(stack, id, "running")  # reconcile has begun it
    assert (await stack.http.get(f"/sandboxes/{id}/files?path=out.txt")).text == "done"
    await stack.call("DELETE", f"/sandboxes/{id}")
    assert id not in on_host(stack)


async def test_the_kept_sandbox_of_a_deleted_session_is_not_kept(stack: Stack) -> None:
    workflow = await stack.workflow("wait never-deleted", config={"keepSandbox": True})
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    while not any("never-deleted" in str(command.argv) for _, command in stack.runtime.ran):
        await asyncio.sleep(0.02)
    assert on_host(stack)
    await stack.call("DELETE", f"/sessions/{workflow['sessionId']}?force=true")
    name = run["runId"].removeprefix("run")
    for _ in range(600):
        if name not in str(on_host(stack)):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("its sandbox is still there")


async def test_a_run_is_under_the_profiles_of_its_workflow_and_its_session(stack: Stack) -> None:
    low = {"name": "of the workflow", "level": "low", "constraints": {"maxProcesses": 9}}
    few = {"name": "of the session", "level": "low", "constraints": {"maxOpenFiles": 77}}
    mine, session_s = [await stack.call("POST", "/security/profiles", body) for body in (low, few)]
    session = await stack.session(securityProfileId=session_s["id"])
    with specs_of(stack) as made:
        run = await stack.run(
            "say x", session_id=session["id"], config={"securityProfileId": mine["id"]}
        )
    assert run["status"] == "completed"
    assert (made[0].max_processes, made[0].max_open_files) == (9, 77)
    shown = run["effectivePolicy"]["securityPolicy"]
    assert (shown["maxProcesses"], shown["maxOpenFiles"]) == (9, 77)


async def test_a_profile_that_forbids_commands_or_is_gone_lets_no_run_go_on_without_it(
    stack: Stack, refused: Refusal
) -> None:
    body = {"name": "no commands", "level": "high", "constraints": {"allowExec": False}}
    profile = await stack.call("POST", "/security/profiles", body)
    config = {"securityProfileId": profile["id"]}
    run = await stack.run("say x", config=config)
    assert run["status"] == "failed"
    assert "allowExec" in run["error"]["message"]

    await stack.call("DELETE", f"/security/profiles/{profile['id']}")
    details = refused(
        await stack.http.post(f"/workflows/{run['workflowId']}/start"), 409, "CONFLICT"
    )
    assert details["field"] == "config.securityProfileId"
