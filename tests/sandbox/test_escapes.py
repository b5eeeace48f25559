"""Ways out of a sandbox, tried from inside by somebody who means it; each is refused or contained,
and the host is as it was. `SECURITY.md` names what is promised. Needs python3 in the image."""

import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

import pytest
from support.waiting import until

from director.domain.sandboxes import Cause
from director.sandbox.docker import DockerRuntime
from director.sandbox.folders import sandbox_uid
from director.sandbox.metrics import Groups
from director.sandbox.runtime import SandboxError
from director.sandbox.tools import supervisor_name

pytestmark = [
    pytest.mark.usefixtures("host_unharmed"),
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes have users of their own under root"),
]

MIB = 1024 * 1024
EPERM, EACCES, EAGAIN, ENOSYS = 1, 13, 11, 38
TOOL = f"/director/tools/{supervisor_name()}"


@pytest.fixture(scope="module")
def cell(make, runtime):
    """A sandbox that all attempts share which leave it alive."""
    sandbox = make(id=f"sbx_{uuid.uuid4().hex[:16]}", memory_mib=256, max_processes=64)
    yield sandbox
    runtime.remove(sandbox)


@pytest.fixture(scope="module")
def tried(run, cell):
    """Run a program of Python in the shared sandbox; what it prints is JSON."""

    def tried(program, *words, sandbox=cell, **more):
        outcome = run(sandbox, ["python3", "-c", PRELUDE + program, *map(str, words)], **more)
        assert outcome.code == 0, outcome.stderr.decode()
        return json.loads(outcome.stdout)

    return tried


@pytest.fixture
def spared(make, runtime):
    """Make sandboxes of the test's own, which are removed though the test breaks them."""
    made = []

    def spared(**fields):
        made.append(make(**fields))
        return made[-1]

    yield spared
    for sandbox in made:
        runtime.remove(sandbox)


@pytest.fixture
def strict(engine, home, installation):
    """A runtime that has little patience with a supervisor that says nothing."""
    return DockerRuntime(engine, home, installation, {}, term_grace_ms=0, supervisor_seconds=0.5)


def alive(engine, sandbox):
    """Whether the container of a sandbox runs."""
    return engine.api.inspect_container(f"director-{sandbox}")["State"]["Running"]


PRELUDE = """
import ctypes, errno, json, mmap, os, signal, socket, stat, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *args)
    return [result, ctypes.get_errno()]
def error(attempt):
    try: attempt()
    except OSError as found: return found.errno or str(found)
    return None
"""

# Calls of the kernel

CALLS = {
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, None),
    "bind-mount": (165, b"/proc", b"/tmp", None, 4096, None),
    "remount": (165, None, b"/", None, 32, None),
    "umount": (166, b"/proc", 2),
    "pivot-root": (155, b"/tmp", b"/tmp"),
    "chroot": (161, b"/tmp"),
    "open-tree": (428, -100, b"/", 1),
    "move-mount": (429, -100, b"/tmp", -100, b"/home", 0),
    "fsopen": (430, b"tmpfs", 0),
    "fspick": (433, -100, b"/", 0),
    "mount-setattr": (442, -100, b"/", 0, None, 0),
    "unshare-user": (272, 0x10000000),
    "unshare-mount": (272, 0x00020000),
    "unshare-network": (272, 0x40000000),
    "unshare-processes": (272, 0x20000000),
    "unshare-cgroup": (272, 0x02000000),
    "clone-user": (56, 0x10000000 | 17, 0, 0, 0, 0),
    "clone-mount": (56, 0x00020000 | 17, 0, 0, 0, 0),
    "clone-network": (56, 0x40000000 | 17, 0, 0, 0, 0),
    "clone3": (435, None, 88),
    "setns": (308, 0, 0),
    "ptrace-read": (310, 1, None, 0, None, 0, 0),
    "ptrace-write": (311, 1, None, 0, None, 0, 0),
    "kcmp": (312, 1, 1, 0, 0, 0),
    "pidfd-getfd": (438, 0, 0, 0),
    "init-module": (175, None, 0, b""),
    "finit-module": (313, 0, b"", 0),
    "delete-module": (176, b"ext4", 0),
    "kexec-load": (246, 0, 0, None, 0),
    "kexec-file": (320, 0, 0, 0, None, 0),
    "bpf": (321, 0, None, 0),
    "perf-event": (298, None, 0, 0, 0, 0),
    "userfaultfd": (323, 0),
    "keyctl": (250, 0, 0),
    "add-key": (248, b"user", b"x", b"x", 1, -3),
    "request-key": (249, b"user", b"x", None, 0),
    "io-uring-setup": (425, 8, None),
    "io-uring-enter": (426, 0, 0, 0, 0, None, 0),
    "io-uring-register": (427, 0, 0, None, 0),
    "open-by-handle": (304, 0, None, 0),
    "name-to-handle": (303, -100, b"/", None, None, 0),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0, None),
    "swap": (167, b"/tmp/x", 0),
    "accounting": (163, b"/tmp/x"),
    "quota": (179, 0, None, 0, None),
    "kernel-log": (103, 3, None, 0),
    "ports": (172, 3),
    "port-range": (173, 0, 1, 1),
    "set-time": (164, None, None),
    "set-clock": (227, 0, None),
    "host-name": (170, b"owned", 5),
    "domain-name": (171, b"owned", 5),
    "fanotify": (300, 0, 0),
    "no-randomisation": (135, 0x0040000),
    "setuid": (105, 0),
    "setgid": (106, 0),
    "setgroups": (116, 1, b"\0\0\0\0"),
    "real-time": (144, 0, 1, b"\x01\0\0\0"),
    "nice": (141, 0, 0, -20),
    "io-priority": (251, 1, 0, 1 << 13),
    "memory-device": (133, b"/tmp/mem", 0o20666, 0x101),
    "disk-device": (133, b"/tmp/disk", 0o60666, 0x800),
    "packet-socket": (41, 17, 3, 0),
    "raw-socket": (41, 2, 3, 255),
    "vsock": (41, 40, 1, 0),
    "kernel-crypto": (41, 38, 5, 0),
}

CALL = """
found = {}
for name, (number, *args) in eval(sys.argv[1]).items():
    found[name] = call(number, *args)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def called(tried):
    """What the kernel answered to each call."""
    return tried(CALL, repr(CALLS))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of calls are of x86-64")
@pytest.mark.parametrize("name", CALLS)
def test_a_call_that_leads_out_of_a_sandbox_is_refused(called, name):
    result, error = called[name]
    assert result == -1
    assert error in (EPERM, EACCES, ENOSYS), os.strerror(error)


OTHERS = """
def by_x32():
    numbers = {"mount": 165, "unshare": 272, "bpf": 321, "keyctl": 250, "io_uring": 425}
    return {name: call(n | 0x40000000, 0x10000000, 0, 0)[0] for name, n in numbers.items()}
def by_i386():
    code = bytes.fromhex("53 89f8 89f3 89d6 89ca 89f1 31f6 31ff cd80 5b c3")
    page = mmap.mmap(-1, 4096, prot=7)
    page.write(code)
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    call32 = ctypes.CFUNCTYPE(*[ctypes.c_int] * 5)(place)
    numbers = {"mount": 21, "unshare": 310, "bpf": 357, "keyctl": 288, "io_uring": 425,
               "clone": 120, "chroot": 61, "init_module": 128, "perf": 336, "setns": 346,
               "socketcall": 102, "iopl": 110, "kexec": 283, "vm86": 166}
    first = {"clone": 0x10000011}
    return {name: call32(n, first.get(name, 0x10000000), 1, 0) for name, n in numbers.items()}
def apart(attempt):
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, json.dumps(attempt()).encode())
        os._exit(0)
    os.close(write)
    said = os.read(read, 65536)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return [status, json.loads(said or b"{}")]
print(json.dumps({each.__name__: apart(each) for each in (by_x32, by_i386)}))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="other ways to call are of x86-64")
def test_the_kernel_s_other_doors_have_the_same_filter(tried):
    """32-bit calls have other numbers; a filter that forgets them stands beside an open door."""
    for status, answers in tried(OTHERS).values():
        # A kernel without such calls kills whoever tries them.
        assert answers or status in (-signal_of("SEGV"), -signal_of("SYS"))
        assert {name: answer for name, answer in answers.items() if answer >= 0} == {}


def signal_of(name):
    return {"SEGV": 11, "SYS": 31}[name]


PROGRAMS = {
    "nsenter": "nsenter -t 1 -m -n -p true",
    "unshare": "unshare -U true",
    "mount": "mount -t tmpfs none /tmp",
    "umount": "umount /proc",
    "chroot": "chroot / true",
    "pivot-root": "pivot_root /tmp /tmp",
    "switch-root": "switch_root /tmp /bin/sh",
    "insmod": "insmod /tmp/x.ko",
    "losetup": "losetup /dev/loop0 /etc/passwd",
    "hostname": "hostname owned",
    "clock": "adjtimex -t 1",
    "dmesg": "dmesg",
    "mknod": "mknod /tmp/sda b 8 0",
    "swapon": "swapon /tmp/x",
    "sysctl": "sysctl -w kernel.hostname=owned",
    "devmem": "devmem 0",
    "setpriv": "setpriv --inh-caps +sys_admin true",
    "su": "su -c id",
    "poweroff": "poweroff -f",
    "chown": "chown 0 /workspace",
    "openvt": "openvt true",
    "tracepoint": "ls /sys/kernel/debug/tracing /sys/kernel/tracing/events",
    "cgroup": "mkdir /sys/fs/cgroup/escape /sys/fs/cgroup/memory/escape",
}


def planted(home, sandbox, mode):
    """Many programs in one that belongs to root, in the workspace."""
    place = home / "sandboxes" / sandbox / "workspace" / "busybox"
    if not place.exists():
        shutil.copy("/bin/busybox", place)
    place.chmod(mode)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_administrators_does_nothing(run, cell, home, name):
    planted(home, cell, 0o755)
    outcome = run(cell, f"exec ./busybox {PROGRAMS[name]}", timeout_ms=5000)
    assert outcome.cause is Cause.EXIT
    assert outcome.code != 0
    assert b"applet not found" not in outcome.stderr


def test_a_program_with_setuid_gives_no_rights(run, home, spared):
    """One that belongs to root, as an image may have it: the shared sandbox's own is harmless."""
    sandbox = spared()
    planted(home, sandbox, 0o6755)
    said = run(sandbox, "./busybox id -u; ./busybox id -g; ./busybox grep CapEff /proc/self/status")
    uid = str(sandbox_uid(sandbox)).encode()
    assert said.stdout.split() == [uid, uid, b"CapEff:", b"0" * 16]


# Files of the kernel and of the engine

KERNEL_FILES = [
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/randomize_va_space",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/irq/default_smp_affinity",
    "/proc/mtrr",
    "/proc/kcore",
    "/proc/kmsg",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
    "/sys/firmware/acpi/tables",
    "/sys/fs/cgroup/release_agent",
    "/sys/fs/cgroup/memory/release_agent",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/devices/devices.allow",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/port",
    "/dev/sda",
    "/dev/vda",
    "/dev/loop-control",
    "/dev/loop0",
    "/dev/fuse",
    "/dev/kvm",
    "/dev/net/tun",
    "/dev/mapper/control",
    "/dev/cpu/0/msr",
]

OPEN = """
print(json.dumps({path: error(lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK)))
                  for path in json.loads(sys.argv[1])}))
"""


@pytest.fixture(scope="module")
def opened(tried):
    """What became of opening each file of the kernel to write to it."""
    return tried(OPEN, json.dumps(KERNEL_FILES))


@pytest.mark.parametrize("path", KERNEL_FILES)
def test_a_file_of_the_kernel_is_not_there_or_cannot_be_opened_to_be_written(opened, path):
    assert opened[path] is not None


EVERYTHING = """
found, tried = [], 0
for top in ("/proc/sys", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/tty", "/sys"):
    for folder, _, names in os.walk(top):
        for name in names:
            tried += 1
            path = os.path.join(folder, name)
            if error(lambda: os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))) is None:
                found.append(path)
print(json.dumps([tried, found]))
"""


def test_nothing_at_all_below_proc_sys_and_sys_can_be_opened_to_be_written(tried):
    count, found = tried(EVERYTHING)
    assert count > 1000
    assert found == []


def test_memory_cannot_be_kept_from_the_one_who_kills_for_want_of_it(tried):
    program = """
file = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
print(error(lambda: os.write(file, b"-1000")))
"""
    assert tried(program) == EACCES


DEVICES = """
found = {"devices": [], "sockets": [], "setuid": []}
for folder, folders, names in os.walk("/"):
    if folder == "/": folders[:] = [name for name in folders if name not in ("proc", "sys")]
    for name in names:
        path = os.path.join(folder, name)
        try: about = os.lstat(path)
        except OSError: continue
        if stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode): found["devices"].append(path)
        if stat.S_ISSOCK(about.st_mode): found["sockets"].append(path)
        if about.st_mode & 0o6000: found["setuid"].append(path)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def walked(tried):
    """What lies in a sandbox that is no plain file."""
    return tried(DEVICES)


def test_there_are_no_devices_but_the_harmless(walked):
    harmless = r"/dev/(null|zero|full|u?random|tty|console|ptmx|pts/(ptmx|\d+))"
    assert [path for path in walked["devices"] if not re.fullmatch(harmless, path)] == []
    assert "/dev/null" in walked["devices"]


def test_there_is_no_socket_of_an_engine_or_of_anybody(walked, run, cell):
    assert walked["sockets"] == []
    for path in ("/var/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus"):
        assert run(cell, ["ls", path]).code != 0


def test_the_default_image_brings_no_program_with_setuid(walked):
    assert walked["setuid"] == []


def test_a_command_inherits_nothing_of_the_host_that_is_open(engine, start, cell):
    """Seen from outside, for the first process, the supervisor, and a command."""
    execution = start(cell, "echo up; exec sleep 20")
    until(lambda: execution.read("stdout", 0, 9) == b"up\n", "it runs")
    first = engine.api.inspect_container(f"director-{cell}")["State"]["Pid"]
    inside, targets = Path(f"/proc/{first}/ns/pid").readlink(), set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "ns/pid").readlink() == inside:
                targets |= {os.readlink(fd) for fd in (process / "fd").iterdir()}
        except OSError:
            continue
    execution.kill()
    ours = r"pipe:\[\d+\]|/dev/null|/director/(tools|spool|claims)/.*|/proc/.*|anon_inode:.*"
    assert [target for target in targets if not re.fullmatch(ours, target)] == []
    assert "/dev/null" in targets


@pytest.mark.parametrize("number", [3, 4, 5, 6, 7, 8, 9, 10])
def test_a_working_directory_by_an_open_file_leads_nowhere(run, cell, number):
    """As with engines that left a folder of the host open in there (CVE-2024-21626)."""
    outcome = run(cell, "cat ../../../../../../../etc/hostname", workdir=f"/proc/self/fd/{number}")
    assert outcome.code != 0 or outcome.stdout == b"sandbox\n"


def test_the_root_of_every_process_in_there_is_the_sandbox_s_own(tried):
    program = """
roots = {}
for pid in os.listdir("/proc"):
    if not pid.isdigit(): continue
    for name in ("root", "cwd"):
        try: roots[f"{pid}/{name}"] = os.listdir(f"/proc/{pid}/{name}/../../../../director")
        except OSError as found: roots[f"{pid}/{name}"] = None
print(json.dumps(roots))
"""
    found = tried(program)
    seen = [names for names in found.values() if names is not None]
    assert seen
    assert [names for names in seen if set(names) != {"claims", "spool", "tools"}] == []


def test_the_programs_of_the_host_that_run_in_there_cannot_be_overwritten(tried):
    program = """
found = {}
for path in ("/proc/1/exe", "/proc/self/exe", sys.argv[1], "/sbin/docker-init",
             "/director/tools"):
    found[path] = [error(lambda: open(path, "r+b")), error(lambda: os.chmod(path, 0o777)),
                   error(lambda: os.rename(path, "/tmp/gone"))]
print(json.dumps(found))
"""
    for path, errors in tried(program, TOOL).items():
        assert None not in errors, path


def test_no_file_of_the_host_can_be_linked_into_the_sandbox_s_own_folders(tried, home, cell):
    program = """
found = {}
for path in ("/etc/hostname", "/etc/passwd", sys.argv[1], "/director/spool/wake",
             "/proc/1/exe", "/dev/null"):
    for place in ("/workspace", "/tmp", "/home/sandbox", "/director/claims", "/dev/shm"):
        found[path + place] = error(lambda: os.link(path, place + "/linked"))
print(json.dumps(found))
"""
    assert [where for where, error in tried(program, TOOL).items() if error is None] == []
    assert not list((home / "sandboxes" / cell).glob("*/linked"))


def test_a_file_cannot_be_made_so_that_nobody_can_remove_it(run, cell):
    """Immutable and append-only files would outlive their sandbox."""
    program = """
import fcntl
with open("kept", "w") as file:
    for flag in (0x10, 0x20):
        try: fcntl.ioctl(file, 0x40086602, struct.pack("l", flag)); print("set")
        except OSError as found: print(found.errno)
"""
    said = run(cell, ["python3", "-c", PRELUDE + program]).stdout.split()
    assert b"set" not in said
    assert len(said) == 2


# Other sandboxes and the host's processes

ACROSS = """
pid = int(sys.argv[1])
class Iov(ctypes.Structure): _fields_ = [("base", ctypes.c_void_p), ("len", ctypes.c_size_t)]
found = {
    "signal": error(lambda: os.kill(pid, 0)),
    "kill": error(lambda: os.kill(pid, signal.SIGKILL)),
    "pidfd": error(lambda: os.pidfd_open(pid)),
    "trace": call(101, 16, pid, 0, 0)[1],
    "seize": call(101, 0x4206, pid, 0, 0)[1],
    "memory": error(lambda: open(f"/proc/{pid}/mem", "r+b")),
    "root": error(lambda: os.listdir(f"/proc/{pid}/root/")),
    "environment": error(lambda: open(f"/proc/{pid}/environ").read()),
    "limits": call(302, pid, 7, None, None)[1],
    "affinity": error(lambda: os.sched_setaffinity(pid, {0})),
    "priority": error(lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)),
}
print(json.dumps(found))
"""
ESRCH, ENOENT = 3, 2


@pytest.fixture(scope="module")
def neighbour(make, runtime, start, engine):
    """Another sandbox, and the host's number of a process that runs in there."""
    sandbox = make(memory_mib=64)
    execution = start(sandbox, "echo up; exec sleep 1234", timeout_ms=600_000)
    until(lambda: execution.read("stdout", 0, 9) == b"up\n", "it runs")
    top = engine.api.top(f"director-{sandbox}", ps_args="-eo pid,args")["Processes"]
    yield sandbox, next(int(pid) for pid, args in top if args == "sleep 1234")
    runtime.remove(sandbox)


def standing(pid):
    """What others could do to a process, as the kernel tells it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    told = dict(line.split(":", 1) for line in lines)
    return {name: told[name] for name in ("State", "TracerPid", "SigPnd", "ShdPnd", "Cpus_allowed")}


@pytest.mark.parametrize("whose", ["neighbour", "host"])
def test_a_process_elsewhere_can_be_neither_seen_nor_signalled_nor_traced(
    tried, canary, neighbour, whose
):
    """The host's has the same uid as the sandbox, which would be enough where it can be seen."""
    pid = canary.pid if whose == "host" else neighbour[1]
    before = standing(pid)
    found = tried(ACROSS, pid)
    assert {name: error for name, error in found.items() if error not in (ESRCH, ENOENT)} == {}
    assert standing(pid) == before


def test_only_its_own_processes_are_in_a_sandbox_s_list(tried, canary, neighbour):
    program = """
print(json.dumps([open(f"/proc/{pid}/cmdline").read() for pid in os.listdir("/proc")
                  if pid.isdigit() and os.path.exists(f"/proc/{pid}/cmdline")]))
"""
    listed = tried(program)
    assert [line for line in listed if "1234" in line or "600" in line.split("\0")] == []
    assert len(listed) < 20


MEETING = """
name, found = sys.argv[1], {}
key = int(name[-6:], 16)
if sys.argv[2] == "leave":
    call(29, key, 4096, 0o1666), call(64, key, 1, 0o1666), call(68, key, 0o1666)
    open(f"/dev/shm/{name}", "w").write("x")
    open(f"/tmp/{name}", "w").write("x")
    call(240, name.encode(), 0o102, 0o666, None)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("\\0" + name)
    listener.listen()
    server = socket.create_server(("127.0.0.1", 7777))
    print("up", flush=True)
    time.sleep(60)
found = {
    "shared memory": call(29, key, 4096, 0)[1],
    "semaphores": call(64, key, 1, 0)[1],
    "messages": call(68, key, 0)[1],
    "files in memory": error(lambda: open(f"/dev/shm/{name}")),
    "files": error(lambda: open(f"/tmp/{name}")),
    "queues": call(240, name.encode(), 2, 0, None)[1],
    "abstract socket": error(lambda: socket.socket(socket.AF_UNIX).connect("\\0" + name)),
    "loopback": error(lambda: socket.create_connection(("127.0.0.1", 7777), 1)),
}
print(json.dumps(found))
"""
ECONNREFUSED = 111


def test_two_sandboxes_meet_nowhere(tried, neighbour, start):
    name = f"meeting-{uuid.uuid4().hex[:6]}"
    words = ["python3", "-c", PRELUDE + MEETING, name, "leave"]
    left = start(neighbour[0], words, timeout_ms=60_000)
    until(lambda: left.read("stdout", 0, 9) == b"up\n", "everything is left there")
    found = tried(MEETING, name, "look")
    left.kill()
    assert set(found.values()) == {ENOENT, ECONNREFUSED}
    assert [what for what, error in found.items() if error == ECONNREFUSED] == [
        "abstract socket",
        "loopback",
    ]


def test_a_signal_to_everybody_ends_a_sandbox_and_nobody_else(
    run, sandbox, cell, neighbour, engine, canary
):
    assert run(sandbox, "kill -9 -1; sleep 70").cause is Cause.LOST
    assert alive(engine, cell)
    assert alive(engine, neighbour[0])
    assert Path(f"/proc/{neighbour[1]}").exists()


# The network

REACH = """
addresses, tcp, udp, name = json.loads(sys.argv[1]), *map(int, sys.argv[2:4]), sys.argv[4]
def stream(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.settimeout(2)
        one.connect((address, port))
def datagram(address, port, content=b"x"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as one:
        one.settimeout(2)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        one.sendto(content, (address, port))
def echo(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as one:
        one.sendto(b"\\x08\\0\\xf7\\xff\\0\\0\\0\\0", (address, 0))
query = b"\\x12\\x34\\x01\\0\\0\\x01" + b"\\0" * 6 + b"\\x06secret\\x07example\\0\\0\\x01\\0\\x01"
attempts = {f"tcp {a}": lambda a=a: stream(a, tcp) for a in addresses}
attempts |= {f"udp {a}": lambda a=a: datagram(a, udp) for a in addresses}
attempts |= {f"icmp {a}": lambda a=a: echo(a) for a in addresses if ":" not in a}
attempts |= {
    "metadata": lambda: stream("169.254.169.254", 80),
    "metadata by IPv6": lambda: stream("fd00:ec2::254", 80),
    "dns": lambda: datagram("8.8.8.8", 53, query),
    "dns to the engine": lambda: datagram("127.0.0.11", 53, query) or stream("127.0.0.11", 53),
    "dns by name": lambda: socket.getaddrinfo("secret.example.com", 80),
    "broadcast": lambda: datagram("255.255.255.255", udp),
    "multicast": lambda: datagram("224.0.0.251", 5353, query),
    "abstract socket": lambda: socket.socket(socket.AF_UNIX).connect("\\0" + name),
}
print(json.dumps({what: error(attempt) for what, attempt in attempts.items()}))
"""


class Listeners:
    """Who would hear of it on the host, at every address, if anything came."""

    def __init__(self):
        self.name = f"director-escape-{uuid.uuid4().hex[:8]}"
        both = socket.has_dualstack_ipv6()
        family, everywhere = (socket.AF_INET6, "::") if both else (socket.AF_INET, "0.0.0.0")
        self.tcp = socket.create_server((everywhere, 0), family=family, dualstack_ipv6=both)
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        if both:
            self.udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.udp.bind((everywhere, 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(f"\0{self.name}")
        self.unix.listen()
        self._all = (self.tcp, self.udp, self.unix)
        for each in self._all:
            each.setblocking(False)

    @staticmethod
    def addresses():
        said = subprocess.run(
            ["ip", "-j", "address"], check=True, capture_output=True, text=True
        ).stdout
        interfaces = [one for one in json.loads(said) if "UP" in one["flags"]]
        found = {info["local"] for one in interfaces for info in one["addr_info"]}
        return sorted(address for address in found if not address.startswith("fe80"))

    def heard(self):
        """What came to one of them."""
        found = []
        for listener in self._all:
            try:
                if listener is self.udp:
                    found.append(listener.recv(100))
                else:
                    listener.accept()[0].close()
                    found.append(listener.getsockname())
            except BlockingIOError:
                continue
        return found

    def close(self):
        for each in self._all:
            each.close()


@pytest.fixture(scope="module")
def reached(tried):
    """What became of each attempt to reach somebody, and what the host heard of them."""
    listeners = Listeners()
    try:
        ports = listeners.tcp.getsockname()[1], listeners.udp.getsockname()[1]
        addresses = listeners.addresses()
        socket.create_connection((addresses[0], ports[0])).close()
        assert listeners.heard(), "the host hears what does come"
        words = (json.dumps(addresses), *ports, listeners.name)
        yield tried(REACH, *words, timeout_ms=60_000), listeners.heard()
    finally:
        listeners.close()


REACHED = [
    "tcp",
    "udp",
    "icmp",
    "metadata",
    "dns",
    "broadcast",
    "multicast",
    "abstract socket",
]


@pytest.mark.parametrize("how", REACHED)
def test_an_isolated_sandbox_reaches_nobody(reached, how):
    found, heard = reached
    mine = {what: error for what, error in found.items() if what.startswith(how)}
    assert mine
    its_own = {"udp 127.0.0.1", "udp ::1", "icmp 127.0.0.1"}
    assert [what for what, error in mine.items() if error is None and what not in its_own] == []
    assert heard == []


# What is left over when somebody breaks what watches over commands


def test_nobody_looks_into_those_who_watch_over_commands_or_takes_them_over(tried):
    """The supervisor and the watcher have the user of the command that tries."""
    program = """
found = {}
watcher = os.getppid()
supervisor = int(open(f"/proc/{watcher}/stat").read().rpartition(")")[2].split()[1])
for pid in (watcher, supervisor):
    for name in ("environ", "maps", "mem"):
        found[f"{pid}/{name}"] = error(lambda: open(f"/proc/{pid}/{name}", "rb").read(1))
    for name in ("fd", "map_files"):
        found[f"{pid}/{name}"] = error(lambda: os.listdir(f"/proc/{pid}/{name}"))
    found[f"{pid}/cwd"] = error(lambda: os.listdir(f"/proc/{pid}/cwd"))
    for what, number in (("attach", 16), ("seize", 0x4206)):
        found[f"{pid}/{what}"] = call(101, number, pid, 0, 0)[1] or None
names = [open(f"/proc/{pid}/comm").read()[:10] for pid in (watcher, supervisor)]
print(json.dumps([names, found]))
"""
    names, found = tried(program)
    assert names == ["watcher\n", "supervisor"]
    assert [what for what, error in found.items() if error is None] == []


STOP_THE_SUPERVISOR = """
for p in /proc/[0-9]*; do
    grep -q ^supervisor $p/comm && kill -STOP ${p#/proc/}
done
true
"""


def test_a_command_after_one_that_stopped_the_supervisor_is_lost_and_not_waited_for_for_ever(
    strict, command, run, spared, engine
):
    sandbox = spared()
    run(sandbox, STOP_THE_SUPERVISOR)
    result = strict.run(sandbox, command("touch ran")).wait(30)
    assert result is not None
    assert result.cause is Cause.LOST
    assert strict.workspace(sandbox).kind("ran") is None
    assert not alive(engine, sandbox)


STOP_ALL = """
trap '' TERM
echo up
sleep 0.2
while :; do
    for p in /proc/[0-9]*; do
        p=${p#/proc/}
        [ $p = 1 ] || [ $p = $$ ] || kill -STOP $p
    done
done 2>/dev/null
"""


def test_a_sandbox_that_stops_whoever_comes_in_is_stopped_all_the_same(
    runtime, start, spared, engine
):
    sandbox = spared()
    execution = start(sandbox, STOP_ALL, timeout_ms=60_000)
    until(lambda: execution.read("stdout", 0, 9) == b"up\n", "it runs")
    begun = time.monotonic()
    runtime.stop(sandbox, 1)
    assert time.monotonic() - begun < 30
    assert not alive(engine, sandbox)


REPLACED = {
    "claim-by-a-link": "mv $c $c.old; ln -s / $c",
    "claim-by-a-fifo": "mv $c $c.old; mkfifo $c",
    "claim-by-a-file": "mv $c $c.old; : >$c",
    "end-by-a-link": "ln -s {secret} $c/exit",
    "end-by-a-fifo": "mkfifo $c/exit",
    "end-by-a-folder": "mkdir $c/exit",
    "output-by-a-link": "rm $c/stdout; ln -s {secret} $c/stdout",
    "output-by-a-fifo": "rm $c/stdout; mkfifo $c/stdout",
    "output-by-a-device": "rm $c/stdout; ln -s /dev/zero $c/stdout",
    "output-by-a-socket": 'rm $c/stdout; python3 -c "import socket as s;'
    " s.socket(1).bind('$c/stdout')\"",
    "output-of-a-terabyte": "truncate -s 1T $c/stdout",
    "end-of-a-terabyte": "truncate -s 1T $c/exit",
    "end-held-by-a-lease": "{lease}",
    "end-that-is-no-end": "echo exit 0 1 99999999999999999999 +0 >$c/exit; kill -9 $PPID",
    "end-in-large-numbers": "echo exit 999 999999999999999 +999999999999999999"
    " +999999999999999999 >$c/exit; kill -9 $PPID",
}
LEASE = (
    'python3 -c "import fcntl, os, signal, time; signal.signal(29, signal.SIG_IGN);'
    " f = os.open('$c/exit', os.O_RDWR | os.O_CREAT); fcntl.fcntl(f, 1024, 1);"
    " os.write(f, b'exit 0 1 +0 +0'); time.sleep(20)\" & sleep 0.5"
)


SEEN = {name for name in REPLACED if name.split("-by-")[0] in ("claim", "end", "output")} | {
    "end-held-by-a-lease"
}
"""What no end, or output, can be read from."""


def outcome(execution):
    """What a command is told to have written."""
    result = execution.wait(30)
    assert result is not None
    seen = execution.read("stdout", 0, 1 << 40)
    assert len(seen) <= 64 * MIB
    return seen


@pytest.mark.parametrize("name", REPLACED)
def test_records_that_a_command_replaced_lead_the_host_nowhere_and_hold_it_up_for_no_time(
    runtime, command, spared, engine, canary, name
):
    sandbox = spared(memory_mib=64)
    script = REPLACED[name].replace("{secret}", str(canary.secret)).replace("{lease}", LEASE)
    there = "until [ -e $c/stdout ]; do sleep 0.01; done"
    asked = command(f"c=/director/claims/$DIRECTOR_EXECUTION; {there}; {script}; echo said; exit 3")
    execution, begun = runtime.run(sandbox, asked), time.monotonic()
    if name in SEEN:
        with pytest.raises(SandboxError, match="replaced from inside"):
            outcome(execution)
    else:
        assert canary.secret.read_bytes() not in outcome(execution)
    assert time.monotonic() - begun < 40
    begun = time.monotonic()
    runtime.stop(sandbox, 0.5)
    runtime.remove(sandbox)
    assert time.monotonic() - begun < 30


def test_a_command_that_was_claimed_in_advance_ends_and_is_never_believed_to_go_on(
    strict, command, run, spared
):
    sandbox = spared()
    asked = command("touch ran", timeout_ms=500)
    run(sandbox, f"mkdir /director/claims/{asked.id}")
    result = strict.run(sandbox, asked).wait(30)
    assert result is not None
    assert result.cause in (Cause.LOST, Cause.TIMEOUT)


def test_a_flood_of_calls_to_the_supervisor_is_outlived(run, cell):
    run(cell, "timeout 1 yes 'run ../../../etc' >/director/spool/wake; true")
    assert run(cell, "exit 7").code == 7


# Bombs


def test_open_files_without_end_take_none_from_the_host(start, spared):
    sandbox = spared(max_open_files=128, max_processes=16, memory_mib=128)
    program = """
children = 0
try:
    while children < 100:
        if os.fork() == 0:
            try:
                while True: os.pipe()
            except OSError: time.sleep(60)
        children += 1
except OSError: pass
print(json.dumps(children), flush=True)
time.sleep(60)
"""

    def taken():
        return int(Path("/proc/sys/fs/file-nr").read_text().split()[0])

    before = taken()
    bomb = start(sandbox, ["python3", "-c", PRELUDE + program])
    until(lambda: bomb.read("stdout", 0, 99).endswith(b"\n"), "it can start no more")
    assert int(bomb.read("stdout", 0, 99)) <= 16 + 32
    assert taken() - before < 48 * 128 * 2
    bomb.kill()
    assert bomb.wait(30) is not None


MEMORY = {
    "shared-memory": """
libc.shmat.restype = ctypes.c_void_p
while True:
    id = call(29, 0, 1 << 20, 0o1600)[0]
    ctypes.memset(libc.shmat(id, None, 0), 1, 1 << 20)
    os.write(1, b".")
""",
    "memory-files": """
kept = []
while True:
    kept.append(os.memfd_create("x"))
    os.write(kept[-1], b"x" * (1 << 20))
    os.write(1, b".")
""",
    "pipes": """
import fcntl
kept, got = [], 0
while True:
    kept.append(os.pipe2(os.O_NONBLOCK))
    fcntl.fcntl(kept[-1][1], 1031, 1 << 20)
    try:
        while True: os.write(kept[-1][1], b"x" * 65536)
    except BlockingIOError: os.write(1, b".")
""",
    "sockets": """
kept, got = [], 0
while True:
    kept.append(socket.socketpair())
    kept[-1][0].setblocking(False)
    try:
        while True: got += kept[-1][0].send(b"x" * 65536)
    except BlockingIOError: pass
    while got > 1 << 20: got -= os.write(1, b".") << 20
""",
}


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_of_any_kind_is_bounded_by_the_sandbox_s_own(run, spared, engine, kind):
    sandbox = spared(memory_mib=64, max_open_files=4096)
    outcome = run(sandbox, ["python3", "-c", PRELUDE + MEMORY[kind]], timeout_ms=10_000)
    assert (outcome.cause, outcome.code) == (Cause.OOM, 137)
    assert 16 <= outcome.stdout.count(b".") <= 64
    first = engine.api.inspect_container(f"director-{sandbox}")["State"]["Pid"]
    assert Groups.of(first).memory_limit() == 64 * MIB
    assert run(sandbox, "exit 7").code == 7


def test_output_without_end_is_drained_and_fills_nothing(runtime, command, home, cell):
    execution = runtime.run(cell, command("yes", timeout_ms=1500))
    result = execution.wait(30)
    assert (result.cause, result.truncated) == (Cause.TIMEOUT, True)
    claim = home / "sandboxes" / cell / "claims"
    assert max(path.stat().st_size for path in claim.glob("*/stdout")) <= 64 * MIB


def test_ten_thousand_files_and_a_path_without_end_are_removed(run, make, runtime, home, engine):
    sandbox = make()
    program = """
for folder in range(10):
    os.mkdir(f"{folder}")
    for n in range(1000): os.mknod(f"{folder}/{n}")
for name in (b"\\xff\\xfe", b"-rf", b"\\n\\x1b[2J", b"x" * 255, b" "): os.mkdir(name)
for _ in range(1500):
    os.mkdir("d")
    os.chdir("d")
"""
    outcome = run(sandbox, ["python3", "-c", PRELUDE + program], timeout_ms=60_000)
    assert outcome.code == 0, outcome.stderr
    runtime.remove(sandbox)
    assert not (home / "sandboxes" / sandbox).exists()
    assert not engine.api.containers(all=True, filters={"label": f"director.sandbox={sandbox}"})
