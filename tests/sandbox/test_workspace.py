"""The host reads a sandbox's files without being led out of the workspace."""

import os
from pathlib import Path

import pytest

from director.sandbox import workspace
from director.sandbox.runtime import SandboxError
from director.sandbox.workspace import HostWorkspace


@pytest.fixture
def files(tmp_path):
    """A workspace with what a hostile sandbox could put there, and a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "report.xml").write_text("secret")
    root = tmp_path / "workspace"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "report.xml").write_bytes(b"<x/>")
    (root / "top.xml").write_bytes(b"0123456789")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "a" / "up").symlink_to("../..")
    os.mkfifo(root / "fifo")
    return HostWorkspace(root)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("top.xml", "file"),
        ("/workspace/top.xml", "file"),
        ("a/b", "directory"),
        (".", "directory"),
        ("/workspace", "directory"),
        ("link", "symlink"),
        ("folder", "symlink"),
        ("fifo", "other"),
        ("nothing", None),
        ("top.xml/x", None),
        ("folder/report.xml", None),
        ("../secret", None),
        ("/etc/passwd", None),
        ("a/../../secret", None),
        ("x" * 5000, None),
        ("nul\0", None),
    ],
)
def test_the_kind_of_a_path_is_told_without_following_links(files, path, kind):
    assert files.kind(path) == kind


def test_a_regular_file_is_read_up_to_the_limit(files):
    assert files.read("top.xml", 4) == b"0123"
    assert files.read("/workspace/a/b/report.xml", 100) == b"<x/>"


@pytest.mark.parametrize(
    "path",
    ["link", "folder/report.xml", "a/up/secret", "fifo", "a", "../secret", "/etc/passwd", "."],
)
def test_what_is_no_regular_file_inside_is_refused(files, path):
    with pytest.raises(PermissionError):
        files.read(path, 100)


@pytest.mark.parametrize("path", ["nothing", "a/nothing/x", "top.xml/x"])
def test_a_missing_file_is_told_as_missing(files, path):
    with pytest.raises(FileNotFoundError):
        files.read(path, 100)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused(files):
    os.mknod(f"{files.path()}/device", 0o20666, os.makedev(1, 5))
    assert files.kind("device") == "other"
    with pytest.raises(PermissionError):
        files.read("device", 100)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.xml", ["top.xml"]),
        ("**/*.xml", ["a/b/report.xml", "top.xml"]),
        ("a/*/report.xml", ["a/b/report.xml"]),
        ("**/b/**", ["a/b/report.xml"]),
        ("folder/*.xml", []),
        ("/workspace/top.xml", ["top.xml"]),
        ("*", ["top.xml"]),
        ("none/*", []),
    ],
)
def test_a_glob_finds_regular_files_only(files, pattern, found):
    assert files.glob(pattern) == found


def test_a_glob_does_not_leave_the_workspace(files):
    with pytest.raises(PermissionError):
        files.glob("../*")


def test_a_glob_over_too_many_entries_is_refused(files, monkeypatch):
    monkeypatch.setattr(workspace, "GLOB_ENTRIES", 3)
    with pytest.raises(SandboxError, match="name a folder"):
        files.glob("**/*.xml")


@pytest.mark.docker
def test_files_that_the_host_wrote_can_be_given_to_the_sandbox(run, runtime, sandbox, tmp_path):
    given = Path(runtime.workspace(sandbox).path(), "given")
    given.mkdir(mode=0o700)
    (given / "file").write_text("x")
    outside = tmp_path / "outside"
    outside.touch()
    (given / "link").symlink_to(outside)
    runtime.own(sandbox)
    assert run(sandbox, "cat given/file && rm -r given").stdout == b"x"
    assert outside.stat().st_uid == os.geteuid()
