"""What a sandbox uses, read from the kernel's files; the engine would take a second for it."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from director.domain.sandboxes import (
    CpuUsage,
    DiskUsage,
    MemoryUsage,
    NetworkUsage,
    SandboxMetrics,
)
from director.domain.times import utc_now
from director.sandbox.runtime import CPU_WINDOW_SECONDS

_MIB = 1024 * 1024
_UNLIMITED = 1 << 60


class Groups(NamedTuple):
    """The control groups of a process, of version 1 or 2, by what they count."""

    cpu: Path
    cpu_limit: Path
    memory: Path
    pids: Path
    unified: bool

    @classmethod
    def of(
        cls, pid: int, *, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")
    ) -> "Groups":
        """Find those of a process. Raises FileNotFoundError where it has ended."""
        lines = [line.split(":", 2) for line in (proc / f"{pid}/cgroup").read_text().splitlines()]
        places = {name: path for _, names, path in lines for name in names.split(",")}
        if "memory" not in places:
            group = root / places[""].lstrip("/")
            return cls(group, group, group, group, unified=True)
        cpu, limit, memory, pids = (
            root / name / places[name].lstrip("/") for name in ("cpuacct", "cpu", "memory", "pids")
        )
        return cls(cpu, limit, memory, pids, unified=False)

    def cpu_seconds(self) -> float:
        """Seconds of all cores that it has used."""
        if self.unified:
            return _fields(self.cpu / "cpu.stat")["usage_usec"] / 1e6
        return _number(self.cpu / "cpuacct.usage") / 1e9

    def cores(self) -> float | None:
        """How many cores it may use; None where that is not limited."""
        if self.unified:
            quota, period = (self.cpu_limit / "cpu.max").read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        quota_us = _number(self.cpu_limit / "cpu.cfs_quota_us")
        period_us = _number(self.cpu_limit / "cpu.cfs_period_us")
        return None if quota_us < 0 else quota_us / period_us

    def memory_used(self) -> int:
        """Bytes that it has, without what the kernel could take back from its caches of files."""
        name = "memory.current" if self.unified else "memory.usage_in_bytes"
        inactive = "inactive_file" if self.unified else "total_inactive_file"
        cached = _fields(self.memory / "memory.stat").get(inactive, 0)
        return max(0, _number(self.memory / name) - cached)

    def memory_limit(self) -> int | None:
        """Bytes that it may have; None where that is not limited."""
        limit = _number(self.memory / ("memory.max" if self.unified else "memory.limit_in_bytes"))
        return limit if 0 <= limit < _UNLIMITED else None

    def processes(self) -> int:
        """How many processes and threads it has."""
        return _number(self.pids / "pids.current")

    def oom_kills(self) -> int:
        """How often the kernel has killed a process in it for want of memory."""
        name = "memory.events" if self.unified else "memory.oom_control"
        return _fields(self.memory / name).get("oom_kill", 0)


def measure(
    groups: Groups, uptime_ms: int, disk: DiskUsage, *, window: float = CPU_WINDOW_SECONDS
) -> SandboxMetrics:
    """Look at a sandbox, its cpu over a moment, or with a window of 0 over all its uptime. Raises
    FileNotFoundError where it has ended."""
    used = _used_in(groups, window) if window else groups.cpu_seconds() / max(uptime_ms / 1000, 0.1)
    limit = groups.memory_limit()
    return SandboxMetrics(
        cpu=CpuUsage(percent=round(100 * used, 1), cores=groups.cores()),
        memory=MemoryUsage(
            used_mb=round(groups.memory_used() / _MIB, 1),
            limit_mb=None if limit is None else round(limit / _MIB, 1),
        ),
        disk=disk,
        pids=groups.processes(),
        uptime_ms=uptime_ms,
        timestamp=utc_now(),
    )


def _used_in(groups: Groups, window: float) -> float:
    """How many cores it uses, on average over so many seconds."""
    begun, before = time.monotonic(), groups.cpu_seconds()
    time.sleep(window)
    used = groups.cpu_seconds() - before
    return used / max(time.monotonic() - begun, 1e-6)


def disk_usage(folder: Path, *, bounded: bool) -> DiskUsage:
    """What a disk of the sandbox's own holds. One that is not bounded is not counted, since its
    files would have to be walked."""
    if not bounded:
        return DiskUsage(used_mb=None, limit_mb=None)
    found = os.statvfs(folder)
    used = (found.f_blocks - found.f_bfree) * found.f_frsize
    return DiskUsage(
        used_mb=round(used / _MIB, 1), limit_mb=round(found.f_blocks * found.f_frsize / _MIB, 1)
    )


def network_usage(pid: int, *, proc: Path = Path("/proc")) -> NetworkUsage:
    """What came to and went from the network that a process is in, its loopback aside. Raises
    FileNotFoundError where it has ended."""
    lines = (proc / f"{pid}/net/dev").read_text().splitlines()[2:]
    found = [line.partition(":") for line in lines]
    counts = [fields.split() for name, _, fields in found if name.strip() != "lo"]
    return NetworkUsage(
        rx=sum(int(each[0]) for each in counts), tx=sum(int(each[8]) for each in counts)
    )


def _number(path: Path) -> int:
    text = path.read_text().strip()
    return -1 if text == "max" else int(text)


def _fields(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
