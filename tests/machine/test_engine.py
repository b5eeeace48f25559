"""The engine that we start is stopped again and leaves nothing; others are left alone."""

import json
import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from director.machine import engine
from director.machine.apt import SetUpError

OWN_WORLD = """
import json, os, pathlib, subprocess, time
from director.cli.up import keep_engine
from director.machine.engine import (
    alive, answering, ensure_engine, lost_engine, owns_engine, stop_engine
)

home = pathlib.Path(os.environ["TRIAL"])
inherited = [line.split()[1] for line in open("/proc/mounts") if " /var/lib/docker/" in line]
for command in (
    *(["umount", "-l", place] for place in inherited),
    ["mount", "-t", "tmpfs", "tmpfs", "/run"],
    ["mount", "--bind", str(home), "/var/lib/docker"],
):
    subprocess.run(command, check=command[0] == "mount", capture_output=True)


def kernel():
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True).stdout
    return {
        "links": sorted(line.split(":")[0] for line in open("/proc/net/dev") if ":" in line),
        "rules": [line for line in rules.splitlines() if line.startswith("-A") or "DOCKER" in line],
        "mounts": sorted(line.split()[1] for line in open("/proc/mounts")),
        "forwarding": open("/proc/sys/net/ipv4/ip_forward").read(),
    }


said = []
before = kernel()
first = ensure_engine(home, said.append)
first.client.close()
second = ensure_engine(home, said.append)
second.client.close()
during, owned = kernel(), owns_engine(home)
pid = int((home / "engine/dockerd.pid").read_text())
os.kill(pid, 9)
while alive(pid):
    time.sleep(0.01)
lost = lost_engine(home)
keep_engine(home, said.append)
third = answering()
third.client.close()
kept = [lost, lost_engine(home), owns_engine(home), third.live_restore]
stopped = stop_engine(home, said.append)
print(json.dumps({
    "said": said, "owned": owned, "live": first.live_restore,
    "started": [first.started, second.started], "stopped": [stopped, stop_engine(home)],
    "kept": kept,
    "before": before, "during": during, "after": kernel(), "answers": answering() is not None,
    "socket": os.path.exists("/var/run/docker.sock"),
}))
"""


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    """Start and stop an engine in a mount and network namespace of its own."""
    if os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("unshare"):
        pytest.skip("only root, with dockerd installed, starts an engine of its own")
    home = tmp_path_factory.mktemp("home")
    environ = {key: value for key, value in os.environ.items() if key != "DOCKER_HOST"}
    done = subprocess.run(
        ["unshare", "-m", "-n", sys.executable, "-c", textwrap.dedent(OWN_WORLD)],
        env=environ | {"TRIAL": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.docker
def test_an_engine_is_started_once_and_keeps_containers_alive_without_it(trial):
    assert trial["started"] == [True, False]
    assert trial["owned"]
    assert trial["live"]
    assert any("starting dockerd" in line for line in trial["said"])


@pytest.mark.docker
def test_an_engine_that_was_killed_is_started_again_by_whoever_started_it(trial):
    lost, still_lost, owned, live = trial["kept"]
    assert lost
    assert not still_lost
    assert owned
    assert live
    assert any("has ended and is started again" in line for line in trial["said"])


@pytest.mark.docker
def test_a_stopped_engine_leaves_no_bridge_rule_mount_or_socket(trial):
    assert trial["during"] != trial["before"], "the engine left no trace that could be compared"
    assert trial["stopped"] == [True, False]
    assert trial["after"] == trial["before"]
    assert not trial["answers"]
    assert not trial["socket"]


@pytest.mark.docker
def test_an_engine_that_answers_is_used_and_never_stopped(tmp_path):
    said = []
    found = engine.ensure_engine(tmp_path, said.append)
    found.client.close()
    assert not found.started
    assert said == []
    assert not engine.stop_engine(tmp_path)
    still = engine.answering()
    assert still is not None
    still.client.close()


def test_an_address_where_nothing_answers_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SetUpError, match=r"DOCKER_HOST=unix://.*none\.sock"):
        engine.ensure_engine(tmp_path, print)


def test_a_process_that_is_not_our_dockerd_is_never_taken_for_it(tmp_path):
    state = tmp_path / "engine"
    state.mkdir()
    (state / "dockerd.pid").write_text(str(os.getpid()))
    assert not engine.owns_engine(tmp_path)


def test_busybox_is_found_static_or_not_at_all():
    found = engine.find_busybox()
    assert found is None or found.name == "busybox"
