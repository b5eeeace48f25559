"""Commands in a sandbox. Routes lie under `/sandboxes/{id}`."""

import asyncio
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from sqlmodel import Session

from director.api.answers import reply
from director.api.envelope import Answer, ListAnswer, answer, page
from director.api.errors import documented
from director.api.hub import Hub
from director.api.idempotency import OnceDep
from director.api.output_messages import server_sent
from director.api.outputs import (
    LIVE,
    Asked,
    OutputReader,
    Parts,
    plain,
)
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import (
    BlobsDep,
    GatewayDep,
    HubDep,
    PageDep,
    QueryFlag,
    StoreDep,
    WaitDep,
)
from director.api.waiting import HOST_LOOK_SECONDS, HOST_PATIENCE, awaited
from director.blobs.store import Blobs
from director.domain.base import Json
from director.domain.errors import (
    AuthorizationError,
    ConflictError,
    DeadlineError,
    GoneError,
    HostAwayError,
    NotFoundError,
    UnavailableError,
    refused,
)
from director.domain.lifetimes import ExecuteBody, Execution, ExecutionStatus
from director.domain.outputs import STREAMS, OutputCursor
from director.domain.pages import Pagination
from director.domain.sandboxes import Cause
from director.store import away, executions, outputs, sandboxes, security_events, users
from director.store.idempotency import Reply
from director.store.tables import ExecutionRow, OutputRow, SandboxRow
from director.streaming import Streamed

router = APIRouter(prefix="/sandboxes/{sandbox_id}", tags=["sandboxes"], route_class=StrictRoute)

INLINE = 1024 * 1024
"""Bytes of stdout, and of stderr, that an answer shows; all of them are in the logs."""

_LATE_SECONDS = 15.0
_MAKING_SECONDS = 60.0

Found = dict[str, list[OutputRow]]


async def _owned(sandbox_id: str, principal: EditorDep, store: StoreDep) -> str:
    """Before the body is judged: what is somebody else's is not there, whatever is sent."""
    await store.fetch(lambda s: sandboxes.get(s, principal, sandbox_id))
    return sandbox_id


OwnDep = Annotated[str, Depends(_owned)]


@dataclass(frozen=True)
class Shown:
    """Looks at executions together with what they wrote."""

    store: StoreDep
    blobs: BlobsDep
    hub: HubDep

    async def one(self, id: str) -> Execution:
        """An execution as it is now, with its output."""
        row, found = await self.store.fetch(lambda s: _looked(s, id))
        return await asyncio.to_thread(_view, row, found, self.blobs)

    async def ended(
        self,
        id: str,
        seconds: float,
        has_ended: Callable[[Session, str], bool] = executions.has_ended,
    ) -> bool:
        """Wait for the end of an execution, at most so long."""

        async def holds() -> bool:
            return await self.store.fetch(lambda s: has_ended(s, id))

        return await awaited(self.hub, holds, seconds, look=HOST_LOOK_SECONDS)


ShownDep = Annotated[Shown, Depends()]


@router.post(
    "/execute",
    response_model=Answer[Execution],
    operation_id="sandboxes.execute",
    responses={
        **documented(
            NotFoundError, ConflictError, AuthorizationError, UnavailableError, DeadlineError
        ),
        202: {"model": Answer[Execution], "description": "It goes on."},
    },
)
async def execute(
    sandbox_id: OwnDep,
    body: ExecuteBody,
    principal: EditorDep,
    gateway: GatewayDep,
    shown: ShownDep,
    once: OnceDep,
    accept: Annotated[str, Header(max_length=1000)] = "",
) -> Response:
    """Run a command in a sandbox and answer with its end: also one that fails is a 200.
    `async: true` answers at once, with a 202; `Accept: text/event-stream` with the output as it
    comes."""
    streams = "text/event-stream" in accept
    if streams and body.in_background:
        raise refused("async", "cannot stand beside `Accept: text/event-stream`")

    def add(session: Session) -> tuple[tuple[ExecutionRow, str | None], Reply]:
        row = once.again(session, ExecutionRow) or sandboxes.execute(
            session, principal, sandbox_id, body
        )
        sandbox = session.get_one(SandboxRow, sandbox_id)
        placed = None if sandbox.started_at is None else sandbox.host_id
        return (row, placed), _goes_on(_view(row, {}, None))

    try:
        row, host_id = await once.begin(add, known=body.in_background or streams)
    except AuthorizationError:
        await shown.store.run(lambda s: security_events.exec_denied(s, sandbox_id))
        raise
    if host_id is not None and not ExecutionStatus(row.status).ended:
        await gateway.start_execution(row, host_id)
    if streams:
        await once.finish()
        return _live(shown, row)
    if body.in_background:
        return await once.finish()
    patience = body.timeout / 1000 + _LATE_SECONDS + (0 if host_id else _MAKING_SECONDS)
    if not await shown.ended(row.id, patience, _ended_by_host):
        raise _late(row, shown.hub)
    view = await shown.one(row.id)
    return await once.finish(reply(200, view, row.id))


@router.get("/executions", operation_id="sandboxes.executions", responses=documented(NotFoundError))
async def list_(
    sandbox_id: str, principal: PrincipalDep, store: StoreDep, query: PageDep
) -> ListAnswer[Execution]:
    """List the commands of a sandbox, newest first, without what they wrote."""

    def listed(session: Session) -> tuple[list[ExecutionRow], Pagination]:
        sandbox = sandboxes.get(session, principal, sandbox_id)
        return executions.listed(session, sandbox, query)

    rows, pagination = await store.fetch(listed)
    return page([_view(row, {}, None) for row in rows], pagination)


@router.get(
    "/executions/{execution_id}",
    operation_id="sandboxes.execution",
    responses=documented(NotFoundError),
)
async def get(
    sandbox_id: str,
    execution_id: str,
    principal: PrincipalDep,
    shown: ShownDep,
    wait: WaitDep = 0,
) -> Answer[Execution]:
    """Get a command and what it has written so far."""
    row = await shown.store.fetch(
        lambda s: executions.get(s, sandboxes.get(s, principal, sandbox_id), execution_id)
    )
    if wait:
        await shown.ended(row.id, wait)
    return answer(await shown.one(row.id))


@router.get(
    "/logs",
    operation_id="sandboxes.logs",
    responses={
        **documented(NotFoundError, GoneError),
        200: {"content": {"application/octet-stream": {}, "text/event-stream": {}}},
    },
    response_class=StreamingResponse,
)
async def logs(
    sandbox_id: str,
    principal: PrincipalDep,
    shown: ShownDep,
    execution_id: Annotated[
        str | None, Query(alias="executionId", description="Absent: of the sandbox's `command`.")
    ] = None,
    stream: Literal["stdout", "stderr", "both"] = "both",
    follow: QueryFlag = False,
    accept: Annotated[str, Header(max_length=1000)] = "",
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", max_length=100)] = None,
) -> StreamingResponse:
    """All that a command wrote, byte for byte; `follow` streams what comes until it has ended, and
    `Accept: text/event-stream` the same as server-sent events, which `Last-Event-ID` resumes."""

    def found(session: Session) -> ExecutionRow:
        sandbox = sandboxes.get(session, principal, sandbox_id)
        if execution_id is not None:
            return executions.get(session, sandbox, execution_id)
        main = executions.mains(session, [sandbox.id]).get(sandbox.id)
        if main is None:
            raise NotFoundError("execution", "of the sandbox's command")
        return main

    row = await shown.store.fetch(found)
    if row.output_dropped:
        raise GoneError("the output of this command is no longer kept", executionId=row.id)
    only = None if stream == "both" else stream

    async def allowed() -> bool:
        logins = {principal.login_id}
        return bool(await shown.store.fetch(lambda s: users.live_logins(s, login_ids=logins)))

    cursor = _cursor(last_event_id) if "text/event-stream" in accept else None
    parts = Parts(shown.store, shown.blobs, shown.hub)
    asked = Asked(run_id=row.id, step=0, stream=only)
    reader = OutputReader(parts, asked, cursor or OutputCursor(0, 1), allowed)
    if "text/event-stream" in accept:
        return Streamed(server_sent(reader), media_type="text/event-stream", headers=LIVE)
    content = plain(reader, follow=follow)
    return Streamed(content, media_type="application/octet-stream", headers=LIVE)


def _live(shown: Shown, row: ExecutionRow) -> Response:
    parts = Parts(shown.store, shown.blobs, shown.hub)
    reader = OutputReader(parts, Asked(run_id=row.id, step=0), OutputCursor(0, 1))
    headers = {**LIVE, "X-Director-Execution": row.id}
    return Streamed(server_sent(reader), media_type="text/event-stream", headers=headers)


def _cursor(text: str | None) -> OutputCursor | None:
    if text is None:
        return None
    if (cursor := OutputCursor.parse(text)) is None:
        raise refused("cursor", "is none that was told for this output", text)
    return cursor


def _address(row: ExecutionRow) -> str:
    return f"/v1/sandboxes/{row.sandbox_id}/executions/{row.id}"


def _late(row: ExecutionRow, hub: Hub) -> DeadlineError | UnavailableError:
    where = _address(row)
    if hub.closed:
        return UnavailableError(f"the server restarts; the command goes on: see {where}")
    return DeadlineError(
        f"the command has not ended in time, and may still begin or go on: see {where}",
        executionId=row.id,
    )


def _ended_by_host(session: Session, id: str) -> bool:
    """Whether an execution has ended. Raises HostAwayError where that cannot be told, since its
    host does not answer."""
    if executions.has_ended(session, id):
        return True
    row = session.get_one(ExecutionRow, id)
    sandbox = session.get_one(SandboxRow, row.sandbox_id)
    if not away.is_reachable(session, sandbox, HOST_PATIENCE):
        raise HostAwayError(
            "the sandbox's host does not answer; the command is kept: it goes on there, or begins"
            f" when the host is back: see {_address(row)}",
            executionId=id,
            hostId=sandbox.host_id,
        )
    return False


def _looked(session: Session, id: str) -> tuple[ExecutionRow, Found]:
    row = session.get_one(ExecutionRow, id)
    return row, {name: outputs.span(session, id, 0, 1, name, 0, INLINE) for name in STREAMS}


def _view(row: ExecutionRow, found: Found, blobs: Blobs | None) -> Execution:
    result: Json = row.result or {}
    contents = [_content(found.get(name, ()), blobs) for name in STREAMS]
    texts = _texts(contents)
    sizes = {name: result.get(f"{name}Bytes") or len(contents[n]) for n, name in enumerate(STREAMS)}
    cause = Cause(result["cause"]) if "cause" in result else None
    cut = any(sizes[name] > len(contents[n]) for n, name in enumerate(STREAMS) if found)
    return Execution(
        execution_id=row.id,
        sandbox_id=row.sandbox_id,
        status=ExecutionStatus(row.status),
        exit_code=result.get("exitCode"),
        stdout=texts[0] if texts else b64encode(contents[0]).decode(),
        stderr=texts[1] if texts else b64encode(contents[1]).decode(),
        encoding="utf-8" if texts else "base64",
        stdout_bytes=sizes["stdout"],
        stderr_bytes=sizes["stderr"],
        duration_ms=result.get("durationMs"),
        timed_out=cause is Cause.TIMEOUT,
        truncated=cut or bool(result.get("truncated")),
        oom_killed=cause is Cause.OOM,
        cause=cause,
        error=row.error,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
    )


def _content(rows: Sequence[OutputRow], blobs: Blobs | None) -> bytes:
    pieces = []
    for row in rows:
        if row.content is not None:
            pieces.append(row.content)
        elif blobs is not None:
            pieces.append(blobs.get(row.hash))
    return b"".join(pieces)[:INLINE]


def _texts(contents: list[bytes]) -> list[str] | None:
    """The contents as text; None where one of them is no UTF-8. Where a cut goes through a
    character, its begin is left out."""
    try:
        return [
            content.decode() if len(content) < INLINE else _whole(content) for content in contents
        ]
    except UnicodeDecodeError:
        return None


def _whole(content: bytes) -> str:
    for spare in range(4):
        try:
            return content[: len(content) - spare].decode()
        except UnicodeDecodeError as error:
            failure = error
    raise failure


def _goes_on(view: Execution) -> Reply:
    location = f"/v1/sandboxes/{view.sandbox_id}/executions/{view.execution_id}"
    return reply(202, view, view.execution_id, Location=location)
