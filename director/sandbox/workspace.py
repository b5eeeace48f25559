"""A sandbox's `/workspace`, read from the host, which is root beside files it cannot trust."""

import fnmatch
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from director.sandbox.runtime import EntryKind, SandboxError

GLOB_ENTRIES = 200_000
"""Entries that one `glob` looks at before it gives up."""

GLOB_DEPTH = 64

_MOUNT = "/workspace"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class HostWorkspace:
    """Walks one component at a time and follows no link, wherever in a path it lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self) -> str:
        """The folder on the host."""
        return str(self._folder)

    def kind(self, path: str) -> EntryKind | None:
        """What lies at a path; None also for what lies outside or behind a link."""
        try:
            *parents, name = _parts(path) or ["."]
            folder = self._descend(parents)
        except OSError:
            return None
        try:
            return _kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        except OSError:
            return None
        finally:
            os.close(folder)

    def read(self, path: str, limit: int) -> bytes:
        """At most `limit` bytes of a regular file, from its beginning."""
        kind = self.kind(path)
        *parents, name = _parts(path) or ["."]
        if kind is None:
            self._explain(path, parents)
        if kind != "file":
            raise PermissionError(f"{path} is no regular file but: {kind}")
        folder = self._descend(parents)
        try:
            descriptor = os.open(name, _FILE, dir_fd=folder)
        except BlockingIOError:
            message = f"{path} is held by a process of the sandbox, so that nobody else may open it"
            raise PermissionError(message) from None
        finally:
            os.close(folder)
        return _read_regular(descriptor, path, limit)

    def _explain(self, path: str, parents: list[str]) -> None:
        for depth in range(1, len(parents) + 1):
            if self.kind("/".join(parents[:depth])) == "symlink":
                link = "/".join(parents[:depth])
                raise PermissionError(f"{path} lies behind the link {link}: name its real path")
        raise FileNotFoundError(f"{path} does not exist in {_MOUNT}")

    def glob(self, pattern: str) -> list[str]:
        """Paths of the regular files that match, sorted; `**` stands for any folders.

        Raises SandboxError when the workspace has too many entries to look at."""
        budget = [GLOB_ENTRIES]
        root = self._descend([])
        try:
            found = set(_search(root, "", _parts(pattern), budget))
        finally:
            os.close(root)
        return sorted(found)

    def _descend(self, parents: list[str]) -> int:
        folder = os.open(self._folder, _FOLDER)
        for name in parents:
            try:
                inner = os.open(name, _FOLDER, dir_fd=folder)
            finally:
                os.close(folder)
            folder = inner
        return folder


def _parts(path: str) -> list[str]:
    """Split a path relative to the workspace, or absolute below it, into its components."""
    pure = PurePosixPath(_MOUNT, path)
    if "\0" in path or ".." in pure.parts or not pure.is_relative_to(_MOUNT):
        raise PermissionError(f"{path!r} lies outside {_MOUNT}")
    return list(pure.relative_to(_MOUNT).parts)


def _kind(mode: int) -> EntryKind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def _read_regular(descriptor: int, path: str, limit: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PermissionError(f"{path} is no regular file")
        return file.read(max(limit, 0))


def _search(folder: int, prefix: str, parts: list[str], budget: list[int]) -> Iterator[str]:
    if not parts or prefix.count("/") > GLOB_DEPTH:
        return
    head, rest = parts[0], parts[1:]
    if head == "**":
        yield from _search(folder, prefix, rest or ["*"], budget)
    for name, kind in _entries(folder, budget):
        if kind == "file":
            if not rest and head != "**" and fnmatch.fnmatchcase(name, head):
                yield prefix + name
        elif head == "**":
            yield from _enter(folder, name, prefix, parts, budget)
        elif rest and fnmatch.fnmatchcase(name, head):
            yield from _enter(folder, name, prefix, rest, budget)


def _enter(
    folder: int, name: str, prefix: str, parts: list[str], budget: list[int]
) -> Iterator[str]:
    try:
        inner = os.open(name, _FOLDER, dir_fd=folder)
    except OSError:
        return  # it was replaced meanwhile
    try:
        yield from _search(inner, f"{prefix}{name}/", parts, budget)
    finally:
        os.close(inner)


def _entries(folder: int, budget: list[int]) -> Iterator[tuple[str, EntryKind]]:
    """Regular files and folders in a folder; each counts against the budget."""
    with os.scandir(folder) as entries:
        for entry in entries:
            budget[0] -= 1
            if budget[0] < 0:
                raise SandboxError(
                    f"the workspace has more than {GLOB_ENTRIES} entries to look through:"
                    " name a folder in the pattern",
                    retryable=False,
                )
            if entry.is_file(follow_symlinks=False):
                yield entry.name, "file"
            elif entry.is_dir(follow_symlinks=False):
                yield entry.name, "directory"
