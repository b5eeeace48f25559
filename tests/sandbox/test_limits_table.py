"""Every limit of a spec, and what one host does for it. No engine, no files."""

from dataclasses import replace
from pathlib import Path

import pytest

from director.domain.policies import Hold
from director.domain.sandboxes import SandboxSpec
from director.sandbox.limits import MASKED, plan
from director.sandbox.probe import Probe, abilities
from director.sandbox.runtime import SandboxError

ROOT = Path("/home/sandboxes/sbx_1")
HOST = Probe(cpus=2, memory_mib=4096)
MIB = 1024 * 1024


def spec(**fields):
    return SandboxSpec.model_validate(
        {"id": "sbx_1", "image": "node:22", "owner_id": "run_1"} | fields
    )


def planned(probe=HOST, **fields):
    return plan(spec(**fields), probe, ROOT)


def writable(found):
    return [bind for bind in found.binds if not bind.endswith(":ro")]


@pytest.mark.parametrize(
    ("fields", "name", "value"),
    [
        ({"memory_mib": 64}, "mem_limit", 64 * MIB),
        ({"memory_mib": 64}, "memswap_limit", 64 * MIB),
        ({"cpus": 0.5}, "nano_cpus", 500_000_000),
        ({"cpus": 64.0}, "nano_cpus", 2_000_000_000),
        ({"max_processes": 5}, "pids_limit", 5 + 64),
        ({}, "cap_drop", ["ALL"]),
        ({}, "read_only", False),
        ({"read_only_root": True}, "read_only", True),
        ({"allow_filesystem": False}, "read_only", True),
        ({"disk_mib": 64}, "read_only", True),
        ({}, "tmpfs", {}),
        ({"blocked_paths": ["/etc"]}, "tmpfs", {"/etc": "ro,nosuid,nodev,noexec,size=64k"}),
    ],
)
def test_a_limit_becomes_a_setting_of_the_engine(fields, name, value):
    assert planned(**fields).host_config[name] == value


def test_a_sandbox_has_no_network_unless_it_is_on_one():
    assert planned().host_config["network_mode"] == "none"
    assert not any("resolv.conf" in bind for bind in planned().binds)


def test_on_a_network_the_engine_asks_nobody_for_names_and_there_is_no_ipv6():
    found = planned(network={"name": "director-net_1", "resolvers": ["203.0.113.1"]})
    config = found.host_config
    assert (config["network_mode"], config["dns"]) == ("director-net_1", ["127.0.0.1"])
    assert config["sysctls"]["net.ipv6.conf.all.disable_ipv6"] == "1"
    assert config["cap_drop"] == ["ALL"]
    assert f"{ROOT}/resolv.conf:/etc/resolv.conf:ro" in found.binds


def test_open_files_are_bounded_and_no_core_is_dumped():
    limits = {u.name: (u.soft, u.hard) for u in planned(max_open_files=50).host_config["ulimits"]}
    assert limits == {"nofile": (50, 50), "core": (0, 0)}


def test_every_sandbox_has_no_new_privileges_and_a_filter_of_system_calls():
    first, second = planned().host_config["security_opt"]
    assert first == "no-new-privileges:true"
    assert second.startswith('seccomp={"defaultAction":"SCMP_ACT_ERRNO"')
    assert len(planned(replace(HOST, seccomp=False)).host_config["security_opt"]) == 1


@pytest.mark.parametrize(
    ("fields", "mounts"),
    [
        ({}, ["workspace:/workspace", "home:/home/sandbox", "tmp:/tmp"]),
        (
            {"allowed_paths": ["/app", "/data"]},
            [
                "workspace:/workspace",
                "home:/home/sandbox",
                "tmp:/tmp",
                "allowed/0:/app",
                "allowed/1:/data",
            ],
        ),
        (
            {"allowed_paths": ["/app", "/app/logs", "/workspace/x", "/tmp"]},
            ["workspace:/workspace", "home:/home/sandbox", "tmp:/tmp", "allowed/0:/app"],
        ),
        (
            {"allowed_paths": ["/opt/x", "/etc"], "blocked_paths": ["/opt", "/etc"]},
            ["workspace:/workspace", "home:/home/sandbox", "tmp:/tmp"],
        ),
        ({"allow_filesystem": False, "allowed_paths": ["/app"]}, []),
    ],
)
def test_only_what_is_allowed_can_be_written(fields, mounts):
    records = f"{ROOT}/claims:/director/claims"
    expected = [*(f"{ROOT}/{mount}" for mount in mounts), records]
    assert writable(planned(**fields)) == expected


@pytest.mark.parametrize(
    ("fields", "shut"),
    [
        ({}, []),
        ({"read_only_root": True}, ["/data", "/workspace/deep"]),
        ({"disk_mib": 64}, ["/data", "/workspace/deep"]),
        ({"read_only_root": True, "allowed_paths": ["/data"]}, ["/workspace/deep"]),
    ],
)
def test_a_volume_of_the_image_cannot_be_written_where_the_root_cannot(fields, shut):
    config = planned(**fields).with_volumes(["/data", "/workspace", "/tmp/", "/workspace/deep"])
    assert config["tmpfs"] == dict.fromkeys(shut, "ro,nosuid,nodev,noexec,size=64k")


def test_without_a_file_system_only_a_small_tmp_is_left():
    found = planned(allow_filesystem=False)
    assert found.host_config["tmpfs"] == {"/tmp": "rw,nosuid,nodev,exec,mode=1777,size=16m"}
    assert f"{ROOT}/workspace:/workspace:ro" in found.binds
    assert not [bind for bind in found.binds if f"{ROOT}/tmp" in bind]


@pytest.mark.parametrize(
    ("blocked", "masked", "hidden"),
    [
        ([], [], ()),
        (["/root", "/etc"], ["/root"], ()),
        (["/etc/ssl"], ["/etc/ssl"], ()),
        (["/workspace"], ["/workspace"], ()),
        (["/workspace/a/b", "/tmp/c"], ["/workspace/a/b", "/tmp/c"], ("tmp/c", "workspace/a/b")),
        (["/app/keys"], ["/app/keys"], ("allowed/0/keys",)),
    ],
)
def test_what_is_blocked_is_masked_beside_what_engines_mask(blocked, masked, hidden):
    found = planned(blocked_paths=blocked, allowed_paths=["/app"])
    assert set(found.masked) == {*MASKED, *masked}
    assert tuple(sorted(found.room.hidden)) == hidden


@pytest.mark.parametrize(
    ("fields", "disk", "records"),
    [
        ({}, None, None),
        ({"disk_mib": 64}, 64, 256),
        ({"allow_filesystem": False}, None, 256),
    ],
)
def test_disk_is_bounded_where_it_is_asked_for(fields, disk, records):
    room = planned(**fields).room
    assert (room.disk_mib, room.records_mib) == (disk, records)


@pytest.mark.parametrize(
    ("probe", "fields", "says"),
    [
        ({"memory": False}, {}, "cannot limit memory"),
        ({"cpu": False}, {}, "cannot limit cpu"),
        ({"processes": False}, {}, "cannot limit processes"),
        ({"no_disk": "only root can"}, {"disk_mib": 64}, "cannot limit disk: only root can"),
        ({}, {"memory_mib": 5}, "at least 6 MiB"),
        ({}, {"cpus": 0.0}, "a part of a cpu"),
        ({}, {"max_processes": 0}, "1 process"),
        ({}, {"max_open_files": 15}, "16 open files"),
    ],
)
def test_what_cannot_be_held_is_refused_by_name(probe, fields, says):
    with pytest.raises(SandboxError, match=says) as error:
        planned(replace(HOST, **probe), **fields)
    assert not error.value.retryable


@pytest.mark.parametrize(
    ("probe", "fields", "name", "how", "note"),
    [
        ({}, {}, "memory", Hold.ENFORCED, ""),
        ({"swap": False}, {}, "memory", Hold.EMULATED, "swapped"),
        ({}, {"cpus": 4.0}, "cpu", Hold.ENFORCED, "this host has 2"),
        ({}, {}, "maxProcesses", Hold.ENFORCED, "64 more"),
        ({"own_users": False}, {}, "maxProcesses", Hold.EMULATED, "64 more"),
        ({"own_users": False}, {}, "noPrivileges", Hold.EMULATED, "the worker's"),
        ({"seccomp": False}, {}, "noPrivileges", Hold.EMULATED, "no system calls"),
        ({}, {"disk_mib": 9}, "disk", Hold.ENFORCED, "256 MiB"),
        ({}, {"disk_mib": 9}, "readOnlyRoot", Hold.ENFORCED, "since disk is bounded"),
        ({}, {"blocked_paths": ["/x"]}, "blockedPaths", Hold.ENFORCED, "what the image has there"),
        ({}, {"allow_filesystem": False}, "allowFilesystem", Hold.ENFORCED, "/tmp (16 MiB)"),
        (
            {"no_disk": "no"},
            {"allow_filesystem": False},
            "allowFilesystem",
            Hold.EMULATED,
            "outputs",
        ),
        (
            {},
            {"allow_filesystem": False, "allowed_paths": ["/app"]},
            "allowedPaths",
            Hold.ENFORCED,
            "none can be written",
        ),
    ],
)
def test_each_field_says_how_it_is_held(probe, fields, name, how, note):
    held = planned(replace(HOST, **probe), **fields).held[name]
    assert held.how is how
    assert note in held.note


def test_the_memory_of_a_host_without_swap_accounting_is_limited_all_the_same():
    host_config = planned(replace(HOST, swap=False), memory_mib=64).host_config
    assert host_config["mem_limit"] == 64 * MIB
    assert "memswap_limit" not in host_config


def test_a_plan_needs_no_disk_where_none_is_asked_for():
    assert "disk" not in planned(replace(HOST, no_disk="no loop devices")).held


@pytest.mark.parametrize(
    ("change", "name", "says"),
    [
        ({"memory": False, "cpu": False}, "sandbox limits", "memory and cpu cannot be limited"),
        ({"swap": False}, "sandbox swap", "not limited"),
        ({"seccomp": False}, "sandbox filter", "no system calls"),
        ({"no_disk": "the kernel has no loop devices"}, "sandbox disks", "no loop devices"),
    ],
)
def test_what_a_host_cannot_hold_is_told_in_a_line(change, name, says):
    assert all(line.ok for line in abilities(HOST))
    lines = {line.name: line for line in abilities(replace(HOST, **change))}
    assert [line.name for line in lines.values() if not line.ok] == [name]
    assert says in lines[name].detail
    assert lines[name].remedy
