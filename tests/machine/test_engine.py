"""The engine that we start is stopped again and leaves nothing; others are left alone."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter

import pytest

from director.machine import apt, engine
from director.machine.apt import SetUpError
from director.networks.filter import installed as filter_installed
from director.sandbox.tools import is_static, supervisor_name

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
    after, before = dict(trial["after"]), dict(trial["before"])
    left = Counter(after.pop("mounts")) - Counter(before.pop("mounts"))
    assert not left, "mounts that are left; those of others' sandboxes and namespaces may have gone"
    assert after == before
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


def test_what_runs_commands_in_sandboxes_is_made_below_the_home(tmp_path):
    engine.ensure_supervisor(tmp_path, print)
    assert is_static(tmp_path / "tools" / supervisor_name())


def test_a_compiler_is_installed_where_there_is_none(tmp_path, monkeypatch):
    if os.geteuid() != 0 or not apt.available():
        pytest.skip("only root installs packages, where there is apt")
    installs = f'echo "$@" >{tmp_path}/asked; /bin/mv {tmp_path}/packed {tmp_path}/cc'
    compiles = f'PATH={os.environ["PATH"]} exec cc "$@"'
    for name, script in (("apt-get", installs), ("dpkg-deb", ""), ("packed", compiles)):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    said: list[str] = []
    engine.ensure_supervisor(tmp_path, said.append)
    assert (tmp_path / "tools" / supervisor_name()).exists()
    assert (tmp_path / "asked").read_text().split()[-2:] == ["gcc", "libc6-dev"]
    assert said == ["Installing gcc and libc6-dev from the system's packages …"]


def test_without_a_compiler_and_apt_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetUpError, match=r"no C compiler .* on Debian and Ubuntu gcc and libc6"):
        engine.ensure_supervisor(tmp_path, print)


WITHOUT_FILTER = """
import json, os, subprocess
from director.machine.engine import ensure_filter
from director.networks.filter import trouble

subprocess.run(["mount", "--bind", "/dev/null", os.environ["LIBRARY"]], check=True)
said, before = [], trouble()
found = ensure_filter(said.append)
print(json.dumps({"before": before, "found": found, "said": said, "after": trouble()}))
"""
WHERE = """
import ctypes
ctypes.CDLL("libnftables.so.1")
print(next(line.split()[-1] for line in open("/proc/self/maps") if "libnftables" in line))
"""


@pytest.fixture
def without_filter(tmp_path):
    """What comes of a machine without libnftables, whose apt-get is a script."""
    if os.geteuid() != 0 or not shutil.which("unshare") or not apt.available():
        pytest.skip("only root installs packages, where there is apt")

    def ran(code, **environ):
        done = subprocess.run(
            ["unshare", "--mount", sys.executable, "-c", code],
            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ensured(script):
        program = tmp_path / "apt-get"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return json.loads(ran(WITHOUT_FILTER, LIBRARY=ran(WHERE).strip()))

    return ensured


def test_the_packet_filter_is_installed_where_it_is_missing(without_filter, tmp_path):
    found = without_filter(f'echo "$@" >> {tmp_path}/asked; umount "$LIBRARY"')
    assert "libnftables1" in found["before"]
    assert (found["found"], found["after"]) == (True, "")
    assert (tmp_path / "asked").read_text().split()[-1] == "libnftables1"
    assert found["said"] == ["Installing libnftables1 from the system's packages …"]


def test_without_a_packet_filter_it_is_said_why_and_all_else_goes_on(without_filter):
    found = without_filter("echo no such mirror; exit 1")
    assert not found["found"]
    assert "libnftables1" in found["after"]
    assert "`apt-get install libnftables1` as root" in found["said"][-1]
    assert "no such mirror" in found["said"][-1]


def test_a_packet_filter_that_is_there_is_not_talked_about():
    if not filter_installed():
        pytest.skip("needs libnftables")
    said = []
    assert engine.ensure_filter(said.append)
    assert said == []
