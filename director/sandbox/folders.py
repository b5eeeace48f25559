"""What a sandbox has on the host's disk, who owns which part of it, and its lock."""

import fcntl
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from director.domain.sandboxes import SandboxRecord, SandboxSpec
from director.sandbox.runtime import SandboxError, SandboxNotFoundError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_FIRST_UID = 200_001
_LAST_UID = 2**21 - 1  # what a ustar archive can hold

_USERS = """\
root:x:0:0:root:/root:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
sandbox:x:{uid}:{uid}:sandbox:/home/sandbox:/bin/sh
"""
_GROUPS = "root:x:0:\nnogroup:x:65534:\nsandbox:x:{uid}:\n"


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
        self.results = self.root / "results"
        self.passwd = self.root / "passwd"
        self.group = self.root / "group"
        self._made = self.root / "made.json"
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

    def make(self, spec: SandboxSpec) -> None:
        """Make what is missing. What lies in the workspace already stays."""
        self.root.parent.mkdir(parents=True, exist_ok=True)
        self.root.parent.chmod(0o700)
        for path in (self.root, self.spool, self.inbox, self.results):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        for path, mode in ((self.workspace, 0o755), (self.home, 0o755), (self.tmp, 0o1777)):
            self._make_theirs(path, mode)
        self._make_theirs(self.claims, 0o700)
        if not self.wake.is_fifo():
            os.mkfifo(self.wake, 0o600)
        self.give(self.wake)
        self.passwd.write_text(_USERS.format(uid=self.uid))
        self.group.write_text(_GROUPS.format(uid=self.uid))
        staged = self.root / ".made.json"
        record = {"owner": spec.owner_id, "epoch": spec.epoch, "max_processes": spec.max_processes}
        staged.write_text(json.dumps(record))
        staged.replace(self._made)

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

        `rm` instead of `shutil`: that one recurses, and a hostile tree is deeper than a stack."""
        self._made.unlink(missing_ok=True)
        if os.geteuid() != 0 and self.root.exists():
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


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SandboxError(
            f"{argv[0]} of a sandbox's files failed: {done.stderr.strip()[-300:]}", retryable=True
        )
