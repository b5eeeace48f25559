"""`/sandboxes`: made, watched, held, stopped and deleted. What runs in one is in `executions`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Response
from sqlmodel import Session

from director.api.answers import reply, versioned
from director.api.archives import recorded
from director.api.envelope import Answer, Deleted, ListAnswer, answer, page
from director.api.errors import documented
from director.api.hub import Hub
from director.api.idempotency import OnceDep
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import (
    BlobsDep,
    GatewayDep,
    HubDep,
    MatchDep,
    PageDep,
    QueryInt,
    StoreDep,
    TermsDep,
)
from director.blobs.store import get_tree
from director.domain.archives import Archive, SnapshotBody
from director.domain.errors import (
    ConflictError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from director.domain.ids import ARCHIVE, new_id
from director.domain.lifetimes import Metrics, ReadFiles, Sandbox, SandboxCreate, SandboxStatus
from director.store import sandboxes
from director.store.engine import Store
from director.store.idempotency import Reply
from director.store.preconditions import check_match, etag
from director.store.tables import ArchiveRow, SandboxRow

router = APIRouter(prefix="/sandboxes", tags=["sandboxes"], route_class=StrictRoute)

_DELETE_SECONDS = 15.0
"""How long a delete waits for the sandbox to be gone, which it will be whatever happens."""

MadeWaitDep = Annotated[
    QueryInt, Query(alias="wait", ge=0, le=60, description="Seconds to wait until it is made.")
]
DoneWaitDep = Annotated[
    QueryInt, Query(alias="wait", ge=0, le=60, description="Seconds to wait until it is so.")
]
_STEERED: dict[str, Any] = {
    "response_model": Answer[Sandbox],
    "responses": {
        **documented(NotFoundError, ConflictError),
        202: {"model": Answer[Sandbox], "description": "It is on its way."},
    },
}


@dataclass(frozen=True)
class Steering:
    """What stop, pause and resume have in common."""

    principal: EditorDep
    store: StoreDep
    gateway: GatewayDep
    hub: HubDep
    once: OnceDep
    wait: DoneWaitDep = 15

    async def to(
        self, id: str, wanted: SandboxStatus, want: Callable[[Session, SandboxRow], None]
    ) -> Response:
        """Write what is wanted, once, ask the sandbox's host for it, and wait until it is so."""

        def write(session: Session) -> tuple[SandboxRow, Reply]:
            row = self.once.again(session, SandboxRow)
            if row is None:
                row = sandboxes.locked(session, self.principal, id)
                want(session, row)
            return row, _steered(sandboxes.view(session, row), wanted)

        row = await self.once.begin(write, known=not self.wait)
        if row.intents > row.steered and row.host_id is not None:
            await self.gateway.steer(row.id, row.intents, row.host_id)
        if not self.wait:
            return await self.once.finish()

        def over(status: SandboxStatus) -> bool:
            return status is wanted or status.ended

        await until(self.store, self.hub, id, over, self.wait)
        view = await self.store.fetch(lambda s: sandboxes.view(s, s.get_one(SandboxRow, id)))
        return await self.once.finish(_steered(view, wanted))


SteeringDep = Annotated[Steering, Depends()]


@router.post(
    "",
    status_code=201,
    response_model=Answer[Sandbox],
    operation_id="sandboxes.create",
    responses={
        **documented(NotFoundError, ConflictError),
        202: {"model": Answer[Sandbox], "description": "It is still being made."},
    },
)
async def create(
    body: SandboxCreate,
    principal: EditorDep,
    store: StoreDep,
    gateway: GatewayDep,
    hub: HubDep,
    once: OnceDep,
    terms: TermsDep,
    wait: MadeWaitDep = 10,
) -> Response:
    """Create a sandbox; its `command` is the first that runs in it, and not its life. The answer is
    a 202 where it is still being made after `?wait=` seconds."""

    def make(session: Session) -> tuple[SandboxRow, Reply]:
        row = once.again(session, SandboxRow)
        if row is None:
            terms.check_image(body.image, "image")
            row = sandboxes.create(session, principal, body, terms.disk_mib)
            sandboxes.check_quota(session, row.owner_id, terms.sandboxes)
        return row, _made(sandboxes.view(session, row))

    row = await once.begin(make, known=not wait)
    if not SandboxStatus(row.status).ended:
        await gateway.start_sandbox(sandboxes.input_of(row))
    if not wait:
        return await once.finish()
    await until(store, hub, row.id, lambda status: not status.beginning, wait)
    view = await store.fetch(lambda s: sandboxes.view(s, s.get_one(SandboxRow, row.id)))
    return await once.finish(_made(view))


@router.get("", operation_id="sandboxes.list", responses=documented())
async def list_(
    principal: PrincipalDep,
    store: StoreDep,
    query: PageDep,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
    status: SandboxStatus | None = None,
) -> ListAnswer[Sandbox]:
    """List sandboxes, newest first."""
    return page(
        *await store.fetch(lambda s: sandboxes.listed(s, principal, query, status, session_id))
    )


@router.get("/{sandbox_id}", operation_id="sandboxes.get", responses=documented(NotFoundError))
async def get(
    sandbox_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[Sandbox]:
    """Get a sandbox."""
    view = await store.fetch(lambda s: sandboxes.view(s, sandboxes.get(s, principal, sandbox_id)))
    versioned(response, view)
    return answer(view)


@router.get(
    "/{sandbox_id}/metrics",
    operation_id="sandboxes.metrics",
    responses=documented(NotFoundError, ConflictError, UnavailableError),
)
async def metrics(
    sandbox_id: str, principal: PrincipalDep, store: StoreDep, gateway: GatewayDep
) -> Answer[Metrics]:
    """Measure what a sandbox uses now."""

    def look(session: Session) -> str:
        row = sandboxes.get(session, principal, sandbox_id)
        sandboxes.check_runs(row)
        return row.host_id or ""

    host_id = await store.fetch(look)
    return answer(await gateway.measure(sandbox_id, host_id, uuid4().hex))


@router.post("/{sandbox_id}/stop", operation_id="sandboxes.stop", **_STEERED)
async def stop(sandbox_id: str, steering: SteeringDep) -> Response:
    """Stop a sandbox: its commands are asked to end, and killed after ten seconds. Its files stay
    until it is deleted or expires."""
    return await steering.to(sandbox_id, SandboxStatus.STOPPED, sandboxes.want_stop)


@router.post("/{sandbox_id}/pause", operation_id="sandboxes.pause", **_STEERED)
async def pause(sandbox_id: str, steering: SteeringDep) -> Response:
    """Hold every process of a sandbox where it is; the clock of its life goes on."""
    want = partial(sandboxes.want_pause, pause=True)
    return await steering.to(sandbox_id, SandboxStatus.PAUSED, want)


@router.post("/{sandbox_id}/resume", operation_id="sandboxes.resume", **_STEERED)
async def resume(sandbox_id: str, steering: SteeringDep) -> Response:
    """Let the processes of a sandbox go on."""
    want = partial(sandboxes.want_pause, pause=False)
    return await steering.to(sandbox_id, SandboxStatus.RUNNING, want)


@router.post(
    "/{sandbox_id}/snapshot",
    status_code=201,
    response_model=Answer[Archive],
    operation_id="sandboxes.snapshot",
    responses=documented(NotFoundError, ConflictError, UnavailableError),
)
async def snapshot(
    sandbox_id: str,
    principal: EditorDep,
    store: StoreDep,
    blobs: BlobsDep,
    gateway: GatewayDep,
    once: OnceDep,
    body: SnapshotBody | None = None,
) -> Response:
    """Keep the workspace of a sandbox as an archive, from which `workspace.archiveId` of a workflow
    or of another sandbox fills theirs. Files that change meanwhile are taken as they are read."""

    def found(session: Session) -> SandboxRow:
        row = sandboxes.get(session, principal, sandbox_id)
        sandboxes.check_has_files(row)
        return row

    row = await store.fetch(found)
    asked = ReadFiles(sandbox_id=row.id, path="")
    read = await gateway.read_files(asked, row.host_id or "", uuid4().hex)
    tree = await asyncio.to_thread(get_tree, blobs, read.tree)
    kept = ArchiveRow(
        id=new_id(ARCHIVE),
        owner_id=row.owner_id,
        name=body.name if body else None,
        tree=read.tree,
        file_count=tree.file_count,
        total_bytes=tree.total_bytes,
    )
    return await once.write(lambda session: recorded(session, kept, tree))


@router.delete(
    "/{sandbox_id}",
    operation_id="sandboxes.delete",
    responses=documented(NotFoundError, PreconditionError),
)
async def delete(
    sandbox_id: str,
    principal: EditorDep,
    store: StoreDep,
    gateway: GatewayDep,
    hub: HubDep,
    match: MatchDep = None,
) -> Answer[Deleted]:
    """Stop a sandbox and remove it with its files."""

    def intend(session: Session) -> None:
        row = sandboxes.locked(session, principal, sandbox_id)
        check_match(row, match)
        sandboxes.want_delete(session, row)

    await store.run(intend)
    await gateway.end_sandbox(sandbox_id)
    await until(store, hub, sandbox_id, lambda status: status.ended, _DELETE_SECONDS)
    return answer(Deleted(id=sandbox_id))


async def until(
    store: Store,
    hub: Hub,
    sandbox_id: str,
    condition: Callable[[SandboxStatus], bool],
    seconds: float,
) -> None:
    """Wait until the status of a sandbox is as wished, at most so long."""

    async def holds() -> bool:
        return condition(await store.fetch(lambda s: sandboxes.present(s, sandbox_id)))

    await awaited(hub, holds, seconds)


async def awaited(hub: Hub, holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Wait until something in the database is so, at most so long; tells whether it is."""
    deadline = time.monotonic() + seconds
    while True:
        mark = hub.mark()
        if await holds():
            return True
        left = deadline - time.monotonic()
        if left <= 0 or hub.closed:
            return False
        await hub.changed(mark, left)


def _made(view: Sandbox) -> Reply:
    status = 202 if view.status.beginning else 201
    return reply(status, view, view.id, Location=f"/v1/sandboxes/{view.id}", ETag=etag(view))


def _steered(view: Sandbox, wanted: SandboxStatus) -> Reply:
    status = 200 if view.status is wanted else 202
    return reply(status, view, view.id, Location=f"/v1/sandboxes/{view.id}")
