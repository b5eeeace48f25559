"""What a sandbox uses: read from recorded trees of both versions, and from a real one."""

import pytest
from support.waiting import until

from director.domain.sandboxes import DiskUsage
from director.sandbox.metrics import Groups, measure
from director.sandbox.runtime import SandboxNotFoundError

V1 = {
    "proc/7/cgroup": "6:pids:/docker/abc\n5:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
    "cg/cpuacct/docker/abc/cpuacct.usage": "1500000000\n",
    "cg/cpu/docker/abc/cpu.cfs_quota_us": "150000\n",
    "cg/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
    "cg/memory/docker/abc/memory.usage_in_bytes": "31457280\n",
    "cg/memory/docker/abc/memory.limit_in_bytes": "67108864\n",
    "cg/memory/docker/abc/memory.stat": "cache 99\ntotal_inactive_file 10485760\n",
    "cg/memory/docker/abc/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "cg/pids/docker/abc/pids.current": "5\n",
}
V2 = {
    "proc/7/cgroup": "0::/system.slice/docker-abc.scope\n",
    "cg/system.slice/docker-abc.scope/cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
    "cg/system.slice/docker-abc.scope/cpu.max": "150000 100000\n",
    "cg/system.slice/docker-abc.scope/memory.current": "31457280\n",
    "cg/system.slice/docker-abc.scope/memory.max": "67108864\n",
    "cg/system.slice/docker-abc.scope/memory.stat": "anon 9\ninactive_file 10485760\n",
    "cg/system.slice/docker-abc.scope/memory.events": "low 0\noom 3\noom_kill 2\n",
    "cg/system.slice/docker-abc.scope/pids.current": "5\n",
}
UNLIMITED = {
    "cpu.max": "max 100000\n",
    "cpu.cfs_quota_us": "-1\n",
    "memory.max": "max\n",
    "memory.limit_in_bytes": "9223372036854771712\n",
}


@pytest.fixture
def recorded(tmp_path):
    """The groups of process 7 in a tree of files."""

    def recorded(tree, changes=()):
        for name, text in tree.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(dict(changes).get(path.name, text))
        return Groups.of(7, proc=tmp_path / "proc", root=tmp_path / "cg")

    return recorded


@pytest.mark.parametrize("tree", [V1, V2], ids=["v1", "v2"])
def test_both_versions_tell_the_same(recorded, tree):
    groups = recorded(tree)
    assert (groups.cpu_seconds(), groups.oom_kills()) == (1.5, 2)
    found = measure(groups, 3000, DiskUsage(used_mb=1, limit_mb=2), window=0)
    assert (found.cpu.percent, found.cpu.cores) == (50, 1.5), "on average since its start"
    assert (found.memory.used_mb, found.memory.limit_mb) == (20, 64)
    assert (found.pids, found.uptime_ms, found.disk.limit_mb) == (5, 3000, 2)


@pytest.mark.parametrize("tree", [V1, V2], ids=["v1", "v2"])
def test_what_is_not_limited_is_null(recorded, tree):
    found = measure(recorded(tree, UNLIMITED), 0, DiskUsage(used_mb=None, limit_mb=None), window=0)
    assert (found.cpu.cores, found.memory.limit_mb) == (None, None)


@pytest.mark.docker
def test_a_real_sandbox_tells_what_it_uses(runtime, make, start):
    sandbox = make(memory_mib=128, cpus=0.5, disk_mib=32)
    try:
        idle = runtime.metrics(sandbox)
        assert (idle.memory.limit_mb, idle.cpu.cores) == (128, 0.5)
        script = "dd if=/dev/urandom of=big bs=1M count=10 && echo up && while :; do :; done"
        busy = start(sandbox, script)
        until(lambda: busy.read("stdout", 0, 9) == b"up\n", "it is busy")
        until(lambda: runtime.metrics(sandbox).cpu.percent > 20, "it uses the cpu")
        found = runtime.metrics(sandbox)
        assert found.pids > idle.pids
        assert found.disk.used_mb >= idle.disk.used_mb + 10
        assert 31 <= found.disk.limit_mb <= 40
        assert found.uptime_ms >= idle.uptime_ms
    finally:
        runtime.remove(sandbox)
    with pytest.raises(SandboxNotFoundError):
        runtime.metrics(sandbox)
