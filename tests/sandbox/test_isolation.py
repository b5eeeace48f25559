"""What a command can see and do, asked from inside."""

import subprocess

import pytest

from director.sandbox.tools import supervisor_name

pytestmark = pytest.mark.docker


def test_a_sandbox_has_a_user_of_its_own_without_rights(run, shared):
    status = run(shared, "cat /proc/self/status").stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    uids = {int(uid) for uid in fields["Uid"].split()}
    assert len(uids) == 1
    assert min(uids) > 200_000
    assert {fields[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_two_sandboxes_have_different_users(run, shared, sandbox):
    assert run(shared, "id -u").stdout != run(sandbox, "id -u").stdout


def test_a_sandbox_has_no_network_but_its_own(run, shared):
    outcome = run(shared, "ls /sys/class/net; cat /proc/net/route")
    lines = outcome.stdout.splitlines()
    assert lines[0] == b"lo"
    assert len(lines) == 2  # the routes' heading, and no route


def test_a_sandbox_reaches_itself_by_its_names_and_hears_of_no_name_server(run, shared):
    assert run(shared, "cat /etc/hostname").stdout == b"sandbox\n"
    assert run(shared, "cat /etc/hosts").stdout.splitlines()[0] == b"127.0.0.1 localhost sandbox"
    assert b"nameserver" not in run(shared, "cat /etc/resolv.conf").stdout
    loopback = run(shared, "read -r flags </sys/class/net/lo/flags && echo $((flags & 1))")
    assert loopback.stdout == b"1\n"  # it is up


def test_what_the_host_gave_cannot_be_changed(run, sandbox):
    tool = f"/director/tools/{supervisor_name()}"
    for path in (tool, "/director/spool/inbox/x", "/etc/passwd", "/x"):
        assert run(sandbox, f"echo x > {path}").code != 0, path
    assert run(sandbox, "rm -rf /director/spool/wake").code != 0


def test_a_command_cannot_read_the_host(run, shared):
    assert run(shared, "cat /director/spool/../results/*").code != 0
    assert run(shared, "ls /director").stdout == b"claims\nspool\ntools\n"


def test_limits_bite(run, make, runtime):
    sandbox = make(max_open_files=64, memory_mib=64, cpus=0.5)
    outcome = run(
        sandbox,
        "ulimit -n; ulimit -c; cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
        " /sys/fs/cgroup/memory.max 2>/dev/null; df -m /dev/shm | tail -1",
    )
    lines = outcome.stdout.decode().split("\n")
    assert lines[:3] == ["64", "0", str(64 * 1024 * 1024)]
    assert lines[3].split()[1] == "16"
    runtime.remove(sandbox)


def test_the_container_writes_no_log_and_says_whose_it_is(engine, installation, shared):
    found = engine.api.inspect_container(f"director-{shared}")
    labels = found["Config"]["Labels"]
    assert labels["director.installation"] == installation
    assert (labels["director.sandbox"], labels["director.owner"]) == (shared, "run_1")
    host = found["HostConfig"]
    assert (host["LogConfig"]["Type"], host["NetworkMode"], host["Init"]) == ("none", "none", True)


def test_other_users_of_the_host_cannot_look_into_a_sandbox(home, shared):
    assert (home / "sandboxes").stat().st_mode & 0o077 == 0
    entry = subprocess.run(
        ["find", home / "sandboxes" / shared / "spool" / "inbox", "-type", "f", "-perm", "/007"],
        check=True,
        capture_output=True,
    )
    assert entry.stdout == b""
