"""The rules for files that strangers hand in, be it as a tar, a zip or a JSON body."""

from contextlib import suppress
from dataclasses import dataclass

from director.blobs.contents import Contents
from director.blobs.store import Reader
from director.domain.errors import ValidationError
from director.domain.trees import MAX_PATH, Entry, PathError, Tree, normalise, parents, shown


@dataclass(frozen=True)
class ArchiveLimits:
    """How much may come out of an archive. Bytes are counted while they come, since what the
    archive says about its own size is a claim."""

    max_bytes: int = 1024**3
    max_entries: int = 100_000


class ArchiveError(ValidationError):
    """Files that were handed in are not taken; the message names the member and the reason."""

    def __init__(self, issue: str, *, member: bytes | None = None, what: str = "archive") -> None:
        name = None if member is None else shown(member)[:200]
        message = f"{what}: {issue}" if name is None else f"{what}: {name!r} {issue}"
        super().__init__(message, field=what, issue=issue, value=name)


class Members:
    """A tree that grows member by member; the last of two members of one path wins."""

    def __init__(self, contents: Contents, limits: ArchiveLimits, what: str = "archive") -> None:
        self.limits = limits
        self._contents = contents
        self._what = what
        self._entries: dict[bytes, Entry] = {}
        self._folders: set[bytes] = set()
        self._seen = 0
        self._bytes = 0

    def refused(self, raw: bytes | None, issue: str) -> ArchiveError:
        """Make the error that says why a member, or the whole, is not taken."""
        return ArchiveError(issue, member=raw, what=self._what)

    def has(self, raw: bytes) -> bool:
        """Tell whether there is a member of that path already, however it is spelled."""
        with suppress(PathError):
            return normalise(raw) in self._entries
        return False

    def add_file(self, raw: bytes, content: Reader, mode: int, mtime_ns: int) -> None:
        """Take a file: its content goes to the blobs as it comes."""
        path = self._room(raw, "file")
        metered = _Metered(self, raw, content)
        hash, size = self._contents.put(metered)
        self._entries[path] = Entry.file(path, mode, mtime_ns, size, hash)

    def add_directory(self, raw: bytes, mode: int, mtime_ns: int) -> None:
        """Take a folder, which its owner may always enter; the root is not part of a tree."""
        path = self._path(raw)
        if path:
            self._claim(raw, path, "directory")
            self._entries[path] = Entry.directory(path, mode | 0o700, mtime_ns)

    def add_symlink(self, raw: bytes, target: bytes, mtime_ns: int) -> None:
        """Take a symbolic link that stays within the tree."""
        path = self._room(raw, "symlink")
        if issue := _target_issue(path, target):
            raise self.refused(raw, f"is a symbolic link to {shown(target)[:200]!r}, {issue}")
        self._entries[path] = Entry.symlink(path, target, mtime_ns)

    def add_copy(self, raw: bytes, original: bytes) -> None:
        """Take a hard link as a copy of a member that came before it."""
        try:
            entry = self._entries.get(normalise(original))
        except PathError as error:
            issue = f"is a hard link to {shown(original)[:200]!r}, which {error}"
            raise self.refused(raw, issue) from None
        if entry is None or entry.kind == "directory":
            issue = f"is a hard link to {shown(original)[:200]!r}, which is no file before it"
            raise self.refused(raw, issue)
        if entry.kind == "symlink":
            return self.add_symlink(raw, entry.raw_target, entry.mtime_ns)
        path = self._room(raw, "file")
        self.spend(raw, entry.size)
        self._entries[path] = entry.moved(path)
        return None

    def spend(self, raw: bytes, count: int) -> None:
        """Count bytes that came out. Raises ArchiveError over the limit."""
        self._bytes += count
        if self._bytes > self.limits.max_bytes:
            issue = f"takes the unpacked content over the limit of {self.limits.max_bytes} bytes"
            raise self.refused(raw, issue)

    def tree(self) -> Tree:
        """Everything that was taken."""
        return self._contents.tree(list(self._entries.values()))

    def _path(self, raw: bytes) -> bytes:
        """Count a member and resolve its path; empty for the root itself."""
        self._seen += 1
        if self._seen > self.limits.max_entries:
            raise self.refused(None, f"it has more than {self.limits.max_entries} members")
        try:
            return normalise(raw)
        except PathError as error:
            raise self.refused(raw, str(error)) from None

    def _room(self, raw: bytes, kind: str) -> bytes:
        path = self._path(raw)
        if not path:
            raise self.refused(raw, f"is a {kind} in the place of the root")
        self._claim(raw, path, kind)
        return path

    def _claim(self, raw: bytes, path: bytes, kind: str) -> None:
        """Refuse a path that contradicts the members before it."""
        for parent in parents(path):
            above = self._entries.get(parent)
            if above is not None and above.kind != "directory":
                raise self.refused(raw, f"lies below {above.path!r}, which is a {above.kind}")
        there = self._entries.get(path)
        if there is not None and there.kind != kind:
            raise self.refused(raw, f"is there twice, as a {there.kind} and as a {kind}")
        if kind != "directory" and path in self._folders:
            raise self.refused(raw, f"is a {kind}, and other members lie below it")
        self._folders.update(parents(path))


class _Metered:
    """A member's content, counted against the limit."""

    def __init__(self, members: Members, raw: bytes, content: Reader) -> None:
        self._members = members
        self._raw = raw
        self._content = content

    def read(self, size: int, /) -> bytes:
        chunk = self._content.read(size)
        self._members.spend(self._raw, len(chunk))
        return chunk


def _target_issue(path: bytes, target: bytes) -> str | None:
    """Say why a link may not lead there. With `..` only in front, and every link alike, no chain
    of links can leave the tree; links that go down and up again could."""
    if target.startswith(b"/"):
        return "which is absolute"
    if not target or b"\0" in target or len(target) > MAX_PATH:
        return "which is no target that Linux takes"
    steps = [step for step in target.split(b"/") if step not in (b"", b".")]
    ups = next((at for at, step in enumerate(steps) if step != b".."), len(steps))
    if ups > path.count(b"/"):
        return "which leaves the tree"
    if b".." in steps[ups:]:
        return "which goes down and up again; write it without that detour"
    return None
