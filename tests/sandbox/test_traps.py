"""Files that a sandbox lays for whoever reads them from the host, who is root: nothing is followed,
nothing blocks, and nothing of the host's comes out. Needs python3 in the image."""

import io
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest
from support.waiting import until

from director.blobs.captures import capture
from director.blobs.contents import Reading
from director.blobs.store import LocalBlobs
from director.blobs.tar_streams import take
from director.blobs.trees import materialize
from director.domain.errors import (
    ConflictError,
    DirectorError,
    NotFoundError,
    PayloadTooLargeError,
)
from director.domain.trees import Entry, PathError, Tree
from director.sandbox.folders import sandbox_uid
from director.sandbox.runtime import SandboxError

pytestmark = [
    pytest.mark.usefixtures("host_unharmed"),
    pytest.mark.docker,
    pytest.mark.skipif(os.geteuid() != 0, reason="sandboxes have users of their own under root"),
    pytest.mark.timeout(60),
]

LAY = """
import ctypes, fcntl, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
host = sys.argv[1]
os.mkdir("traps")
os.chdir("traps")
os.symlink(host + "/secret", "link")
os.symlink(host, "folder")
os.symlink("../../../../../../../../.." + host, "relative")
os.symlink("loop", "loop")
os.symlink("/proc/self/root", "root")
os.symlink("/dev/zero", "endless")
os.symlink("/director/spool/wake", "wake")
os.mkfifo("fifo")
socket.socket(socket.AF_UNIX).bind("socket")
try: os.mknod("whiteout", 0o020666, os.makedev(0, 0))
except OSError: os.symlink("/dev/null", "whiteout")
os.mkdir("deep")
os.symlink(host, "deep/out")
with open("shut", "w") as file: file.write("mine")
os.chmod("shut", 0)
with open("plain", "w") as file: file.write("mine")
os.chmod("plain", 0o6755)
os.mkdir(b"\\xff\\n\\x1b[2J")
os.mkfifo(b"\\xff\\n\\x1b[2J/-rf")
signal.signal(signal.SIGIO, signal.SIG_IGN)
leased = os.open("leased", os.O_RDWR | os.O_CREAT)
os.write(leased, b"mine")
fcntl.fcntl(leased, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("laid", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def cell(make, runtime):
    """A sandbox whose files are traps."""
    sandbox = make(memory_mib=128)
    yield sandbox
    runtime.remove(sandbox)


@pytest.fixture(scope="module", autouse=True)
def laid(cell, canary, start):
    """The traps; whoever holds one file by a lease lives on."""
    words = ["python3", "-c", LAY, str(canary.folder)]
    execution = start(cell, words, timeout_ms=600_000)
    until(lambda: execution.read("stdout", 0, 9) == b"laid\n", "the traps are laid")
    return execution


@pytest.fixture(scope="module")
def files(runtime, cell, laid):
    """The workspace as the host reads it."""
    return runtime.workspace(cell)


@pytest.fixture
def blobs(tmp_path):
    return LocalBlobs(tmp_path / "blobs", fsync=False)


def content_in(blobs: LocalBlobs, entry: Entry) -> bytes:
    return b"".join(Reading(blobs).chunks(entry))


def tarred(root: Path) -> dict[str, bytes | None]:
    """What comes of a folder as a tar: the contents of files, and None for what is none."""
    taken = take(root, b"")
    try:
        content = io.BytesIO(b"".join(taken.blocks()))
    finally:
        taken.close()
    with tarfile.open(fileobj=content) as tar:
        return {m.name: tar.extractfile(m).read() if m.isreg() else None for m in tar}


TRAPS = [
    "link",
    "folder",
    "folder/secret",
    "relative/secret",
    "loop",
    "root/etc/passwd",
    "endless",
    "wake",
    "fifo",
    "socket",
    "whiteout",
    "leased",
    "deep/out/secret",
    "../../../../etc/shadow",
    "plain/../../../x",
]


@pytest.mark.parametrize("path", TRAPS)
def test_a_trap_is_not_read(files, path):
    begun = time.monotonic()
    with pytest.raises(OSError):
        files.read(f"traps/{path}", 1 << 20)
    with pytest.raises((NotFoundError, ConflictError, PathError)):
        take(Path(files.path()), f"traps/{path}".encode())
    assert time.monotonic() - begun < 10


def test_what_is_a_plain_file_is_read_whatever_its_mode_says(files):
    assert (files.read("traps/shut", 9), files.read("traps/plain", 9)) == (b"mine", b"mine")


@pytest.mark.parametrize("pattern", ["**/*", "traps/*", "traps/*/*", "**/secret", "**/**/**/**/x"])
def test_a_glob_finds_no_trap(files, pattern):
    found = files.glob(pattern)
    assert not {path.rpartition("/")[2] for path in found} - {"plain", "shut", "leased"}


def test_a_capture_takes_plain_files_and_tells_what_it_left(files, blobs, canary):
    begun = time.monotonic()
    found = capture(Path(files.path()), blobs)
    assert time.monotonic() - begun < 20
    taken = {entry.path: entry for entry in found.tree.entries}
    assert {path for path, entry in taken.items() if entry.kind == "file"} == {
        "traps/plain",
        "traps/shut",
    }
    assert taken["traps/plain"].mode == 0o755
    assert taken["traps/folder"].target == str(canary.folder)
    reasons = {skip.path: skip.reason for skip in found.skipped}
    assert reasons["traps/fifo"] == "is a FIFO"
    assert reasons["traps/socket"] == "is a socket"
    assert "held by a process" in reasons["traps/leased"]
    kept = [content_in(blobs, entry) for entry in found.tree.entries if entry.hash]
    assert kept == [b"mine", b"mine"]


def test_a_tar_has_plain_files_and_links_and_waits_for_nothing(files):
    begun = time.monotonic()
    found = tarred(Path(files.path()))
    assert time.monotonic() - begun < 20
    assert {path for path, content in found.items() if content is not None} == {
        "traps/plain",
        "traps/shut",
    }
    assert {"traps/link", "traps/folder", "traps/deep/out"} <= set(found)
    assert not {"traps/fifo", "traps/socket", "traps/leased"} & set(found)


def test_owners_change_within_the_workspace_only(runtime, cell, files):
    runtime.own(cell)
    lying = os.lstat(Path(files.path(), "traps", "link"))
    assert lying.st_uid == sandbox_uid(cell)


def test_files_that_are_put_where_a_trap_lies_take_its_place(files, blobs, canary):
    hash = blobs.put(b"given")
    places = ("traps/deep/out/secret", "traps/relative/new", "traps/wake", "traps/socket")
    tree = Tree.of(Entry.file(path.encode(), 0o644, 0, 5, hash) for path in places)
    materialize(tree, Path(files.path()), blobs)
    assert [files.read(path, 9) for path in places] == [b"given"] * 4


def test_a_file_of_terabytes_is_refused_before_it_is_read(make, runtime, run, blobs):
    sandbox = make()
    assert run(sandbox, "truncate -s 8T huge").code == 0
    begun = time.monotonic()
    workspace = runtime.workspace(sandbox)
    with pytest.raises(PayloadTooLargeError):
        capture(Path(workspace.path()), blobs)
    assert workspace.read("huge", 10) == bytes(10)
    assert time.monotonic() - begun < 20
    runtime.remove(sandbox)


FLIP = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
os.mkdir("flip")
with open("flip/secret", "w") as file: file.write("mine")
os.symlink(sys.argv[1], "flop")
print("flips", flush=True)
n = 0
while True:
    for _ in range(50): libc.syscall(316, -100, b"flip", -100, b"flop", 2)
    if os.path.islink("flip") or os.path.islink("flop"): continue
    try:  # the host has put a folder into the place of the link
        n += 1
        os.rename("flop", f"old{n}")
        os.symlink(sys.argv[1], "flop")
    except OSError: pass
"""


def test_a_folder_that_turns_into_a_link_and_back_all_the_time_leads_nowhere(
    runtime, make, start, blobs, canary
):
    """RENAME_EXCHANGE, some hundred thousand times a second, under each thing that a host does."""
    sandbox = make()
    flipping = start(sandbox, ["python3", "-c", FLIP, str(canary.folder)], timeout_ms=60_000)
    until(lambda: flipping.read("stdout", 0, 9) == b"flips\n", "it flips")
    workspace, read, kept = runtime.workspace(sandbox), set(), set()
    root = Path(workspace.path())
    given = blobs.put(b"given")
    tree = Tree.of([Entry.file(b"flip/new", 0o644, 0, 5, given)])

    def reading():
        read.add(workspace.read("flip/secret", 99))

    def searching():
        for path in workspace.glob("*/*"):
            read.add(workspace.read(path, 99))

    def capturing():
        found = capture(root, blobs).tree.entries
        kept.update(content_in(blobs, entry) for entry in found if entry.hash)
        kept.update(tarred(root).values())

    def owning():
        runtime.own(sandbox)

    def writing():
        materialize(tree, root, blobs)

    deadlines, tries = time.monotonic() + 2, 0
    while time.monotonic() < deadlines:
        for attempt in (reading, searching, capturing, owning, writing):
            tries += 1
            try:
                attempt()
            except (OSError, SandboxError, DirectorError):
                continue  # what was there is no more, or is something else: it may say so
    assert tries > 50
    assert read | kept <= {b"mine", b"given", b"", None}
    assert b"mine" in read
    runtime.remove(sandbox)


def test_a_removal_follows_no_trap_and_waits_for_none(make, runtime, start, canary, home):
    sandbox = make()
    words = ["python3", "-c", LAY, str(canary.folder)]
    execution = start(sandbox, words, timeout_ms=60_000)
    until(lambda: execution.read("stdout", 0, 9) == b"laid\n", "the traps are laid")
    removal = threading.Thread(target=runtime.remove, args=(sandbox,))
    removal.start()
    removal.join(15)
    assert not removal.is_alive()
    assert not (home / "sandboxes" / sandbox).exists()
