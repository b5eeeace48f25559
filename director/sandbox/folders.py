"""What a sandbox has on the host's disk, who owns which part of it, and its lock."""

import errno
import fcntl
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from director.domain.sandboxes import DiskUsage, SandboxRecord, SandboxSpec
from director.sandbox.disks import Disk, bind, release
from director.sandbox.metrics import disk_usage
from director.sandbox.runtime import SandboxError, SandboxNotFoundError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_FIRST_UID = 200_001
_LAST_UID = 2**21 - 1  # what a ustar archive can hold

_FEW, _SHALLOW = 1000, 16
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

HOSTNAME = "sandbox"

_USERS = """\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
sandbox:x:{uid}:{uid}:sandbox:/home/sandbox:/bin/sh
"""
_RECENT_SECONDS = 60.0

_GROUPS = "root:x:0:\nnogroup:x:65534:\nsandbox:x:{uid}:\n"
_HOSTS = f"""\
127.0.0.1 localhost {HOSTNAME}
::1 ip6-localhost ip6-loopback
"""
_MOST_RESOLVERS = 3
_NOBODY = ("127.0.0.1",)
"""Where nobody answers: whoever asks for a name knows at once that there is none."""


def checked_id(text: str, what: str) -> str:
    """Give `text` back if it can be a file's and a container's name; raise SandboxError else."""
    if not _ID.fullmatch(text):
        raise SandboxError(
            f"{text[:80]!r} cannot be the id of a {what}: use at most 128 of A-Z a-z 0-9 _ . -"
            " and begin with a letter or digit",
            retryable=False,
        )
    return text


def sandbox_uid(sandbox_id: str) -> int:
    """Tell the uid of a sandbox: its own where we are root, else ours."""
    if os.geteuid() != 0:
        return os.geteuid()
    digest = hashlib.sha256(sandbox_id.encode()).digest()
    return _FIRST_UID + int.from_bytes(digest[:8]) % (_LAST_UID - _FIRST_UID + 1)


@dataclass(frozen=True)
class Room:
    """How much of the host's disk a sandbox may have, and for what."""

    disk_mib: int | None = None
    """For its workspace, home, `/tmp` and allowed folders together."""
    records_mib: int | None = None
    """For what its commands write to stdout and stderr."""
    allowed: tuple[str, ...] = ()
    """Names of further folders of the sandbox's own, below `allowed`."""
    hidden: tuple[str, ...] = ()
    """Folders that are there for nobody, so that the sandbox cannot put anything in their place."""


class SandboxFolder:
    """`home/sandboxes/<id>`: files that the sandbox sees, and records that it never sees."""

    def __init__(self, home: Path, sandbox_id: str) -> None:
        self.id = checked_id(sandbox_id, "sandbox")
        self.uid = sandbox_uid(sandbox_id)
        self.root = home / "sandboxes" / sandbox_id
        self.workspace = self.root / "workspace"
        self.home = self.root / "home"
        self.tmp = self.root / "tmp"
        self.spool = self.root / "spool"
        self.inbox = self.spool / "inbox"
        self.wake = self.spool / "wake"
        self.claims = self.root / "claims"
        self.allowed = self.root / "allowed"
        self.results = self.root / "results"
        self.passwd = self.root / "passwd"
        self.group = self.root / "group"
        self.hosts = self.root / "hosts"
        self.resolvers = self.root / "resolv.conf"
        self._made = self.root / "made.json"
        self._disk = Disk(self.root / "disk.img", self.root / "disk")
        self._records = Disk(self.root / "claims.img", self.claims)
        self._lock = self.root.with_name(f"{sandbox_id}.lock")

    def complete(self) -> bool:
        """Tell whether `make` has come to its end."""
        return self._made.exists()

    def require(self) -> None:
        """Raise SandboxNotFoundError unless the sandbox was made here."""
        if not self.complete():
            raise SandboxNotFoundError(self.id)

    def record(self) -> SandboxRecord:
        """What is known of the sandbox from its files; of an unfinished one it is little."""
        record = self._record()
        return SandboxRecord(
            id=self.id,
            owner=str(record.get("owner", "")),
            epoch=int(record.get("epoch", 0)),
            made_at=datetime.fromtimestamp(self.root.stat().st_mtime, UTC),
        )

    def max_processes(self) -> int | None:
        """Tell how many processes commands may have; None where the uid is not its own, since
        the kernel would count every process of that user."""
        return self._record().get("max_processes") if os.geteuid() == 0 else None

    def _record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads(self._made.read_text())
        except FileNotFoundError:
            return {}
        return record

    def keep_only(self, epoch: int) -> None:
        """Remove everything unless it was made to its end, for this epoch."""
        if self.root.exists() and not (self.complete() and self.record().epoch == epoch):
            self.remove()

    def make(self, spec: SandboxSpec, room: Room) -> None:
        """Make what is missing. What lies in the workspace already stays."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.root.parent.chmod(0o700)
        for path in (self.root, self.spool, self.inbox, self.results):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        self._make_disks(room)
        for path, mode in ((self.workspace, 0o755), (self.home, 0o755), (self.tmp, 0o1777)):
            self._make_theirs(path, mode)
        self._make_theirs(self.claims, 0o700)
        if room.allowed:
            self.allowed.mkdir(exist_ok=True)
        for name in room.allowed:
            self._make_theirs(self.allowed / name, 0o755)
        for hidden in room.hidden:
            self._make_hidden(PurePosixPath(hidden))
        if not self.wake.is_fifo():
            os.mkfifo(self.wake, 0o600)
        self.give(self.wake)
        self.passwd.write_text(_USERS.format(uid=self.uid))
        self.group.write_text(_GROUPS.format(uid=self.uid))
        network = spec.network
        self.tell_names(network.resolvers if network else (), network.names if network else {})
        record = {"owner": spec.owner_id, "epoch": spec.epoch, "max_processes": spec.max_processes}
        self._write(record)

    def limit_processes(self, most: int) -> None:
        """Let commands that begin from now on have so many processes."""
        self._write({**self._record(), "max_processes": most})

    def _write(self, record: dict[str, Any]) -> None:
        staged = self.root / ".made.json"
        staged.write_text(json.dumps(record))
        staged.replace(self._made)

    def tell_names(self, resolvers: Sequence[str], names: Mapping[str, Sequence[str]]) -> None:
        """Write whom the sandbox asks for names and which it knows by itself, into the very files
        that it sees."""
        known = "".join(f"{at} {name}\n" for name in sorted(names) for at in names[name])
        asked = list(resolvers)[:_MOST_RESOLVERS] or _NOBODY
        _put(self.hosts, _HOSTS + known)
        _put(
            self.resolvers,
            "".join(f"nameserver {each}\n" for each in asked) + "options timeout:2 attempts:2\n",
        )

    def _make_disks(self, room: Room) -> None:
        if room.disk_mib is not None:
            self._disk.make(room.disk_mib, self.uid)
        if room.records_mib is not None:
            self._records.make(room.records_mib, self.uid)
        self.attach()

    def attach(self) -> None:
        """Mount the disks of the sandbox, if it has any; a restart of the host unmounts them."""
        self._records.mount()
        if self._disk.image.exists():
            self._disk.mount()
            for place in (self.workspace, self.home, self.tmp, self.allowed):
                bind(self._disk.place / place.name, place)

    def _make_hidden(self, path: PurePosixPath) -> None:
        """Make a folder at a path below our folder, following no link that the sandbox laid; what
        is there already is hidden as it is."""
        folder = os.open(self.root, _FOLDER)
        try:
            for name in path.parts:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755, dir_fd=folder)
                    if os.geteuid() == 0:
                        os.chown(name, self.uid, self.uid, dir_fd=folder, follow_symlinks=False)
                inner = os.open(name, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
        except NotADirectoryError:
            pass  # a file, or a link; O_NOFOLLOW with O_DIRECTORY says this of both
        finally:
            os.close(folder)

    def disk_usage(self) -> DiskUsage:
        """How full the disk of the sandbox's own is, if it has one."""
        return disk_usage(self._disk.place, bounded=self._disk.image.exists())

    def make_room_for_records(self) -> None:
        """Forget the outputs of the oldest commands whose end is known for a while, where the
        disk for outputs is nearly full."""
        if not self._records.image.exists():
            return
        usage = os.statvfs(self.claims)
        if min(usage.f_bavail * 4 - usage.f_blocks, usage.f_favail * 4 - usage.f_files) > 0:
            return
        ended = sorted(self.results.glob("*.json"), key=lambda record: record.stat().st_mtime)
        old = [r for r in ended if r.stat().st_mtime < time.time() - _RECENT_SECONDS]
        there = [claim for r in old if os.path.lexists(claim := self.claims / r.stem)]
        for claim in there[: len(there) // 2 + 1]:
            _run(["rm", "-rf", "--", str(claim)])

    def _make_theirs(self, path: Path, mode: int) -> None:
        path.mkdir(exist_ok=True)
        path.chmod(mode)
        self.give(path)

    def give(self, path: Path, *, group_only: bool = False) -> None:
        """Let the sandbox's user own a path, or only its group; nothing to do unless root."""
        if os.geteuid() == 0:
            os.chown(path, -1 if group_only else self.uid, self.uid, follow_symlinks=False)

    def own_workspace(self) -> None:
        """Give all of the workspace to the sandbox's user. Links are not followed."""
        if os.geteuid() == 0:
            owner = f"{self.uid}:{self.uid}"
            _run(["chown", "-hRP", owner, "--", str(self.workspace)])

    def remove(self) -> None:
        """Remove everything, however deep it is and whatever its modes are. Idempotent.

        `rm` instead of `shutil`: that one recurses, and a hostile tree is deeper than a stack. A
        small tree is removed here: starting a process would take longer than that."""
        self._made.unlink(missing_ok=True)
        if self._disk.image.exists() or self._records.image.exists():
            release(self.root)
        with suppress(OSError):  # what it leaves, `rm` removes or explains
            _remove_few(str(self.root), None, _FEW, _SHALLOW)
        if not self.root.exists():
            return
        if os.geteuid() != 0:
            subprocess.run(  # what has mode 000 is not ours to enter otherwise
                ["chmod", "-R", "u+rwX", "--", str(self.root)], check=False, capture_output=True
            )
        _run(["rm", "-rf", "--", str(self.root)])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the sandbox's lock: over threads and over processes."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        descriptor = self._acquire()
        try:
            yield
        finally:
            if not self.root.exists():
                self._lock.unlink(missing_ok=True)
            os.close(descriptor)

    def _acquire(self) -> int:
        while True:
            descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            try:
                if os.path.samestat(os.fstat(descriptor), self._lock.stat()):
                    return descriptor
            except FileNotFoundError:
                pass  # whoever held it removed the sandbox
            os.close(descriptor)


def _put(path: Path, text: str) -> None:
    """Have a text in a file that is perhaps bound into a container: another file in its place
    would not be seen there."""
    content = text.encode()
    with suppress(FileNotFoundError):
        if path.read_bytes() == content:
            return
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.pwrite(file, content, 0)
        os.ftruncate(file, len(content))
    finally:
        os.close(file)


def _remove_few(path: str, within: int | None, most: int, depth: int) -> int:
    """Remove a tree of at most so many entries, so deep; gives how many it had less than that.
    Raises OSError where it cannot. Links are not followed."""
    folder = os.open(path, _FOLDER, dir_fd=within)
    try:
        with os.scandir(folder) as found:
            entries = list(islice(found, most + 1))
        most -= len(entries)
        if min(most, depth) < 0:
            raise OSError(errno.EFBIG, "too much for a small tree", path)
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                most = _remove_few(entry.name, folder, most, depth - 1)
            else:
                os.unlink(entry.name, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(path, dir_fd=within)
    return most


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SandboxError(
            f"{argv[0]} of a sandbox's files failed: {done.stderr.strip()[-300:]}", retryable=True
        )
