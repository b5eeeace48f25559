"""`/archives`: files that a run's workspace is filled from."""

import asyncio
import hashlib
import tempfile
from collections.abc import Callable
from typing import IO, Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from sqlmodel import Session

from director.api.answers import added
from director.api.envelope import Answer, answer
from director.api.errors import documented
from director.api.idempotency import SentDep, content_of
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import check_declared, too_large
from director.api.state import BlobsDep, StoreDep
from director.blobs.archives import ArchiveError, read_archive
from director.blobs.store import Blobs, put_tree
from director.domain.archives import Archive
from director.domain.base import Name
from director.domain.errors import (
    MediaTypeError,
    NotFoundError,
    PayloadTooLargeError,
    ValidationError,
)
from director.domain.ids import ARCHIVE, new_id
from director.domain.trees import Tree
from director.store import archives
from director.store import blobs as blob_rows
from director.store.idempotency import Reply
from director.store.tables import ArchiveRow

router = APIRouter(prefix="/archives", tags=["archives"])

MAX_UPLOAD = 256 * 1024 * 1024
"""Bytes of an archive as it is sent; `app.state.max_upload` says otherwise."""

_IN_MEMORY = 4 * 1024 * 1024
_NOT_RAW = ("application/json", "multipart/form-data", "application/x-www-form-urlencoded")


async def _limit(request: Request) -> int:
    return int(getattr(request.app.state, "max_upload", MAX_UPLOAD))


LimitDep = Annotated[int, Depends(_limit)]


@router.post(
    "",
    status_code=201,
    response_model=Answer[Archive],
    operation_id="archives.create",
    responses=documented(PayloadTooLargeError, MediaTypeError),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                kind: {"schema": {"type": "string", "format": "binary"}}
                for kind in ("application/x-tar", "application/gzip", "application/zip")
            },
        }
    },
)
async def create(
    request: Request,
    principal: EditorDep,
    blobs: BlobsDep,
    limit: LimitDep,
    once: SentDep,
    name: Annotated[Name | None, Query()] = None,
) -> Response:
    """Upload a tar (plain, gz, bz2, xz, zst) or a zip as the raw body; what it is, is seen from
    its content. A member that would leave the workspace is refused with its name."""
    _check_media_type(request)
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        digest = hashlib.sha256()
        if not await receive(request, file, limit, digest.update):
            raise _refused("it is empty; send the archive as the body")
        await once.open(content_of(request, digest.digest()))
        tree = await asyncio.to_thread(read_upload, file, blobs)
    row = ArchiveRow(
        id=new_id(ARCHIVE),
        owner_id=principal.user_id,
        name=name,
        tree=await asyncio.to_thread(put_tree, blobs, tree),
        file_count=tree.file_count,
        total_bytes=tree.total_bytes,
    )
    return await once.write(lambda session: recorded(session, row, tree))


@router.get("/{archive_id}", operation_id="archives.get", responses=documented(NotFoundError))
async def get(archive_id: str, principal: PrincipalDep, store: StoreDep) -> Answer[Archive]:
    """Get an archive's description."""
    return answer(
        await store.fetch(lambda s: Archive.model_validate(archives.get(s, principal, archive_id)))
    )


def _check_media_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in _NOT_RAW:
        raise MediaTypeError(
            f"the content type is {kind}; send the archive itself as the body, for example with"
            " application/gzip",
            contentType=kind,
        )


async def receive(
    request: Request,
    file: IO[bytes],
    limit: int,
    see: Callable[[bytes], None] | None = None,
) -> int:
    """Take the body into a file, and let its chunks be seen; gives its size."""
    check_declared(request, limit)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        if see is not None:
            see(chunk)
        await asyncio.to_thread(file.write, chunk)
    file.seek(0)
    return size


def read_upload(file: IO[bytes], blobs: Blobs) -> Tree:
    """The tree of an archive that was sent. Raises ValidationError."""
    try:
        return read_archive(file, blobs)
    except ArchiveError as error:
        raise _refused(error.message.removeprefix("archive: "), error.details["value"]) from error


def _refused(issue: str, member: str | None = None) -> ValidationError:
    detail = {"field": "body", "issue": issue}
    if member is not None:
        detail["member"] = member
    return ValidationError(f"the archive was refused: {issue}", **detail, errors=[detail])


def recorded(session: Session, row: ArchiveRow, tree: Tree) -> Reply:
    """Write an archive whose files are in blobs."""
    blob_rows.hold(session, row.tree, tree.blobs)
    blob_rows.hold(session, row.id, {row.tree: 0})
    session.add(row)
    return added("archives", Archive.model_validate(row))
