"""`/events`: the event log as a long-poll and as a stream of server-sent events."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from starlette.types import Send

from director.api.envelope import Metadata, request_id
from director.api.errors import documented
from director.api.frames import EventFrame, Frame, ResyncFrame
from director.api.listeners import (
    EndedError,
    GoingAwayError,
    Listener,
    LoginRevokedError,
    SlowError,
    Timing,
    pump,
)
from director.api.principals import PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import HubDep, QueryInt
from director.domain.base import Shape
from director.domain.errors import AuthenticationError, refused
from director.domain.events import EventType, Wanted, types_named
from director.domain.times import utc_now
from director.domain.users import Principal
from director.store.ownership import owner_of

router = APIRouter(prefix="/events", tags=["events"], route_class=StrictRoute)

_RETRY_MILLIS = 2000
_MAX_CURSOR = 10**15 - 1
_STREAM: dict[int | str, Any] = {
    **documented(),
    200: {
        "description": "Frames as they come.",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": "event: workflow_progress\ndata: {…}\nid: 1042\n\n",
            }
        },
    },
}


class EventsPagination(Shape):
    """Where the listener stands; there may be more at once where `hasMore` is true."""

    limit: int
    has_more: bool
    next_cursor: int


class EventsMetadata(Metadata):
    """Metadata of a part of the event log."""

    pagination: EventsPagination


class EventsAnswer(Shape):
    """A part of the event log, oldest first."""

    success: bool = True
    data: list[EventFrame | ResyncFrame]
    metadata: EventsMetadata


@dataclass(frozen=True)
class Asked:
    """Which part of the log is asked for."""

    after: Annotated[
        QueryInt | None,
        Query(ge=0, le=_MAX_CURSOR, description="The cursor to go on from; absent: from now on."),
    ] = None
    types: Annotated[
        list[str] | None,
        Query(
            description="Types of frames or events, separated by commas.",
        ),
    ] = None
    session_id: Annotated[str | None, Query(alias="sessionId")] = None
    workflow_id: Annotated[str | None, Query(alias="workflowId")] = None

    def of(self, principal: Principal) -> Wanted:
        """What of it the principal may see."""
        return Wanted(owner_of(principal), self._types(), self.session_id, self.workflow_id)

    def _types(self) -> frozenset[EventType] | None:
        if self.types is None:
            return None
        try:
            return types_named([name for part in self.types for name in part.split(",") if name])
        except ValueError as error:
            raise refused("types", str(error)) from None


AskedDep = Annotated[Asked, Depends()]
LastIdDep = Annotated[str | None, Header(alias="Last-Event-ID", description="Wins over `after`.")]


@router.get("", operation_id="events.list", response_model=EventsAnswer, responses=documented())
async def list_(
    principal: PrincipalDep,
    hub: HubDep,
    asked: AskedDep,
    wait: Annotated[
        QueryInt, Query(ge=0, le=60, description="Seconds to wait for something to tell.")
    ] = 0,
    limit: Annotated[QueryInt, Query(ge=1, le=1000)] = 20,
) -> Response:
    """Read the event log behind a cursor, and wait for more where there is none. Go on from
    `metadata.pagination.nextCursor`, also where nothing was told."""
    wanted = asked.of(principal)
    with hub.listening(principal.login_id, wanted, asked.after) as listener:
        frames = await _next(listener, wait, limit)
        pagination = EventsPagination(
            limit=limit, has_more=listener.behind, next_cursor=listener.cursor
        )
    metadata = EventsMetadata(
        timestamp=utc_now(), request_id=request_id.get(), pagination=pagination
    )
    data = ",".join(frame.text for frame in frames)
    content = f'{{"success":true,"data":[{data}],"metadata":{metadata.model_dump_json()}}}'
    return Response(content, media_type="application/json")


async def _next(listener: Listener, wait: int, limit: int) -> list[Frame]:
    try:
        frames = await listener.next(wait, limit)
    except LoginRevokedError:
        raise AuthenticationError("this login has ended: log in again") from None
    except GoingAwayError:
        return []
    listener.taken()
    return frames


class EventStream(StreamingResponse):
    """Frames as server-sent events, until the client goes or its login is revoked."""

    media_type = "text/event-stream"

    def __init__(self, listening: AbstractContextManager[Listener], timing: Timing) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__((), headers=headers)
        self._listening, self._timing = listening, timing

    async def stream_response(self, send: Send) -> None:
        """Send what comes; one that takes nothing for too long is cut off."""

        async def write(frame: Frame) -> None:
            await send({"type": "http.response.body", "body": frame.sse, "more_body": True})

        start = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **start})
        timing = self._timing
        with self._listening as listener:
            first = format_sse_event(id=str(listener.cursor), retry=_RETRY_MILLIS)
            await send({"type": "http.response.body", "body": first, "more_body": True})
            try:
                await pump(listener, write, timing.send_seconds, timing.quiet_seconds)
            except SlowError:
                return
            except EndedError:
                await send({"type": "http.response.body", "body": b"", "more_body": False})


@router.get(
    "/stream",
    operation_id="events.stream",
    response_class=StreamingResponse,
    responses=_STREAM,
)
async def stream(
    request: Request,
    principal: PrincipalDep,
    hub: HubDep,
    asked: AskedDep,
    last_event_id: LastIdDep = None,
) -> Response:
    """Stream events as they happen. Each is a server-sent event: `id` is the cursor, `event` the
    frame's `type`, `data` the frame as the WebSocket has it."""
    after = asked.after if not last_event_id else _cursor(last_event_id)
    listening = hub.listening(principal.login_id, asked.of(principal), after)
    return EventStream(listening, request.app.state.timing)


def _cursor(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= _MAX_CURSOR):
        raise refused("Last-Event-ID", "must be the id of an event of this stream", text)
    return int(text)
