"""`/sandboxes/{id}/files`: a file, or a tar for a folder, in and out of a sandbox's workspace."""

import asyncio
import tempfile
import time
from functools import partial
from typing import IO, Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from director.api.archives import LimitDep, read_upload, receive
from director.api.envelope import Answer, answer
from director.api.errors import documented
from director.api.principals import EditorDep, PrincipalDep
from director.api.state import BlobsDep, GatewayDep, StoreDep, TransfersDep
from director.api.transfers import Passed
from director.api.waiting import by_host
from director.blobs.contents import Contents
from director.blobs.store import Blobs, put_tree
from director.domain.errors import (
    ConflictError,
    NotFoundError,
    PayloadTooLargeError,
    UnavailableError,
    refused,
)
from director.domain.lifetimes import FilesWritten, WriteFiles
from director.domain.trees import Entry, PathError, Tree, normalise
from director.store import away, sandboxes
from director.store import blobs as blob_rows

router = APIRouter(prefix="/sandboxes/{sandbox_id}", tags=["sandboxes"])

_ARCHIVES = ("application/x-tar", "application/gzip", "application/zip", "application/zstd")
_IN_MEMORY = 4 * 1024 * 1024
_WORKSPACE = "/workspace"


def _path(text: str) -> bytes:
    """A path below the workspace, without that; empty is the workspace itself."""
    inside = text.removeprefix(_WORKSPACE)
    if text.startswith("/") and (inside == text or inside[:1] not in ("", "/")):
        raise refused("path", f"must lie below {_WORKSPACE}", text)
    try:
        return normalise(inside.lstrip("/").encode("utf-8", "surrogatepass"))
    except PathError as error:
        raise refused("path", str(error), text) from None


PathQuery = Annotated[
    str, Query(max_length=4096, description="Below `/workspace`, or relative to it.")
]


async def _host_to_change(sandbox_id: str, principal: EditorDep, store: StoreDep) -> str:
    return await store.fetch(lambda s: _host(s, principal, sandbox_id))


async def _host_to_read(sandbox_id: str, principal: PrincipalDep, store: StoreDep) -> str:
    return await store.fetch(lambda s: _host(s, principal, sandbox_id))


def _host(session: Session, principal: PrincipalDep, sandbox_id: str) -> str:
    row = sandboxes.get(session, principal, sandbox_id)
    sandboxes.check_has_files(row)
    away.check(session, row)  # before a large body is taken
    return row.host_id or ""


@router.put(
    "/files",
    operation_id="sandboxes.write",
    responses=documented(NotFoundError, ConflictError, PayloadTooLargeError, UnavailableError),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/octet-stream", *_ARCHIVES)
            },
        }
    },
)
async def write(
    request: Request,
    sandbox_id: str,
    host_id: Annotated[str, Depends(_host_to_change)],
    path: PathQuery,
    store: StoreDep,
    blobs: BlobsDep,
    gateway: GatewayDep,
    limit: LimitDep,
) -> Answer[FilesWritten]:
    """Put the body, as a file, to a path; a tar or zip, by its content type, is unpacked into the
    folder of that path."""
    where = _path(path)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        await receive(request, file, limit)
        tree = await asyncio.to_thread(_tree, file, where, kind in _ARCHIVES, blobs)
    hash = await asyncio.to_thread(put_tree, blobs, tree)
    await store.run(lambda session: blob_rows.hold_for_tree(session, hash, tree.blobs))
    asked = WriteFiles(sandbox_id=sandbox_id, tree=hash)
    call = partial(gateway.write_files, asked, host_id, uuid4().hex)
    return answer(await by_host(store, sandbox_id, call))


@router.get(
    "/files",
    operation_id="sandboxes.read",
    responses={
        **documented(NotFoundError, ConflictError, UnavailableError),
        200: {"content": {"application/octet-stream": {}, "application/x-tar": {}}},
    },
    response_class=StreamingResponse,
)
async def read(
    sandbox_id: str,
    host_id: Annotated[str, Depends(_host_to_read)],
    path: PathQuery,
    store: StoreDep,
    transfers: TransfersDep,
) -> StreamingResponse:
    """Get a file byte for byte, or a folder as a tar, while it is read in the sandbox: where that
    breaks off, so does the answer."""
    asked = partial(transfers.read, host_id, sandbox_id, _path(path))
    return Passed(await by_host(store, sandbox_id, asked))


def _tree(file: IO[bytes], where: bytes, archive: bool, blobs: Blobs) -> Tree:
    if archive:
        found = read_upload(file, blobs)
        under = where + b"/" if where else b""
        moved = (entry.moved(under + entry.raw_path) for entry in found.entries)
        return Tree.of(moved, found.sizes)
    if not where:
        raise refused("path", "names the workspace itself: name a file, or send a tar")
    with Contents(blobs) as contents:
        hash, size = contents.put(file)
        return contents.tree([Entry.file(where, 0o644, time.time_ns(), size, hash)])
