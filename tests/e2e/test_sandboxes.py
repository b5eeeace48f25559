"""Sandboxes that people make, on a real engine, while parts of Director are killed."""

import asyncio
import base64
import hashlib
import io
import json
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.installation import Data, Installation, execute
from support.waiting import until

from director.temporal.client import connect

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

CREATE = """{
  "name": "Code Execution Sandbox",
  "image": "node:22-alpine",
  "command": ["node", "app.js"],
  "environment": {"NODE_ENV": "production", "API_KEY": "secure_key"},
  "resourceLimits": {
    "cpu": 2.0, "memory": 1024, "disk": 2048, "network": false, "maxDuration": 300000
  },
  "securityPolicy": {
    "allowFilesystem": true, "allowNetwork": false, "allowExec": true,
    "allowedPaths": ["/app"], "blockedPaths": ["/etc", "/root"],
    "readOnlyRoot": true, "noPrivileges": true
  },
  "networkMode": "isolated"
}"""
EXECUTE = """{
  "command": ["node", "-e", "console.log('Hello World')"],
  "timeout": 30000,
  "environment": {"TASK_ID": "task_123"}
}"""
SMALL: Data = {"resourceLimits": {"memory": 64}}


def made(director: Installation, **fields: Any) -> str:
    """Make a sandbox that runs; gives its id."""
    sandbox = director.user.call("POST", "/sandboxes?wait=30", {**SMALL, **fields})
    assert sandbox["status"] == "running", sandbox["error"]
    return str(sandbox["id"])


def left_of(director: Installation, id: str) -> list[str]:
    """What is left of a sandbox on this machine."""
    folder = Path(director.home, "sandboxes", id)
    found = [name for name in director.containers() if id in name]
    return found + ([str(folder)] if folder.exists() else [])


def test_the_document_s_requests_do_what_they_say(director: Installation) -> None:
    director.user.token()
    http, json_type = director.user.http, {"Content-Type": "application/json"}
    response = http.post("/sandboxes?wait=30", content=CREATE, headers=json_type)
    assert response.status_code == 201, response.text
    sandbox = response.json()["data"]
    path = f"/sandboxes/{sandbox['id']}"
    assert (sandbox["status"], sandbox["image"]) == ("running", "node:22-alpine")
    assert "@sha256:" in sandbox["resolvedImage"]
    response = http.post(f"{path}/execute", content=EXECUTE, headers=json_type)
    assert response.status_code == 200, response.text
    ran = response.json()["data"]
    assert (ran["exitCode"], ran["stdout"], ran["stderr"]) == (0, "Hello World\n", "")
    shown = until(
        lambda: (
            found
            if (found := director.user.call("GET", path))["mainProcess"]["exitCode"] is not None
            else None
        ),
        "the command has ended",
    )
    assert shown["mainProcess"]["exitCode"] == 1, "there is no app.js"
    assert shown["status"] == "running"
    metrics = director.user.call("GET", f"{path}/metrics")
    assert metrics["memory"]["limitMb"] == 1024
    assert metrics["memory"]["usedMb"] > 0
    assert metrics["pids"] >= 1
    assert metrics["uptimeMs"] > 0
    listed = director.user.call("GET", "/sandboxes?status=running&limit=20")
    assert sandbox["id"] in {one["id"] for one in listed}
    assert director.user.call("POST", f"{path}/stop")["status"] == "stopped"
    assert director.user.call("DELETE", path)["deleted"] is True
    assert left_of(director, sandbox["id"]) == []


def test_files_stay_between_commands_and_variables_do_not(director: Installation) -> None:
    director.user.token()
    id = made(director, environment={"A": "sandbox", "B": "sandbox"})
    execute(director, id, "echo $A $B > said", environment={"A": "command"})
    assert execute(director, id, ["cat", "said"])["stdout"] == "command sandbox\n"
    there = execute(director, id, "pwd", workdir="/tmp")
    assert there["stdout"] == "/tmp\n"
    late = execute(director, id, "sleep 60 & echo begun; sleep 60", timeout=500)
    assert (late["timedOut"], late["stdout"]) == (True, "begun\n")
    assert execute(director, id, "ps | grep -c '[s]leep 60'")["stdout"] == "0\n"
    director.user.call("DELETE", f"/sandboxes/{id}")


def test_what_is_held_stands_still_and_then_goes_on(director: Installation) -> None:
    director.user.token()
    id = made(director, command="n=0; while :; do n=$((n+1)); echo $n > count; sleep 0.05; done")
    path = f"/sandboxes/{id}"

    def count() -> int:
        return int(Path(director.home, "sandboxes", id, "workspace", "count").read_text() or 0)

    until(lambda: Path(director.home, "sandboxes", id, "workspace", "count").exists(), "it counts")
    assert director.user.call("POST", f"{path}/pause")["status"] == "paused"
    held = count()
    time.sleep(0.5)
    assert count() == held
    assert director.user.call("POST", f"{path}/resume")["status"] == "running"
    until(lambda: count() > held, "it counts again")
    director.user.call("DELETE", path)
    assert left_of(director, id) == []


@pytest.mark.alone
@pytest.mark.parametrize("part", ["worker", "api", "temporal"])
def test_a_command_runs_once_whatever_is_killed_meanwhile(
    director: Installation, part: str
) -> None:
    director.user.token()
    id = made(director)
    script = "echo begun >> lines; echo out; sleep 3; echo ended >> lines; echo done; exit 7"
    body = {"command": script, "timeout": 60000}
    answers: list[Any] = []

    def ask() -> None:
        try:
            answers.append(director.user.call("POST", f"/sandboxes/{id}/execute", body))
        except httpx.HTTPError as error:
            answers.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    lines = Path(director.home, "sandboxes", id, "workspace", "lines")
    until(lines.exists, "the command has begun")
    director.end(part, signal.SIGKILL)
    director.heal()
    asking.join(60)
    director.user.token()
    (ran,) = director.user.call("GET", f"/sandboxes/{id}/executions")
    where = f"/sandboxes/{id}/executions/{ran['executionId']}?wait=30"
    ended = director.user.call("GET", where)
    assert (ended["exitCode"], ended["stdout"], ended["status"]) == (7, "out\ndone\n", "completed")
    assert lines.read_text() == "begun\nended\n"
    if part != "api":
        assert answers == [ended], "who asked has the answer"
    assert execute(director, id, "cat lines")["stdout"] == "begun\nended\n"
    director.user.call("DELETE", f"/sandboxes/{id}")
    assert left_of(director, id) == []


def test_a_command_whose_activity_is_terminated_in_temporal_is_killed(
    director: Installation,
) -> None:
    director.user.token()
    id = made(director)
    counting = "n=0; while :; do n=$((n+1)); echo $n | tee -a count; sleep 0.05; done"
    body = {"command": counting, "timeout": 600_000, "async": True}
    going = director.user.call("POST", f"/sandboxes/{id}/execute", body)
    count = Path(director.home, "sandboxes", id, "workspace", "count")
    until(count.exists, "it counts")
    asyncio.run(terminated(director, going["executionId"]))
    where = f"/sandboxes/{id}/executions/{going['executionId']}?wait=30"
    ended = director.user.call("GET", where)
    assert (ended["status"], ended["cause"]) == ("cancelled", "killed")
    assert ended["error"]["code"] == "TERMINATED"
    counted = count.read_text()
    assert execute(director, id, "sleep 0.3; cat count")["stdout"] == counted, "nobody counts"
    said = ended["stdout"].splitlines()
    assert said == [str(n) for n in range(1, len(said) + 1)]
    assert abs(len(said) - len(counted.splitlines())) <= 1, "the last one may be in one alone"
    director.user.call("DELETE", f"/sandboxes/{id}")


async def terminated(director: Installation, activity: str) -> None:
    """Press the button of the Temporal UI."""
    address = f"127.0.0.1:{director.stack.ports.temporal}"
    client = await connect(address, director.stack.namespace, lazy=False)
    await client.get_activity_handle(activity).terminate(reason="pressed in the UI")


@pytest.mark.alone
def test_a_life_that_ends_while_everything_is_down_is_ended(
    installation: Callable[[], AbstractContextManager[Installation]],
) -> None:
    with installation() as director:
        director.keep = True
        limits = {"memory": 64, "maxDuration": 4000}
        id = made(director, command="sleep 600", resourceLimits=limits)
        assert left_of(director, id)
    time.sleep(4)
    with installation() as director:
        until(
            lambda: director.user.call("GET", f"/sandboxes/{id}")["status"] == "expired",
            "the sandbox has expired",
        )
        assert left_of(director, id) == []


@pytest.mark.alone
def test_twenty_made_and_deleted_at_once_leave_nothing(director: Installation) -> None:
    director.user.token()
    before = set(director.containers())

    def once(number: int) -> str:
        id = made(director, name=f"one of many {number}", command="sleep 600")
        assert execute(director, id, f"echo {number}")["stdout"] == f"{number}\n"
        assert director.user.call("DELETE", f"/sandboxes/{id}")["deleted"]
        return id

    with ThreadPoolExecutor(20) as threads:
        ids = list(threads.map(once, range(20)))
    for id in ids:
        until(lambda id=id: not left_of(director, id), "nothing is left")
    assert set(director.containers()) <= before


def test_a_command_that_takes_too_much_memory_is_told(director: Installation) -> None:
    director.user.token()
    id = made(director)
    hungry = "x=a; while :; do x=$x$x; done"
    ran = execute(director, id, hungry, timeout=20000)
    assert (ran["oomKilled"], ran["cause"]) == (True, "oom"), json.dumps(ran)
    events = director.user.call("GET", "/events?after=0&limit=1000&types=sandbox.oom")
    mine = [one["data"] for one in events if one["data"]["sandboxId"] == id]
    assert [one["executionId"] for one in mine] == [ran["executionId"]]
    assert execute(director, id, "echo alive")["stdout"] == "alive\n"
    director.user.call("DELETE", f"/sandboxes/{id}")


def test_the_sandbox_of_a_run_holds_its_policy_from_inside(director: Installation) -> None:
    director.user.token()
    sandbox = {
        "resourceLimits": {"memory": 64, "disk": 32},
        "securityPolicy": {
            "readOnlyRoot": True,
            "blockedPaths": ["/etc"],
            "maxOpenFiles": 64,
            "maxProcesses": 20,
        },
        "networkMode": "none",
    }
    run = director.user.run(
        "touch /usr/x; cat given; ls -A /etc; ulimit -n",
        config={"sandbox": sandbox},
        workspace={"files": {"given": "given\n"}},
    )
    result = run["steps"][0]["result"]
    assert "Read-only" in result["stderr"]
    given, *etc, files = result["stdout"].split()
    assert (given, files) == ("given", "64")
    assert set(etc) <= {"group", "hostname", "hosts", "passwd", "resolv.conf"}
    shown = run["effectivePolicy"]
    assert (shown["resourceLimits"]["disk"], shown["networkMode"]) == (32, "none")
    assert {shown["held"][name]["how"] for name in ("disk", "readOnlyRoot", "blockedPaths")} == {
        "enforced"
    }
    filled = director.user.run("head -c 67108864 /dev/zero > big", config={"sandbox": sandbox})
    assert "No space" in filled["error"]["message"]
    large = {"archiveId": director.user.archive(archive_of_noise(64))}
    over = director.user.run("true", config={"sandbox": sandbox}, workspace=large)
    assert over["error"]["code"] == "SANDBOX_FAILED"
    assert "do not fit a disk of 32 MiB" in over["error"]["message"]


def archive_of_noise(mib: int) -> bytes:
    """An archive of a file that has no holes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        member = tarfile.TarInfo("noise")
        member.size = mib * 1024 * 1024
        tar.addfile(member, io.BytesIO(os.urandom(1024 * 1024) * mib))
    return content.getvalue()


def test_a_command_reads_every_byte_that_was_sent_and_then_the_end(director: Installation) -> None:
    director.user.token()
    id = made(director)
    sent = bytes(range(256)) * 2000
    fields = {"stdin": base64.b64encode(sent).decode(), "encoding": "base64"}
    ran = execute(director, id, "sha256sum; cat", **fields)
    assert ran["stdout"].split()[0] == hashlib.sha256(sent).hexdigest()
    assert execute(director, id, "wc -c")["stdout"] == "0\n"
    assert execute(director, id, "id -un; cat", stdin="zwölf")["stdout"] == "sandbox\nzwölf"
    spool = Path(director.home, "sandboxes", id, "spool", "inbox")
    assert not list(spool.glob("*/stdin")), "what was read is not kept"
    director.user.call("DELETE", f"/sandboxes/{id}")


@pytest.mark.alone
def test_a_sandbox_is_kept_with_its_files_though_the_worker_is_killed_at_the_run_s_end(
    director: Installation,
) -> None:
    director.user.token()
    workflow = director.user.workflow(
        "echo once >> lines; sleep 600 & echo begun",
        "until [ -e go ]; do sleep 0.05; done; echo last >> lines",
        config={"keepSandbox": True, "sandbox": {"resourceLimits": {"memory": 64}}},
    )
    run = director.user.start(workflow)
    id = "sbx" + run["runId"].removeprefix("run")
    folder = Path(director.home, "sandboxes", id, "workspace")
    until((folder / "lines").exists, "the first step has run")
    (folder / "go").touch()
    until(lambda: "last" in (folder / "lines").read_text(), "the last step ends")
    director.end("worker", signal.SIGKILL)
    director.heal()
    director.user.token()
    ended = director.user.ended(workflow)
    assert (ended["status"], ended["sandboxId"]) == ("completed", id), ended["error"]
    path = f"/sandboxes/{id}"
    until(lambda: director.user.call("GET", path)["status"] == "running", "it is kept")
    going = "cat lines; grep -slz '^600$' /proc/[0-9]*/cmdline | wc -l"
    assert execute(director, id, going)["stdout"] == ("once\nlast\n1\n"), (
        "its files are there, and what its run has left running"
    )
    again = director.user.run("cat lines", config={"sandboxId": id})
    assert again["steps"][0]["result"]["stdout"] == "once\nlast\n"
    director.user.call("DELETE", path)
    until(lambda: not left_of(director, id), "nothing is left")
