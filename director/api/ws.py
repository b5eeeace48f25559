"""The WebSocket: authenticate first, then everything that the principal may see."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import Field, TypeAdapter, ValidationError
from starlette.types import Message

from director.api.errors import invalid, refused
from director.api.hub import Hub, Subscription
from director.api.principals import login_is_live, principal_of
from director.api.requests import parse_json
from director.api.tokens import Tokens
from director.domain.base import Body, Int, Json
from director.domain.errors import DirectorError
from director.domain.events import MESSAGE_TYPES, Event
from director.domain.ids import CONNECTION, new_id
from director.domain.times import rfc3339
from director.domain.users import Principal
from director.store import events
from director.store.engine import Store
from director.store.ownership import visible

log = structlog.get_logger()
router = APIRouter()

MAX_FRAME = 64 * 1024
"""Bytes of a frame of the client."""

_REPLAY = 500
_BAD_TOKEN, _NO_AUTH, _FORBIDDEN, _SLOW = 4401, 4408, 4403, 4008


@dataclass(frozen=True)
class Timing:
    """How long a client may take to authenticate, and how often its login is looked at."""

    auth_seconds: float = 10
    login_check_seconds: float = 5


class AuthFrame(Body):
    """The first frame of a client, and any later one with a fresh token."""

    type: Literal["auth"]
    token: Annotated[str, Field(max_length=8192)]
    cursor: Annotated[Int, Field(ge=0)] | None = None


MessageType = Literal["session_update", "workflow_progress", "sandbox_event", "security_alert"]


class SubscribeFrame(Body):
    """Narrows what is sent; an empty one widens it again."""

    type: Literal["subscribe"]
    types: list[MessageType] | None = None
    session_id: str | None = None
    workflow_id: str | None = None


_FRAME: TypeAdapter[AuthFrame | SubscribeFrame] = TypeAdapter(
    Annotated[AuthFrame | SubscribeFrame, Field(discriminator="type")]
)


class _ClosedError(Exception):
    """The connection is to be closed with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@router.websocket("/ws")
async def connect(socket: WebSocket) -> None:
    """Serve one client until it goes, is too slow, or its login is revoked."""
    await socket.accept()
    state = socket.app.state
    timing = getattr(state, "websocket_timing", Timing())
    connection = _Connection(socket, state.store, state.tokens, state.hub, timing)
    try:
        await connection.serve()
    except _ClosedError as closed:
        with suppress(RuntimeError):
            await socket.close(closed.code, closed.reason)
    except WebSocketDisconnect:
        pass


class _Connection:
    def __init__(
        self, socket: WebSocket, store: Store, tokens: Tokens, hub: Hub, timing: Timing
    ) -> None:
        self._socket, self._store, self._tokens, self._hub = socket, store, tokens, hub
        self._timing = timing
        self._sent = 0
        self._id = new_id(CONNECTION)
        self._filter = SubscribeFrame(type="subscribe")
        self._principal: Principal

    async def serve(self) -> None:
        """Authenticate, replay what was missed, then send and listen until one of them ends."""
        frame = await self._first_frame()
        await self._authenticate(frame)
        with self._hub.subscribed() as subscription:
            cursor = subscription.position
            await self._send({"connectionId": self._id, "cursor": cursor}, "auth_ok")
            if frame.cursor is not None:
                await self._resume(frame.cursor, cursor)
            self._sent = max(self._sent, cursor)
            await self._until_one_ends(subscription)

    async def _until_one_ends(self, subscription: Subscription) -> None:
        parts = (self._forward(subscription), self._listen(), self._watch_login())
        tasks = [asyncio.create_task(part) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _first_frame(self) -> AuthFrame:
        try:
            frame = await asyncio.wait_for(self._receive("auth_error"), self._timing.auth_seconds)
        except TimeoutError:
            message = f"no auth frame within {self._timing.auth_seconds:g} s"
            raise _ClosedError(_NO_AUTH, message) from None
        if isinstance(frame, AuthFrame):
            return frame
        if frame is not None:
            await self._refuse("the first frame must be of type auth")
        raise _ClosedError(_BAD_TOKEN, "not authenticated")

    async def _authenticate(self, frame: AuthFrame) -> None:
        try:
            principal = await principal_of(frame.token, self._store, self._tokens)
        except DirectorError as error:
            await self._refuse(error.message)
            raise _ClosedError(_BAD_TOKEN, "not authenticated") from None
        present = getattr(self, "_principal", principal)
        if present.user_id != principal.user_id:
            raise _ClosedError(_FORBIDDEN, "the token is another user's")
        self._principal = principal
        structlog.contextvars.bind_contextvars(connection_id=self._id, user_id=principal.user_id)

    async def _resume(self, cursor: int, until: int) -> None:
        """Send what was missed. A cursor that this log never gave is no place to go on from."""
        if cursor > await self._store.fetch(events.newest):
            await self._send({"cursor": until}, "resync_required")
            return
        self._sent = cursor
        await self._replay(cursor, until)

    async def _replay(self, after: int, until: int) -> None:
        while after < until:
            found = await self._store.fetch(partial(events.after, cursor=after, limit=_REPLAY))
            for event in found:
                after = event.id
                if event.id > until:
                    return
                await self._send_event(event)
            if len(found) < _REPLAY:
                return

    async def _forward(self, subscription: Subscription) -> None:
        while not subscription.lagging:
            await self._send_event(await subscription.next())
        raise _ClosedError(_SLOW, "too slow; connect again with the last cursor")

    async def _listen(self) -> None:
        while True:
            frame = await self._receive()
            if isinstance(frame, AuthFrame):
                await self._authenticate(frame)
                await self._send({"connectionId": self._id, "cursor": self._sent}, "auth_ok")
            elif frame is not None:
                self._filter = frame

    async def _watch_login(self) -> None:
        while await login_is_live(self._principal.login_id, self._store):
            await asyncio.sleep(self._timing.login_check_seconds)
        raise _ClosedError(_BAD_TOKEN, "the login was revoked")

    async def _receive(self, refusal: str = "error") -> AuthFrame | SubscribeFrame | None:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        try:
            return _read(message)
        except DirectorError as error:
            await self._send({"message": error.message, "details": error.details}, refusal)
            return None

    async def _refuse(self, message: str) -> None:
        await self._send({"message": message}, "auth_error")

    async def _send_event(self, event: Event) -> None:
        if event.id <= self._sent:
            return
        self._sent = event.id
        if not visible(self._principal, event.owner_id) or not self._wanted(event):
            return
        beside = {"id": event.id, "seq": event.seq, "event": event.type}
        beside["timestamp"] = rfc3339(event.created_at)
        await self._send(event.data, MESSAGE_TYPES[event.type], beside)

    def _wanted(self, event: Event) -> bool:
        wanted = self._filter
        return (
            (wanted.types is None or MESSAGE_TYPES[event.type] in wanted.types)
            and wanted.session_id in (None, event.session_id)
            and wanted.workflow_id in (None, event.workflow_id)
        )

    async def _send(self, data: Json, kind: str, beside: dict[str, Any] | None = None) -> None:
        frame = {"type": kind, "data": data, **(beside or {})}
        await self._socket.send_text(json.dumps(frame, ensure_ascii=False, separators=(",", ":")))


def _read(message: Message) -> AuthFrame | SubscribeFrame:
    """The frame of a message. Raises ValidationError of the API."""
    content = message.get("bytes")
    raw = content if content is not None else str(message.get("text")).encode("utf-8", "replace")
    if len(raw) > MAX_FRAME:
        raise refused("frame", f"must be at most {MAX_FRAME} bytes")
    body = parse_json(raw)
    try:
        return _FRAME.validate_python(body)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise invalid([{**one, "loc": ("body", *one["loc"])} for one in found], body) from None
