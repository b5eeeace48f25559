"""Whose word counts when several say what a sandbox may do."""

import itertools

import pytest
from pydantic import TypeAdapter, ValidationError

from director.domain.departments import Ceiling
from director.domain.policies import (
    Hold,
    Holding,
    Network,
    ResourceLimits,
    SecurityLevel,
    SecurityPolicy,
    effective,
    lowest,
    strictest,
    tightened,
)
from director.domain.sandboxes import SandboxSpec
from director.domain.workflows import SandboxConfig, WorkflowConfig

LIMITS = {"cpu": 2.0, "memory": 1024, "disk": 2048, "network": False, "maxDuration": 300000}
POLICY = {
    "allowFilesystem": True,
    "allowNetwork": False,
    "allowExec": True,
    "allowedPaths": ["/app"],
    "blockedPaths": ["/etc", "/root"],
    "readOnlyRoot": True,
    "noPrivileges": True,
}
CONSTRAINTS = {
    "allowFilesystem": False,
    "allowNetwork": False,
    "allowExec": True,
    "maxProcesses": 5,
    "maxOpenFiles": 50,
    "readOnlyRoot": True,
    "noPrivileges": True,
}


def policy(**fields):
    return SecurityPolicy.model_validate(fields)


def test_the_documents_bodies_are_taken_as_printed():
    limits, wanted = ResourceLimits.model_validate(LIMITS), SecurityPolicy.model_validate(POLICY)
    assert limits.model_dump(exclude_none=True, by_alias=True) == LIMITS
    assert wanted.model_dump(exclude_none=True, by_alias=True) == POLICY
    constraints = SecurityPolicy.model_validate(CONSTRAINTS)
    profile = SecurityLevel.HIGH.with_constraints(constraints)
    assert profile.model_dump(exclude_none=True, by_alias=True) == CONSTRAINTS


def test_the_documents_sandbox_comes_out_as_it_is_written():
    found = effective(
        [ResourceLimits.model_validate(LIMITS)], [SecurityPolicy.model_validate(POLICY)], "isolated"
    )
    assert found.network_mode == "none"
    assert found.resource_limits.model_dump(by_alias=True) == LIMITS
    spec = SandboxSpec(id="sbx_1", image="node:22-alpine", owner_id="run_1").under(found)
    assert (spec.memory_mib, spec.cpus, spec.disk_mib) == (1024, 2.0, 2048)
    assert (spec.allowed_paths, spec.blocked_paths) == (["/app"], ["/etc", "/root"])
    assert (spec.read_only_root, spec.allow_filesystem, spec.max_processes) == (True, True, 512)


@pytest.mark.parametrize(
    ("field", "path", "says"),
    [
        ("allowedPaths", "app", "absolute"),
        ("allowedPaths", "", "at least 1 character"),
        ("allowedPaths", "/", "must not be `/`"),
        ("allowedPaths", "///", "must not be `/`"),
        ("allowedPaths", "/a/../../etc", r"\.\."),
        ("allowedPaths", "/a:/etc:rw", "neither `:`"),
        ("allowedPaths", "/a\0", "control"),
        ("allowedPaths", "/director", "must not lie in /director"),
        ("allowedPaths", "//director/./tools", "must not lie in /director"),
        ("allowedPaths", "/proc/1", "must not lie in /proc"),
        ("blockedPaths", "/director/spool", "must leave /director"),
        ("blockedPaths", "/proc", "must leave /proc/self"),
        ("blockedPaths", "/sys", "must leave /sys/fs/cgroup"),
        ("blockedPaths", "/dev/null", "must leave /dev"),
        ("blockedPaths", "..", "absolute"),
    ],
)
def test_a_path_that_would_break_the_sandbox_or_leave_it_is_refused(field, path, says):
    with pytest.raises(ValidationError, match=says):
        policy(**{field: [path]})


def test_paths_are_written_in_one_way():
    found = policy(allowedPaths=["/app/", "//data//x/./y"], blockedPaths=["/proc/cpuinfo"])
    assert found.allowed_paths == ["/app", "/data/x/y"]
    assert found.blocked_paths == ["/proc/cpuinfo"]


@pytest.mark.parametrize(
    "limits",
    [
        {"cpu": 0},
        {"cpu": "2"},
        {"cpu": float("nan")},
        {"memory": 1},
        {"memory": 1.5},
        {"memory": 2**40},
        {"disk": 0},
        {"disk": True},
        {"network": 1},
        {"maxDuration": 0},
        {"timeOut": 5},
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(limits):
    with pytest.raises(ValidationError):
        ResourceLimits.model_validate(limits)


@pytest.mark.parametrize(
    ("field", "loose", "strict"),
    [
        ("allowFilesystem", True, False),
        ("allowNetwork", True, False),
        ("allowExec", True, False),
        ("readOnlyRoot", False, True),
        ("noPrivileges", False, True),
        ("maxProcesses", 6, 5),
        ("maxOpenFiles", 51, 50),
    ],
)
def test_the_stricter_wins_field_by_field_whoever_says_it(field, loose, strict):
    one, other = policy(**{field: loose}), policy(**{field: strict})
    for found in (strictest(one, other), strictest(other, None, one), strictest(other, policy())):
        assert found == other
    assert strictest(one, policy()) == one


@pytest.mark.parametrize(
    ("lists", "common"),
    [
        ([["/app"]], ["/app"]),
        ([["/app", "/data"], ["/app"]], ["/app"]),
        ([["/app"], ["/app/logs", "/data"]], ["/app/logs"]),
        ([["/app"], ["/application"]], []),
        ([["/app"], []], []),
        ([["/a", "/b"], ["/a/x", "/b"], ["/a", "/b/y"]], ["/a/x", "/b/y"]),
    ],
)
def test_only_what_every_policy_allows_can_be_written(lists, common):
    policies = [policy(allowedPaths=paths) for paths in lists]
    assert strictest(*policies).allowed_paths == common
    assert strictest(*reversed(policies)).allowed_paths == common


def test_blocked_is_what_any_policy_blocks_and_it_wins_over_allowed():
    both = [
        policy(blockedPaths=["/root"], allowedPaths=["/opt/a", "/app"]),
        policy(blockedPaths=["/opt"]),
    ]
    found = effective([], both)
    assert found.security_policy.blocked_paths == ["/opt", "/root"]
    assert found.security_policy.allowed_paths == ["/app"]
    assert "not writable" in found.held["allowedPaths"].note


def test_the_lowest_limit_counts():
    limits = lowest(
        ResourceLimits(memory=512, cpu=1.0, network=True),
        None,
        ResourceLimits(memory=256, disk=100, network=False, max_duration=5),
    )
    expected = ResourceLimits(memory=256, cpu=1.0, disk=100, network=False, max_duration=5)
    assert limits == expected


@pytest.mark.parametrize(
    ("limits", "security", "mode", "expected"),
    [
        ({}, {}, None, "isolated"),
        ({"network": True}, {"allowNetwork": True}, "bridge", "bridge"),
        ({"network": False}, {"allowNetwork": True}, "bridge", "none"),
        ({"network": True}, {"allowNetwork": False}, "net_1", "none"),
        ({"network": True}, {"allowNetwork": True}, "none", "none"),
    ],
)
def test_whoever_forbids_the_network_forbids_it_everywhere(limits, security, mode, expected):
    found = effective([ResourceLimits.model_validate(limits)], [policy(**security)], mode)
    assert found.network_mode == expected
    assert found.security_policy.allow_network is (expected != "none")
    assert found.resource_limits.network is (expected != "none")


@pytest.mark.parametrize("mode", ["isolated", "none", "bridge", "net_01m87p3bt713kgqz2v3e8w36a0"])
def test_a_way_to_be_connected(mode):
    assert TypeAdapter(Network).validate_python(mode) == mode


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("host", "no sandbox is given the network of host"),
        ("container:abc", "no sandbox is given the network of container"),
        ("Bridge", "use one of isolated, none, bridge"),
        ("net_", "use one of"),
        ("net_x;y", "use one of"),
    ],
)
def test_no_other_way_to_be_connected(mode, says):
    with pytest.raises(ValidationError, match=says):
        TypeAdapter(Network).validate_python(mode)


def test_each_level_is_at_least_as_strict_as_the_one_before():
    levels = list(SecurityLevel)
    for lower, higher in itertools.pairwise(levels):
        both = strictest(lower.constraints(), higher.constraints())
        assert both == higher.constraints()


def test_a_policy_says_how_it_is_held_and_survives_json():
    held = {"disk": Holding(how=Hold.EMULATED, note="watched")}
    found = effective([], []).with_held(held)
    assert found.held["disk"].note == "watched"
    assert found.held["allowExec"].how is Hold.ENFORCED
    again = type(found).model_validate_json(found.model_dump_json(by_alias=True))
    assert again == found


def test_a_run_has_the_lowest_of_its_workflow_s_and_its_departments_limits() -> None:
    wanted = SandboxConfig.model_validate(
        {"resourceLimits": {"memory": 512, "disk": 64}, "securityPolicy": {"maxProcesses": 9}}
    )
    found = wanted.policy([Ceiling(memory=1024, cpu=0.5), Ceiling(memory=256)])
    limits = found.resource_limits
    assert (limits.memory, limits.cpu, limits.disk) == (256, 0.5, 64)
    spec = SandboxSpec(id="a", image="i", owner_id="o").under(found)
    assert (spec.memory_mib, spec.cpus, spec.disk_mib, spec.max_processes) == (256, 0.5, 64, 9)
    plain = SandboxConfig().policy([])
    same = SandboxSpec(id="a", image="i", owner_id="o")
    assert same.under(plain) == same, "who asks for nothing has what every sandbox has"


@pytest.mark.parametrize(
    ("config", "most"),
    [
        ({"timeout": 5000}, 5000),
        ({"timeout": 5000, "sandbox": {"resourceLimits": {"maxDuration": 700}}}, 700),
        ({"timeout": 500, "sandbox": {"resourceLimits": {"maxDuration": 700}}}, 500),
        ({"sandbox": {}}, 24 * 3600 * 1000),
    ],
)
def test_the_lower_of_a_run_s_timeout_and_its_sandbox_s_duration_counts(
    config: dict[str, object], most: int
) -> None:
    assert WorkflowConfig.model_validate(config).run_timeout == most


def test_what_a_living_sandbox_can_be_given_is_told_apart_from_what_needs_a_new_container():
    before = effective([ResourceLimits(memory=512, cpu=2.0)], [policy(allowedPaths=["/app"])])
    asked = policy(
        allowExec=False,
        maxProcesses=5,
        maxOpenFiles=50,
        readOnlyRoot=True,
        blockedPaths=["/root"],
        allowNetwork=False,
    )
    found = tightened(before, ResourceLimits(memory=128, cpu=0.5), asked)
    assert found.live == ["allowExec", "allowNetwork", "cpu", "maxProcesses", "memory"]
    assert found.rest == ["blockedPaths", "maxOpenFiles", "readOnlyRoot"]
    now = found.now
    assert (now.resource_limits.memory, now.resource_limits.cpu) == (128, 0.5)
    assert (now.security_policy.max_processes, now.security_policy.allow_exec) == (5, False)
    assert (now.security_policy.read_only_root, now.security_policy.max_open_files) == (False, 4096)
    assert (now.network_mode, now.security_policy.allow_network) == ("none", False)
    assert found.whole.security_policy.blocked_paths == ["/root"]
    assert found.whole.security_policy.allowed_paths == ["/app"]


def test_enforcing_loosens_nothing_and_a_second_time_changes_nothing():
    strict = policy(readOnlyRoot=True, maxProcesses=5, allowExec=False, blockedPaths=["/root"])
    before = effective([ResourceLimits(memory=64)], [strict])
    loose = SecurityLevel.LOW.with_constraints(policy(noPrivileges=False))
    found = tightened(before, ResourceLimits(memory=4096, cpu=2.0), loose)
    assert (found.live, found.rest, found.now) == ([], [], before)
    assert found.whole.security_policy == before.security_policy

    once = tightened(before, ResourceLimits(memory=32), SecurityLevel.CRITICAL.constraints())
    again = tightened(once.whole, ResourceLimits(memory=32), SecurityLevel.CRITICAL.constraints())
    assert (again.live, again.rest) == ([], [])


def test_a_disk_that_nobody_bounds_is_as_large_as_whoever_runs_it_says():
    asked = effective([ResourceLimits(disk=32)], []).with_disk(64)
    unasked = effective([], []).with_disk(64)
    assert (asked.resource_limits.disk, unasked.resource_limits.disk) == (32, 64)
    assert effective([], []).with_disk(None).resource_limits.disk is None


def test_the_network_of_a_connected_sandbox_ends_at_once():
    before = effective([], [], "net_1")
    found = tightened(before, ResourceLimits(), policy(allowNetwork=False))
    assert (found.live, found.rest) == (["allowNetwork"], [])
    assert (found.now.network_mode, found.whole.network_mode) == ("none", "none")
