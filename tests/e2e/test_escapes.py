"""Ways out of a sandbox by what the API itself does for its owner: files, archives, verdicts,
checkpoints, policies, and its end. The host is as it was."""

import io
import stat
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from e2e.installation import Data, Installation, execute
from support.hosts import Canary, unharmed
from support.waiting import until

from director.sandbox.folders import sandbox_uid

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

SMALL: Data = {"resourceLimits": {"memory": 128}}


def made(director: Installation, **fields: Any) -> str:
    """Make a sandbox that runs; gives its id."""
    sandbox = director.user.call("POST", "/sandboxes?wait=30", {**SMALL, **fields})
    assert sandbox["status"] == "running", sandbox["error"]
    return str(sandbox["id"])


@pytest.fixture(scope="module")
def cell(director: Installation) -> Iterator[str]:
    """A sandbox that all share which leave it alive."""
    director.user.token()
    id = made(director)
    yield id
    director.user.token()
    director.user.call("DELETE", f"/sandboxes/{id}")


@pytest.fixture(scope="module")
def canary(cell: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """What is none of a sandbox's business."""
    canary = Canary(tmp_path_factory.mktemp("canary"), sandbox_uid(cell))
    yield canary
    canary.end()


@pytest.fixture(autouse=True)
def _unharmed(director: Installation, canary: Canary) -> Iterator[None]:
    director.user.token()
    with unharmed(director.home, canary):
        yield


def files(director: Installation, id: str, method: str, path: str, **sent: Any) -> httpx.Response:
    """What the route for files answers, within seconds."""
    begun = time.monotonic()
    found = director.user.http.request(
        method, f"/sandboxes/{id}/files", params={"path": path}, **sent
    )
    assert time.monotonic() - begun < 30
    return found


OUTSIDE = [
    "../secret",
    "../../../../../../../etc/passwd",
    "/etc/passwd",
    "/workspace/../etc/passwd",
    "/workspacex/file",
    "a/../../secret",
    "//etc/passwd",
    "nul\0byte",
    "x" * 5000,
    "/".join("x" * 300),
]


@pytest.mark.parametrize("method", ["GET", "PUT"])
@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: repr(path[:24]))
def test_no_name_of_a_file_leads_out_of_the_workspace(
    director: Installation, cell: str, method: str, path: str
) -> None:
    answered = files(director, cell, method, path, content=b"owned" if method == "PUT" else None)
    assert answered.status_code == 400, answered.text
    assert b"root:" not in answered.content


LAY = """
mkdir traps; cd traps
ln -s {host}/secret link; ln -s {host} folder; mkfifo fifo; ln -s /dev/zero endless
python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("socket")'
echo '<testsuite tests="1" name="x"><testcase name="a"/></testsuite>' >report.xml
ln -s {host}/secret report-2.xml; mkfifo report-3.xml
"""


@pytest.fixture(scope="module")
def trapped(director: Installation, cell: str, canary: Canary) -> str:
    """The sandbox, with traps in its workspace for whoever reads it."""
    ran = execute(director, cell, LAY.replace("{host}", str(canary.folder)))
    assert ran["exitCode"] == 0, ran
    return cell


@pytest.mark.parametrize("path", ["link", "folder", "folder/secret", "fifo", "socket", "endless"])
def test_a_trap_in_the_place_of_a_file_is_not_read(
    director: Installation, trapped: str, path: str
) -> None:
    answered = files(director, trapped, "GET", f"traps/{path}")
    assert answered.status_code == 404, answered.text


def test_a_folder_with_traps_comes_as_what_is_plain_in_there(
    director: Installation, trapped: str, canary: Canary
) -> None:
    answered = files(director, trapped, "GET", "traps")
    assert canary.secret.read_bytes() not in answered.content
    with tarfile.open(fileobj=io.BytesIO(answered.content)) as tar:
        kinds = {member.name: member.type for member in tar}
    assert kinds["report.xml"] == tarfile.REGTYPE
    assert {kinds.pop(name) for name in ("link", "folder", "endless")} == {tarfile.SYMTYPE}
    assert not {"fifo", "socket"} & set(kinds)


@pytest.mark.parametrize("path", ["folder/new", "link", "fifo"])
def test_what_is_put_where_a_trap_lies_stays_in_the_workspace(
    director: Installation, cell: str, canary: Canary, path: str
) -> None:
    where = f"put-{path.partition('/')[0]}"
    lay = f"mkdir {where} && cd {where} && ln -s {canary.folder} folder"
    execute(director, cell, f"{lay} && ln -s {canary.secret} link && mkfifo fifo")
    answered = files(director, cell, "PUT", f"{where}/{path}", content=b"given")
    assert answered.status_code == 200, answered.text
    assert files(director, cell, "GET", f"{where}/{path}").content == b"given"


def tar_of(*members: tuple[str, bytes, str]) -> bytes:
    """A tar of members, each with its kind and what it is a link to."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, kind, link in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = kind, link, 5 if kind == b"0" else 0
            member.mode, member.devmajor, member.devminor = 0o6777, 1, 1
            tar.addfile(member, io.BytesIO(b"owned") if kind == b"0" else None)
    return target.getvalue()


def bomb() -> bytes:
    """Some kilobytes that become more than a gigabyte."""
    made = zstandard.ZstdCompressor(level=1).compressobj()
    head = tarfile.TarInfo("zeros")
    head.size = 1100 * 1024 * 1024
    zeros = bytes(1024 * 1024)
    parts = [made.compress(head.tobuf())] + [made.compress(zeros) for _ in range(1100)]
    return b"".join([*parts, made.compress(bytes(10240)), made.flush()])


def overlapping() -> bytes:
    """A zip that claims to have far more members than it is long."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for number in range(100_001):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    return target.getvalue()


ARCHIVES = {
    "up": lambda: tar_of(("../owned", b"0", "")),
    "up-from-within": lambda: tar_of(("a/../../owned", b"0", "")),
    "absolute": lambda: tar_of(("/etc/owned", b"0", "")),
    "link-up": lambda: tar_of(("out", b"2", "../../../../etc")),
    "link-absolute": lambda: tar_of(("out", b"2", "/etc")),
    "file-below-a-link": lambda: tar_of(("out", b"2", "."), ("out/owned", b"0", "")),
    "hard-link": lambda: tar_of(("owned", b"1", "/etc/passwd")),
    "hard-link-up": lambda: tar_of(("owned", b"1", "../../etc/passwd")),
    "device": lambda: tar_of(("mem", b"3", "")),
    "disk": lambda: tar_of(("sda", b"4", "")),
    "fifo": lambda: tar_of(("fifo", b"6", "")),
    "bomb": bomb,
    "many": overlapping,
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_leads_out_or_never_ends_is_refused_as_a_whole(
    director: Installation, cell: str, name: str
) -> None:
    content = ARCHIVES[name]()
    kind = {"Content-Type": "application/zip" if content[:2] == b"PK" else "application/x-tar"}
    uploaded = director.user.http.post("/archives", content=content, headers=kind)
    assert uploaded.status_code in (400, 413), uploaded.text
    if name not in ("bomb", "many"):  # the same reader, and it takes seconds
        put = files(director, cell, "PUT", "unpacked", content=content, headers=kind)
        assert put.status_code in (400, 413), put.text
        assert execute(director, cell, "ls unpacked")["exitCode"] != 0


def test_files_of_an_archive_come_without_setuid(director: Installation, cell: str) -> None:
    content = tar_of(("su", b"0", ""))
    headers = {"Content-Type": "application/x-tar"}
    assert files(director, cell, "PUT", "rights", content=content, headers=headers).is_success
    mode = Path(director.home, "sandboxes", cell, "workspace", "rights", "su").stat().st_mode
    assert stat.S_IMODE(mode) == 0o777


@pytest.mark.parametrize(
    "fields",
    [
        {"privileged": True},
        {"volumes": ["/:/host"]},
        {"binds": ["/var/run/docker.sock:/var/run/docker.sock"]},
        {"devices": ["/dev/sda"]},
        {"capAdd": ["SYS_ADMIN"]},
        {"user": "root"},
        {"pidMode": "host"},
        {"runtime": "other"},
        {"networkMode": "host"},
        {"networkMode": "container:director-sbx_1"},
        {"image": "../../etc"},
        {"image": "x --privileged"},
        {"securityPolicy": {"allowedPaths": ["/proc/sys"]}},
        {"securityPolicy": {"allowedPaths": ["/sys/fs/cgroup"]}},
        {"securityPolicy": {"allowedPaths": ["/dev"]}},
        {"securityPolicy": {"allowedPaths": ["/director/tools"]}},
        {"securityPolicy": {"allowedPaths": ["/app/../etc"]}},
        {"securityPolicy": {"allowedPaths": ["/app:/etc"]}},
        {"securityPolicy": {"blockedPaths": ["/director"]}},
        {"environment": {"A=B; id": "x"}},
    ],
    ids=str,
)
def test_a_sandbox_with_a_part_of_the_host_is_not_made(
    director: Installation, fields: Data
) -> None:
    answered = director.user.http.post("/sandboxes", json={**SMALL, **fields})
    assert answered.status_code == 400, answered.text


def test_an_allowed_path_is_a_folder_of_the_sandbox_s_own_whatever_the_host_has_there(
    director: Installation,
) -> None:
    paths = ["/var/run/docker.sock", "/var/lib/docker", "/etc/ssh"]
    id = made(director, securityPolicy={"allowedPaths": paths})
    for path in paths:
        ran = execute(director, id, f"ls -A {path} && echo owned >{path}/secret && cat {path}/*")
        assert (ran["exitCode"], ran["stdout"]) == (0, "owned\n"), ran
    director.user.call("DELETE", f"/sandboxes/{id}")


def test_a_run_whose_workspace_is_full_of_traps_is_judged_and_kept_without_them(
    director: Installation, canary: Canary
) -> None:
    judged: list[Data] = [
        {"type": "file", "path": "traps/link", "contains": "the host"},
        {"type": "file", "path": "traps/folder/secret", "contains": "the host"},
        {"type": "file", "path": "traps/fifo", "contains": "x"},
        {"type": "file", "path": "traps/endless", "contains": "x"},
        {"type": "tests", "report": "traps/*.xml"},
    ]
    verifies = [{"type": "verify", "criteria": c, "onFailure": "continue"} for c in judged]
    lay = LAY.replace("{host}", str(canary.folder))
    begun = time.monotonic()
    run = director.user.run(lay, *verifies, {"type": "checkpoint", "name": "kept"})
    assert time.monotonic() - begun < 60
    assert canary.secret.read_text() not in str(run)
    verdicts = [step["result"]["passed"] for step in run["steps"][1:-1]]
    assert verdicts == [False, False, False, False, True]
    kept = run["steps"][-1]["result"]
    assert (kept["files"], kept["skipped"]) == (1, 3)


HOSTILE = {
    "stops-whoever-comes-in": "trap '' TERM; while :; do for p in /proc/[0-9]*; do p=${p#/proc/};"
    " [ $p = 1 ] || [ $p = $$ ] || kill -STOP $p; done; done 2>/dev/null",
    "replaced-its-records": "c=/director/claims/$DIRECTOR_EXECUTION; mv $c $c.old; ln -s / $c;"
    " sleep 600",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_sandbox_whose_command_fights_its_end_is_deleted(
    director: Installation, name: str
) -> None:
    id = made(director, command=HOSTILE[name])
    begun = time.monotonic()
    director.user.call("DELETE", f"/sandboxes/{id}")
    folder = Path(director.home, "sandboxes", id)
    until(
        lambda: not folder.exists() and not [one for one in director.containers() if id in one],
        "nothing of it is left",
    )
    assert time.monotonic() - begun < 50
    assert director.user.http.get(f"/sandboxes/{id}").status_code == 404
