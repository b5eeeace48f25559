"""Archives through HTTP: what a client sends, and what is refused."""

import asyncio
import io
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from support.stack import Data, Stack

from director.api import archives
from director.api.errors import install_error_handlers
from director.api.middleware import RequestMiddleware
from director.api.tokens import Tokens
from director.blobs.store import LocalBlobs
from director.domain.times import utc_now
from director.domain.users import Role
from director.store import users
from director.store.engine import Store

Refusal = Callable[[httpx.Response, int, str], Data]

FILES = {"src/app.txt": b"hello", "bin/run.sh": b"#!/bin/sh\n"}


def tar(files: dict[str, bytes], mode: Any = "w:gz") -> bytes:
    """A tar of these files."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip of these files."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return target.getvalue()


async def upload(
    http: httpx.AsyncClient, content: Any, kind: str | None = "application/gzip", query: str = ""
) -> httpx.Response:
    """Send an archive as the raw body."""
    headers = {"Content-Type": kind} if kind else {}
    return await http.post(f"/archives{query}", content=content, headers=headers)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (tar(FILES), "application/gzip"),
        (tar(FILES, "w"), "application/x-tar"),
        (tar(FILES, "w:xz"), "application/octet-stream"),
        (zipped(FILES), "application/zip"),
        (zipped(FILES), None),
        (tar(FILES), "application/zip"),
    ],
)
async def test_an_archive_is_known_by_its_content(
    stack: Stack, content: bytes, kind: str | None
) -> None:
    response = await upload(stack.http, content, kind, "?name=my%20files")
    data = response.json()["data"]
    assert response.status_code == 201, response.text
    assert response.headers["location"] == f"/v1/archives/{data['id']}"
    assert (data["name"], data["fileCount"]) == ("my files", 2)
    assert data["totalBytes"] == sum(map(len, FILES.values()))
    assert await stack.call("GET", f"/archives/{data['id']}") == data


async def test_an_archive_may_come_in_chunks_of_unknown_length(stack: Stack) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        content = tar(FILES)
        for start in range(0, len(content), 50):
            yield content[start : start + 50]

    response = await upload(stack.http, chunks())
    assert response.json()["data"]["fileCount"] == 2


@pytest.mark.parametrize(
    "kind", ["multipart/form-data; boundary=x", "application/json", "APPLICATION/JSON; a=b"]
)
async def test_a_body_that_is_not_the_archive_itself_is_a_415(
    stack: Stack, refused: Refusal, kind: str
) -> None:
    details = refused(await upload(stack.http, tar(FILES), kind), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert "application/gzip" in details["message"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"garbage", "no tar or zip"),
        (tar(FILES)[:-30], "damaged"),
        (zipped(FILES)[:-30], ""),
        (b"\x1f\x8b" + b"garbage" * 100, "damaged"),
        (b"PK\x03\x04" + b"garbage" * 100, ""),
    ],
)
async def test_what_is_no_archive_is_a_400_that_says_so(
    stack: Stack, refused: Refusal, content: bytes, told: str
) -> None:
    details = refused(await upload(stack.http, content), 400, "VALIDATION_ERROR")
    assert details["field"] == "body"
    assert told in details["issue"]
    assert details["message"].startswith("the archive was refused: ")


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../../b", "x\x01/../../y"])
@pytest.mark.parametrize("pack", [tar, zipped])
async def test_a_member_that_would_leave_is_refused_by_its_name(
    stack: Stack, refused: Refusal, pack: Callable[[dict[str, bytes]], bytes], path: str
) -> None:
    content = pack({"good.txt": b"x", path: b"evil"})
    details = refused(await upload(stack.http, content), 400, "VALIDATION_ERROR")
    assert details["member"].rpartition("/")[2] == path.rpartition("/")[2]
    assert details["message"].count("archive") == 1


async def test_a_link_that_would_leave_is_refused_by_its_name(
    stack: Stack, refused: Refusal
) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        member = tarfile.TarInfo("innocent")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/shadow"
        archive.addfile(member)
    details = refused(await upload(stack.http, target.getvalue()), 400, "VALIDATION_ERROR")
    assert details["member"] == "innocent"
    assert "/etc/shadow" in details["issue"]


async def test_an_archive_that_says_that_it_is_too_large_is_refused_before_it_is_sent(
    stack: Stack,
) -> None:
    host, _, port = stack.url.removeprefix("http://").partition(":")
    head = (
        "POST /v1/archives HTTP/1.1\r\nHost: x\r\nContent-Type: application/gzip\r\n"
        f"Authorization: {stack.http.headers['Authorization']}\r\n"
        f"Content-Length: {1024**3}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.read(65536), 60)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.fixture
async def small(store: Store, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """An API that takes archives of a thousand bytes."""
    tokens = Tokens(["k" * 32])
    with store.write() as session:
        user = users.create_user(session, "ada", "hash", Role.OPERATOR)
        login = users.open_login(session, user.id, "hash", "refresh", utc_now())
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(archives.router)
    app.add_middleware(RequestMiddleware)
    app.state.store, app.state.tokens, app.state.max_upload = store, tokens, 1000
    app.state.blobs = LocalBlobs(tmp_path / "blobs")
    token = tokens.access(user.id, login or "", Role.OPERATOR)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://director",
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        yield client


async def test_an_archive_that_grows_too_large_is_cut_off_with_a_413(
    small: httpx.AsyncClient, refused: Refusal
) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 100
            yield b"x" * 100

    details = refused(await upload(small, chunks()), 413, "PAYLOAD_TOO_LARGE")
    assert (details["limitBytes"], sent <= 1200) == (1000, True)
    assert (await upload(small, tar(FILES))).status_code == 201


@pytest.mark.parametrize("query", ["?name=", "?name=a%00b", "?name=" + "x" * 201])
async def test_a_wrong_name_is_a_400(stack: Stack, refused: Refusal, query: str) -> None:
    response = await upload(stack.http, tar(FILES), query=query)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == "name"


async def test_somebody_elses_archive_is_neither_seen_nor_used(
    stack: Stack, operator: httpx.AsyncClient, refused: Refusal
) -> None:
    archive = (await upload(stack.http, tar(FILES))).json()["data"]["id"]
    refused(await operator.get(f"/archives/{archive}"), 404, "NOT_FOUND")
    session = (await operator.post("/sessions", json={"type": "a", "name": "x"})).json()["data"]
    body = {
        "sessionId": session["id"],
        "name": "w",
        "steps": [{"type": "execute", "command": "say hi"}],
        "workspace": {"archiveId": archive},
    }
    details = refused(await operator.post("/workflows", json=body), 400, "VALIDATION_ERROR")
    assert details["field"] == "workspace.archiveId"


async def test_a_run_finds_the_archives_files_and_its_own_on_top(stack: Stack) -> None:
    archive = (await upload(stack.http, tar(FILES))).json()["data"]["id"]
    run = await stack.run(
        "say begin",
        {"type": "verify", "criteria": "file exists bin/run.sh and file exists own.txt"},
        {
            "type": "verify",
            "criteria": {"type": "file", "path": "src/app.txt", "contains": "replaced"},
        },
        workspace={
            "archiveId": archive,
            "files": {"own.txt": "x", "src/app.txt": "replaced"},
        },
    )
    assert run["status"] == "completed", run["error"]


URL = "https://git.example.com/a.git"


@pytest.mark.parametrize(
    ("git", "field"),
    [
        ({"url": "http://git.example.com/a.git"}, "git.url"),
        ({"url": "https://ann:canary77@git.example.com/a.git"}, "git.url"),
        ({"url": "https://169.254.169.254/a.git"}, "git.url"),
        ({"url": "https://10.0.0.1/a.git"}, "git.url"),
        ({"url": URL, "ref": "--upload-pack=id"}, "git.ref"),
        ({"url": URL, "branch": "main"}, "git.branch"),
        ({"ref": "main"}, "git.url"),
    ],
)
async def test_a_repository_that_is_never_cloned_is_refused_by_name_and_told_without_secrets(
    operator: httpx.AsyncClient, refused: Refusal, git: Data, field: str
) -> None:
    session = (await operator.post("/sessions", json={"type": "a", "name": "x"})).json()["data"]
    steps = [{"type": "execute", "command": "say hi"}]
    workflow = {"sessionId": session["id"], "name": "w", "steps": steps}
    for route, body in (("/workflows", workflow), ("/sandboxes", {})):
        answer = await operator.post(route, json=body | {"workspace": {"git": git}})
        assert refused(answer, 400, "VALIDATION_ERROR")["field"] == f"workspace.{field}"
        assert "canary77" not in answer.text
    made = (await operator.post("/workflows", json=workflow)).json()["data"]["id"]
    answer = await operator.put(f"/workflows/{made}", json={"workspace": {"git": git}})
    assert refused(answer, 400, "VALIDATION_ERROR")["field"] == f"workspace.{field}"


async def test_a_run_from_a_repository_that_cannot_be_had_fails_and_says_why(
    stack: Stack,
) -> None:
    run = await stack.run("say hi", workspace={"git": {"url": URL}})
    assert run["status"] == "failed"
    assert "host git.example.com of the repository" in run["error"]["message"]
    assert run["workspace"] is None
