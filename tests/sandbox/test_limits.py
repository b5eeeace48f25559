"""Each limit, from inside a real sandbox by somebody who tries to break it. Needs python3 there."""

import json
import os
import shutil
import subprocess
import threading
import uuid
from pathlib import Path

import pytest
from support.waiting import until

from director.domain.policies import Hold, ResourceLimits, SecurityPolicy, effective
from director.domain.sandboxes import OUTPUT_LIMIT, Cause, SandboxSpec
from director.sandbox import disks
from director.sandbox.docker import DockerRuntime
from director.sandbox.limits import MASKED
from director.sandbox.metrics import Groups
from director.sandbox.runtime import SandboxError

pytestmark = pytest.mark.docker

MIB = 1024 * 1024


@pytest.fixture
def confined(make, runtime):
    """Make a sandbox of the test's own under limits; it is removed with all that it has."""
    made = []

    def confined(**fields):
        made.append(make(**fields))
        return made[-1]

    yield confined
    for sandbox in made:
        runtime.remove(sandbox)


@pytest.fixture
def python(run):
    """Run a program of Python in a sandbox; what it prints is JSON."""

    def python(sandbox, program, **more):
        outcome = run(sandbox, ["python3", "-c", program], **more)
        assert outcome.code == 0, outcome.stderr.decode()
        return json.loads(outcome.stdout)

    return python


def traces(home):
    """What disks leave on the host: mounts and loop devices. The kernel gives a device back when
    nobody has its mount any more: a container that starts meanwhile has a copy for a moment."""
    return disks.mounts_below(home), disks.loops_below(home)


def not_more(now, before):
    """Whether there is nothing that was not there before; of that some may have gone meanwhile."""
    return all(set(those) <= set(were) for those, were in zip(now, before, strict=True))


def test_memory_over_the_limit_is_an_oom_of_that_command_and_the_sandbox_goes_on(confined, run):
    sandbox = confined(memory_mib=64)
    hog = "x = bytearray(1)\nwhile True: x += bytes(1 << 20)"
    outcome = run(sandbox, ["python3", "-c", hog])
    assert (outcome.cause, outcome.code) == (Cause.OOM, 137)
    assert run(sandbox, "exit 0").code == 0


def test_memory_cannot_be_had_by_files_in_memory(confined, run):
    sandbox = confined(memory_mib=64, allow_filesystem=False)
    fill = "for place in /dev/shm /tmp; do dd if=/dev/zero of=$place/x bs=1M count=200; done"
    assert b"No space left" in run(sandbox, fill).stderr
    sizes = run(sandbox, "cat /dev/shm/x /tmp/x | wc -c").stdout
    assert int(sizes) <= 32 * MIB


def test_cpu_is_throttled_however_many_processes_ask(confined, python, engine):
    program = """
import json, os, resource, time
children = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        end = time.monotonic() + 2
        while time.monotonic() < end: pass
        os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps(used.ru_utime + used.ru_stime))
"""
    # A host that is busy gives less, never more: half of a core in 2 s, and a period's rest.
    sandbox = confined(cpus=0.5)
    used = python(sandbox, program)
    assert used < 1.5
    first = engine.api.inspect_container(f"director-{sandbox}")["State"]["Pid"]
    groups = Groups.of(first)
    stat = (groups.cpu_limit / "cpu.stat").read_text().split()
    # What held them was the limit, unless other work of the host left them less than that.
    assert groups.cores() == 0.5
    assert int(stat[stat.index("nr_throttled") + 1]) > 0 or used < 1


def test_processes_are_bounded_for_commands_together_and_the_supervisor_goes_on(
    confined, run, start, python
):
    sandbox = confined(max_processes=12)
    program = """
import json, os, time
n = 0
try:
    while n < 300:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        n += 1
except OSError as error:
    print(json.dumps([n, error.errno]), flush=True)
    time.sleep(60)
"""
    bomb = start(sandbox, ["python3", "-c", program])
    until(lambda: bomb.read("stdout", 0, 99).endswith(b"\n"), "it cannot fork any more")
    forked, error = json.loads(bomb.read("stdout", 0, 99))
    assert error == 11  # EAGAIN
    assert forked <= 12 + 32
    bomb.kill()
    assert bomb.wait(30).cause is Cause.KILLED
    assert run(sandbox, "exit 7").code == 7


def test_open_files_are_bounded_and_the_bound_cannot_be_raised(confined, python):
    program = """
import json, os, resource
found = []
try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
except (OSError, ValueError) as error:
    found.append(type(error).__name__)
try:
    while True: os.open("/dev/null", os.O_RDONLY)
except OSError as error:
    found.append(error.errno)
print(json.dumps(found))
"""
    refused, error = python(confined(max_open_files=50), program)
    assert refused in ("ValueError", "PermissionError")
    assert error == 24  # EMFILE


WRITE = """
import json, os, sys
written = 0
files = []
for place in ("/workspace", "/home/sandbox", "/tmp", "/app"):
    try:
        file = os.open(place + "/big", os.O_WRONLY | os.O_CREAT)
        while True: written += os.write(file, b"x" * 65536)
    except OSError as error:
        files.append(error.errno)
print(json.dumps([written, files]))
"""


def test_bytes_on_disk_are_bounded_over_all_folders_and_the_host_gives_no_more(
    confined, python, run, runtime, home
):
    sandbox = confined(disk_mib=32, allowed_paths=["/app"])
    folder = home / "sandboxes" / sandbox
    written, errors = python(sandbox, WRITE)
    assert errors == [28] * 4  # ENOSPC
    assert 30 * MIB <= written <= 34 * MIB
    taken = sum(image.stat().st_blocks * 512 for image in folder.glob("*.img"))
    assert taken < 48 * MIB
    # With the disk full a command still tells its output and how it ended.
    outcome = run(sandbox, "echo full; exit 3")
    assert (outcome.stdout, outcome.code, outcome.cause) == (b"full\n", 3, Cause.EXIT)


@pytest.fixture(scope="module")
def open_image(engine, image):
    """An image that has a folder for everybody and a volume for everybody, as hostile ones do."""
    made = engine.api.create_container(
        image, ["/bin/sh", "-c", "mkdir -p /data /open && chmod 1777 /data /open"]
    )
    name = f"director-test-{uuid.uuid4().hex[:12]}"
    try:
        engine.api.start(made["Id"])
        engine.api.wait(made["Id"])
        engine.api.commit(made["Id"], name, changes=["VOLUME /data"])
    finally:
        engine.api.remove_container(made["Id"], v=True, force=True)
    yield f"{name}:latest"
    engine.api.remove_image(f"{name}:latest", force=True)


@pytest.mark.parametrize("fields", [{"disk_mib": 16}, {"read_only_root": True}])
def test_what_an_image_lets_everybody_write_lies_on_no_disk_of_the_host(
    confined, run, open_image, fields
):
    control = confined(image=open_image)
    assert run(control, "echo x >/open/x && echo x >/data/x").code == 0
    sandbox = confined(image=open_image, **fields)
    for path in ("/open/x", "/data/x", "/var/tmp/x"):
        assert run(sandbox, f"echo x >{path}").code != 0, path
    assert run(sandbox, "echo x >/workspace/x && echo x >/tmp/x").code == 0


def test_volumes_that_an_image_declares_go_with_the_sandbox(
    confined, run, open_image, runtime, engine
):
    sandbox = confined(image=open_image)
    mounts = engine.api.inspect_container(f"director-{sandbox}")["Mounts"]
    (volume,) = [mount["Name"] for mount in mounts if mount["Type"] == "volume"]
    runtime.remove(sandbox)
    assert volume not in [one["Name"] for one in engine.api.volumes()["Volumes"] or []]


def test_an_allowed_path_that_is_a_file_in_the_image_is_refused_by_name(confined, run):
    with pytest.raises(
        SandboxError, match=r"/bin/ls is a file in image .*: name the folder"
    ) as told:
        confined(allowed_paths=["/srv", "/bin/ls"])
    assert not told.value.retryable


def test_inodes_on_disk_are_bounded(confined, python, home):
    sandbox = confined(disk_mib=16)
    program = """
import json, os
n = 0
try:
    while n < 100_000:
        os.mknod(f"/workspace/{n}", 0o600)
        n += 1
except OSError as error:
    print(json.dumps([n, error.errno]))
"""
    made, error = python(sandbox, program, timeout_ms=60_000)
    assert error == 28
    assert made < 6000


def test_what_commands_write_as_output_is_bounded_too_where_disk_is(confined, run, home):
    sandbox = confined(disk_mib=16)
    run(sandbox, "dd if=/dev/zero of=/director/claims/x bs=1M count=1000", timeout_ms=60_000)
    taken = (home / "sandboxes" / sandbox / "claims.img").stat().st_blocks * 512
    assert taken < 300 * MIB


def test_old_outputs_make_room_for_new_ones_where_disk_is_bounded(confined, run, home):
    sandbox = confined(disk_mib=16)
    folder = home / "sandboxes" / sandbox
    for _ in range(4):
        assert run(sandbox, f"head -c {OUTPUT_LIMIT - MIB} /dev/zero").cause is Cause.EXIT
        for record in (folder / "results").glob("*.json"):
            os.utime(record, (0, 0))
    outcome = run(sandbox, f"head -c {OUTPUT_LIMIT - MIB} /dev/zero; exit 4")
    assert (outcome.cause, outcome.code) == (Cause.EXIT, 4)
    assert len(outcome.stdout) == OUTPUT_LIMIT - MIB


def test_a_disk_leaves_nothing_and_other_sandboxes_have_none(confined, runtime, home, shared):
    before = traces(home)
    sandbox = confined(disk_mib=16, allowed_paths=["/app"])
    mounted, loops = (set(now) - set(then) for now, then in zip(traces(home), before, strict=True))
    assert {Path(place).name for place in mounted} == {
        "disk",
        "claims",
        "workspace",
        "home",
        "tmp",
        "allowed",
    }
    assert len(loops) == 2
    runtime.remove(sandbox)
    until(lambda: not_more(traces(home), before), "nothing is left")
    assert not (home / "sandboxes" / sandbox).exists()
    assert not [place for place in before[0] if shared in place]


def test_a_disk_that_a_killed_worker_left_behind_is_found_and_removed(
    runtime, home, image, engine, installation
):
    """Whatever was done before the kill: an image half made, mounts without their sandbox."""
    before = traces(home)
    spec = SandboxSpec(
        id=f"sbx_{uuid.uuid4().hex[:16]}", image=image, owner_id="run_1", disk_mib=16
    )
    runtime.create(spec)
    folder = home / "sandboxes" / spec.id
    engine.api.remove_container(f"director-{spec.id}", force=True)
    (folder / "made.json").unlink()
    (folder / "disk.new").write_bytes(b"half")
    later = DockerRuntime(engine, home, installation, {})
    assert spec.id in [each.id for each in later.sandboxes()]
    later.remove(spec.id)
    until(lambda: not_more(traces(home), before), "nothing is left")
    assert not folder.exists()


def test_a_disk_is_mounted_again_when_the_host_has_restarted(
    runtime, home, image, engine, run, confined
):
    sandbox = confined(disk_mib=16)
    run(sandbox, "echo kept > file")
    engine.api.kill(f"director-{sandbox}")
    disks.release(home / "sandboxes" / sandbox)
    spec = SandboxSpec(id=sandbox, image=image, owner_id="run_1", disk_mib=16)
    assert not runtime.create(spec).created
    assert run(sandbox, "cat file; df -m /workspace | tail -1").stdout.startswith(b"kept\n")
    assert [place for place in disks.mounts_below(home) if sandbox in place]


def test_a_disk_holds_files_that_the_host_writes_and_reads(confined, run, runtime):
    sandbox = confined(disk_mib=16)
    root = Path(runtime.workspace(sandbox).path())
    (root / "given").write_text("by the host")
    runtime.own(sandbox)
    assert run(sandbox, "cat given; echo back > made").stdout == b"by the host"
    assert runtime.workspace(sandbox).read("made", 99) == b"back\n"


WRITABLE = """
import json, os
found = []
def walk(folder, depth):
    try:
        probe = folder + "/.probe"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.unlink(probe)
        found.append(folder)
        return
    except OSError:
        pass
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False) and depth < 6:
            walk(entry.path, depth + 1)
for top in sorted(os.listdir("/")):
    if top not in ("proc", "sys"): walk("/" + top, 0)
print(json.dumps(sorted(found)))
"""


@pytest.mark.parametrize(
    ("fields", "folders"),
    [
        (
            {"read_only_root": True},
            ["/dev/mqueue", "/dev/shm", "/director/claims", "/home/sandbox", "/tmp", "/workspace"],
        ),
        (
            {"read_only_root": True, "allowed_paths": ["/app", "/var/cache/x", "/etc"]},
            [
                "/app",
                "/dev/mqueue",
                "/dev/shm",
                "/director/claims",
                "/etc",
                "/home/sandbox",
                "/tmp",
                "/var/cache/x",
                "/workspace",
            ],
        ),
        (
            {"allow_filesystem": False, "allowed_paths": ["/app"]},
            ["/dev/mqueue", "/dev/shm", "/director/claims", "/tmp"],
        ),
    ],
)
def test_nothing_else_can_be_written(confined, python, fields, folders):
    assert python(confined(**fields), WRITABLE) == folders


def test_allowed_folders_keep_their_files_and_are_the_sandboxs_own(confined, run, home):
    sandbox = confined(read_only_root=True, allowed_paths=["/app"])
    assert run(sandbox, "echo 1 > /app/x && cat /app/x && stat -c %u /app").code == 0
    assert (home / "sandboxes" / sandbox / "allowed" / "0" / "x").read_text() == "1\n"
    assert run(sandbox, "echo x > /x || echo x > /usr/x").code != 0


def test_blocked_paths_are_empty_and_cannot_be_opened_again(confined, run, python):
    blocked = ["/etc", "/root", "/usr/share", "/proc/cpuinfo", "/workspace/secret", "/app/keys"]
    sandbox = confined(allowed_paths=["/app"], blocked_paths=blocked)
    program = """
import json, os, pwd, socket, subprocess
found = {"etc": sorted(os.listdir("/etc"))}
for path in ("/root", "/usr/share", "/workspace/secret", "/app/keys"):
    try: found[path] = os.listdir(path)
    except PermissionError: found[path] = []
found["cpuinfo"] = open("/proc/cpuinfo").read()
tried = {}
for path in ("/etc/x", "/root/x", "/usr/share/x", "/workspace/secret/x", "/app/keys/x"):
    try: open(path, "w"); tried[path] = "written"
    except OSError as error: tried[path] = error.errno
for path in ("/workspace/secret", "/app/keys"):
    try: os.rmdir(path); tried[path] = "removed"
    except OSError as error: tried[path] = error.errno
found["tried"] = tried
found["me"] = pwd.getpwuid(os.getuid()).pw_name
found["localhost"] = socket.gethostbyname("localhost")
print(json.dumps(found))
"""
    found = python(sandbox, program)
    assert found["etc"] == ["group", "hostname", "hosts", "passwd"]
    assert (found["me"], found["localhost"]) == ("sandbox", "127.0.0.1")
    assert [found[path] for path in ("/root", "/usr/share", "/workspace/secret", "/app/keys")] == [
        []
    ] * 4
    assert found["cpuinfo"] == ""
    assert "written" not in found["tried"].values()
    assert "removed" not in found["tried"].values()
    assert run(sandbox, "umount /root || umount /etc || mount -t tmpfs x /mnt").code != 0


def test_a_link_that_the_sandbox_laid_leads_no_blocked_path_out_of_it(
    runtime, confined, run, make, home, engine, tmp_path, image
):
    """The folder of a blocked path is made by root on the host, in files that are hostile."""
    sandbox = confined()
    run(sandbox, f"ln -s {tmp_path} trap")
    engine.api.remove_container(f"director-{sandbox}", force=True)
    make(id=sandbox, blocked_paths=["/workspace/trap/deep"])
    assert list(tmp_path.iterdir()) == []


def test_what_engines_hide_of_the_kernel_stays_hidden_beside_blocked_paths(confined, python):
    sandbox = confined(blocked_paths=["/root"])
    program = f"""
import json, os
found = {{}}
for path in {list(MASKED)!r}:
    if not os.path.exists(path): continue
    try: found[path] = os.listdir(path) if os.path.isdir(path) else open(path).read(99)
    except OSError as error: found[path] = error.errno
try: open("/proc/sys/kernel/hostname", "w"); found["sys"] = 1
except OSError: pass
try: open("/proc/sysrq-trigger", "w"); found["sysrq"] = 1
except OSError: pass
print(json.dumps(found))
"""
    found = python(sandbox, program)
    assert {"/proc/keys", "/proc/timer_list", "/sys/firmware"} <= set(found)
    assert not [path for path, seen in found.items() if seen not in ([], "")]


CALLS = """
import ctypes, json, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    return (libc.syscall(number, *args), ctypes.get_errno())
found = {
    "io_uring_setup": call(425, 8, ctypes.create_string_buffer(128)),
    "io_uring_enter": call(426, 0, 0, 0, 0, None, 0),
    "io_uring_register": call(427, 0, 0, None, 0),
    "unshare_user": call(272, 0x10000000),
    "clone_user": call(56, 0x10000000 | 17, 0, 0, 0, 0),
    "clone3": call(435, ctypes.create_string_buffer(88), 88),
    "mount": call(165, b"x", b"/tmp", b"tmpfs", 0, None),
    "bpf": call(321, 0, None, 0),
    "keyctl": call(250, 0, 0),
    "add_key": call(248, b"user", b"x", b"x", 1, -3),
    "perf_event_open": call(298, None, 0, 0, 0, 0),
    "userfaultfd": call(323, 0),
    "kexec_load": call(246, 0, 0, None, 0),
    "init_module": call(175, None, 0, b""),
    "open_by_handle_at": call(304, 0, None, 0),
    "setns": call(308, 0, 0),
    "pivot_root": call(155, b"/tmp", b"/tmp"),
    "chroot": call(161, b"/tmp"),
    "reboot": call(169, 0xfee1dead, 672274793, 0, None),
    "setuid": call(105, 0),
}
for family in (17, 38, 40, 44):
    found[f"socket {family}"] = call(41, family, 3 if family == 17 else 1, 0)
print(json.dumps(found))
"""


def test_dangerous_system_calls_are_refused(shared, python):
    found = python(shared, CALLS)
    assert {name for name, (result, _) in found.items() if result != -1} == set()
    denied = {name: error for name, (_, error) in found.items()}
    assert {denied[name] for name in denied if name.startswith("io_uring")} == {38}  # ENOSYS
    others = {name: e for name, e in denied.items() if not name.startswith("io_uring")}
    assert {e for name, e in others.items() if name != "clone3"} == {1}  # EPERM
    assert denied["clone3"] == 38


def test_our_filter_of_system_calls_allows_what_programs_need(shared, python):
    program = """
import asyncio, json, multiprocessing, os, select, signal, socket, subprocess, threading
async def main():
    done = await asyncio.create_subprocess_exec("true")
    return await done.wait()
a, b = socket.socketpair()
a.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"\\0\\0\\0\\0")])
thread = threading.Thread(target=lambda: None); thread.start(); thread.join()
tcp = socket.create_server(("127.0.0.1", 0))
socket.create_connection(tcp.getsockname())
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
select.epoll(); os.eventfd(0); os.memfd_create("x"); os.pidfd_open(os.getpid())
with multiprocessing.Pool(2) as pool: numbers = pool.map(abs, [-1, -2])
print(json.dumps([asyncio.run(main()), numbers]))
"""
    assert python(shared, program) == [0, [1, 2]]


def test_node_runs_under_our_filter(shared, run):
    program = "require('fs').writeFileSync('n.txt','1');console.log(require('os').cpus().length>0)"
    assert run(shared, ["node", "-e", program]).stdout == b"true\n"


def test_a_program_that_belongs_to_root_with_setuid_gives_nothing(confined, run, home):
    """A file that the host itself might have left there: no-new-privileges and nosuid hold."""
    sandbox = confined(disk_mib=32)
    planted = home / "sandboxes" / sandbox / "workspace" / "busybox"
    shutil.copy("/bin/busybox", planted)
    planted.chmod(0o4755)
    assert run(sandbox, "./busybox id -u; ./busybox grep Cap /proc/self/status").stdout.split()[
        0
    ] not in (b"0", b"")


def test_output_over_the_cap_is_counted_and_not_kept(
    engine, home, installation, command, shared, ended
):
    small = DockerRuntime(engine, home, installation, {}, output_limit=1000)
    outcome = ended(small.run(shared, command("head -c 5000000 /dev/zero; exit 6")))
    assert (outcome.code, outcome.cause, len(outcome.stdout)) == (6, Cause.EXIT, 1000)
    assert outcome.result.stdout_bytes == 5_000_000
    assert outcome.result.truncated


def test_the_documents_sandbox_is_made_and_tells_how_each_field_is_held(runtime, image, run):
    limits = ResourceLimits.model_validate(
        {"cpu": 2.0, "memory": 1024, "disk": 2048, "network": False, "maxDuration": 300000}
    )
    security = SecurityPolicy.model_validate(
        {
            "allowFilesystem": True,
            "allowNetwork": False,
            "allowExec": True,
            "allowedPaths": ["/app"],
            "blockedPaths": ["/etc", "/root"],
            "readOnlyRoot": True,
            "noPrivileges": True,
        }
    )
    policy = effective([limits], [security], "isolated")
    base = SandboxSpec(id=f"sbx_{uuid.uuid4().hex[:16]}", image=image, owner_id="run_1")
    info = runtime.create(base.under(policy))
    try:
        held = policy.with_held(info.held).held
        assert {name: held[name].how for name in held} == dict.fromkeys(held, Hold.ENFORCED)
        assert {"memory", "cpu", "disk", "blockedPaths", "allowedPaths", "allowExec"} <= set(held)
        again = runtime.create(base.under(policy))
        assert (again.created, again.held) == (False, info.held)
        outcome = run(base.id, "echo 1 > /app/x; df -m /app | tail -1 | awk '{print $2}'")
        assert 2000 <= int(outcome.stdout) <= 2200
    finally:
        runtime.remove(base.id)


def test_many_sandboxes_with_disks_at_once_leave_nothing(runtime, image, home):
    before = traces(home)
    specs = [
        SandboxSpec(id=f"sbx_{uuid.uuid4().hex[:16]}", image=image, owner_id="run_1", disk_mib=16)
        for _ in range(6)
    ]

    def live(spec):
        runtime.create(spec)
        runtime.remove(spec.id)

    threads = [threading.Thread(target=live, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: not_more(traces(home), before), "nothing is left")
    listed = subprocess.run(["losetup", "-l"], check=True, capture_output=True, text=True).stdout
    assert not [spec.id for spec in specs if spec.id in listed]
