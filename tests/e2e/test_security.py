"""Policies enforced on a real sandbox, as seen from inside of it."""

from pathlib import Path

import docker
import pytest
from e2e.installation import Data, Installation
from support.waiting import until

from director.sandbox.limits import SPARE_PROCESSES

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

PROFILE = """{
  "name": "high-security",
  "description": "High security profile for production",
  "level": "high",
  "constraints": {
    "allowFilesystem": true, "allowNetwork": false, "allowExec": true,
    "maxProcesses": 5, "maxOpenFiles": 50, "readOnlyRoot": true, "noPrivileges": true
  },
  "resourceLimits": {"memory": 48, "cpu": 0.5}
}"""
LIMIT = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null"
BEATS = "while :; do echo x >>beats; sleep 0.05; done"
READ_ONLY_ROOT = "grep -c ' / [^ ]* ro,' /proc/mounts"
PROCESSES = "cat /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max 2>/dev/null"


def test_a_profile_is_enforced_in_a_living_sandbox_and_a_new_container_keeps_the_files(
    director: Installation,
) -> None:
    director.user.token()
    call = director.user.call
    id = call("POST", "/sandboxes?wait=30", {"resourceLimits": {"memory": 256}})["id"]

    def run(command: str) -> Data:
        return dict(call("POST", f"/sandboxes/{id}/execute", {"command": command}))

    def enforce(**body: object) -> Data:
        asked = {"scope": {"sandboxId": id}, **body}
        return dict(call("POST", f"/security/policies/{profile}/enforce", asked))

    json_type = {"Content-Type": "application/json"}
    response = director.user.http.post("/security/profiles", content=PROFILE, headers=json_type)
    profile = response.json()["data"]["id"]
    assert int(run(LIMIT)["stdout"]) == 256 * 2**20
    run("echo kept > kept; mkdir -p deep/er; echo x > deep/er/x")
    body = {"command": BEATS, "async": True, "timeout": 600_000}
    call("POST", f"/sandboxes/{id}/execute", body)
    beats = Path(director.home, "sandboxes", id, "workspace", "beats")
    until(beats.exists, "it beats")

    first = enforce()
    assert first["applied"] == [
        {"sandboxId": id, "fields": ["allowNetwork", "cpu", "maxProcesses", "memory"]}
    ]
    assert first["requiresRestart"] == [
        {"sandboxId": id, "fields": ["maxOpenFiles", "readOnlyRoot"]}
    ]
    assert int(run(LIMIT)["stdout"]) == 48 * 2**20
    seen = beats.stat().st_size
    until(lambda: beats.stat().st_size > seen, "what ran goes on")
    assert int(run(PROCESSES)["stdout"]) == 5 + SPARE_PROCESSES
    assert run(READ_ONLY_ROOT)["stdout"] == "0\n"
    hungry = run("x=a; while :; do x=$x$x; done")
    assert hungry["oomKilled"] is True
    kinds = {one["type"] for one in call("GET", f"/security/events?sandboxId={id}")}
    assert {"oom_kill", "policy_enforced"} <= kinds

    second = enforce(recreate=True)
    assert second["requiresRestart"] == second["violations"] == []
    assert run("cat kept deep/er/x; ulimit -n")["stdout"] == "kept\nx\n50\n"
    assert run(READ_ONLY_ROOT)["stdout"] == "1\n"
    assert int(run(LIMIT)["stdout"]) == 48 * 2**20
    seen = beats.stat().st_size
    run("sleep 0.3")
    assert beats.stat().st_size == seen, "what ran was killed"
    (killed,) = [
        one
        for one in call("GET", f"/sandboxes/{id}/executions?limit=100")
        if one["status"] == "cancelled"
    ]
    assert killed["exitCode"] == 137
    shown = call("GET", f"/sandboxes/{id}")["effectivePolicy"]
    assert shown["securityPolicy"]["readOnlyRoot"] is True
    assert shown["held"]["maxOpenFiles"]["how"] == "enforced"
    call("DELETE", f"/sandboxes/{id}")
    until(lambda: not [one for one in director.containers() if id in one], "it is gone")


def test_a_network_that_is_forbidden_is_taken_from_what_runs_and_does_not_come_back(
    director: Installation,
) -> None:
    director.user.token()
    call = director.user.call
    id = call("POST", "/sandboxes?wait=30", {"networkMode": "bridge"})["id"]
    place = f"/sandboxes/{id}/execute"

    def interfaces() -> list[str]:
        body = {"command": "ls /sys/class/net"}
        return str(call("POST", place, body)["stdout"]).split()

    (network,) = call("GET", "/networks")
    dial = f"exec 3<>/dev/tcp/{network['gateway']}/9; echo $?"
    assert interfaces() == ["eth0", "lo"]
    call("POST", place, {"command": BEATS, "async": True, "timeout": 600_000})
    beats = Path(director.home, "sandboxes", id, "workspace", "beats")
    until(beats.exists, "it beats")
    body = {"name": "no network", "level": "low", "constraints": {"allowNetwork": False}}
    profile = call("POST", "/security/profiles", body)["id"]
    asked = {"scope": {"sandboxId": id}}
    done = call("POST", f"/security/policies/{profile}/enforce", asked)
    assert "allowNetwork" in done["applied"][0]["fields"]
    assert done["requiresRestart"] == done["violations"] == []

    assert interfaces() == ["lo"]
    refused = call("POST", place, {"command": ["bash", "-c", dial]})
    assert "unreachable" in refused["stderr"].lower()
    seen = beats.stat().st_size
    until(lambda: beats.stat().st_size > seen, "what ran goes on")
    shown = call("GET", f"/sandboxes/{id}")
    assert (shown["networkMode"], shown["effectivePolicy"]["networkMode"]) == ("none", "none")
    until(lambda: call("GET", "/networks") == [], "the network that was made for it goes")

    (container,) = [one for one in director.containers() if id in one]
    kill(container)
    commands = f"/sandboxes/{id}/executions?limit=100"
    until(
        lambda: "running" not in {one["status"] for one in call("GET", commands)},
        "the command was lost with its container, which is started again",
    )
    assert interfaces() == ["lo"]
    call("DELETE", f"/sandboxes/{id}")


def kill(container: str) -> None:
    engine = docker.from_env()
    engine.api.kill(container)
    engine.close()
