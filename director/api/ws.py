"""The WebSocket: authenticate first, then everything that the principal may see."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Annotated, Literal

import structlog
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from starlette.types import Message

from director.api.errors import invalid
from director.api.frames import Frame, written
from director.api.hub import Hub
from director.api.listeners import (
    GoingAwayError,
    Listener,
    LoginRevokedError,
    SlowError,
    Timing,
    pump,
)
from director.api.outputs import Parts
from director.api.principals import principal_of
from director.api.requests import parse_json
from director.api.tokens import Tokens
from director.api.ws_outputs import (
    OUTPUT_FRAMES,
    OutputFrame,
    OutputSubscriptions,
    SubscribeOutputFrame,
    UnsubscribeOutputFrame,
)
from director.domain.base import Body, Int, Json, Shape
from director.domain.errors import DirectorError, refused
from director.domain.events import TYPE_NAMES, Wanted, types_named
from director.domain.ids import CONNECTION, new_id
from director.domain.users import Principal
from director.store.engine import Store
from director.store.ownership import owner_of

log = structlog.get_logger()
router = APIRouter()

MAX_FRAME = 64 * 1024
"""Bytes of a frame of the client."""

PUSH = "director.push"
"""The extension of the server that takes messages as they go over the wire."""

_BAD_TOKEN, _NO_AUTH, _FORBIDDEN, _SLOW, _GOING_AWAY = 4401, 4408, 4403, 4008, 1012
_CLOSE_SECONDS = 5


class AuthFrame(Body):
    """The first frame of a client, and any later one with a fresh token."""

    type: Literal["auth"]
    token: Annotated[str, Field(max_length=8192)]
    cursor: Annotated[Int, Field(ge=0)] | None = None


def _known(name: str) -> str:
    types_named([name])
    return name


TypeName = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": TYPE_NAMES})]


class SubscribeFrame(Body):
    """Narrows what is sent, by the `type` of frames or by events; an empty one widens it again."""

    type: Literal["subscribe"]
    types: list[TypeName] | None = None
    session_id: str | None = None
    workflow_id: str | None = None


ClientFrame = AuthFrame | SubscribeFrame | SubscribeOutputFrame | UnsubscribeOutputFrame
_FRAME: TypeAdapter[ClientFrame] = TypeAdapter(Annotated[ClientFrame, Field(discriminator="type")])


class Greeting(Shape):
    """Who was let in, and the cursor to come back with if the connection breaks now."""

    connection_id: str
    cursor: int


class AuthOkFrame(Shape):
    """The answer to a good token."""

    type: Literal["auth_ok"]
    data: Greeting


class Complaint(Shape):
    """What was wrong with a frame of the client."""

    message: str
    details: Json = {}


class AuthErrorFrame(Shape):
    """The answer to a token that is not taken; the connection is closed after it."""

    type: Literal["auth_error"]
    data: Complaint


class ErrorFrame(Shape):
    """The answer to a frame that was not understood; the connection goes on."""

    type: Literal["error"]
    data: Complaint


FRAMES: list[type[Shape]] = [
    AuthFrame,
    SubscribeFrame,
    AuthOkFrame,
    AuthErrorFrame,
    ErrorFrame,
    *OUTPUT_FRAMES,
]
"""What is sent here beside the frames of events, for the API's description."""


class _ClosedError(Exception):
    """The connection is to be closed with a code and a reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


async def connect(socket: WebSocket) -> None:
    """Serve one client until it goes, is too slow, or its login is revoked."""
    await socket.accept()
    state = socket.app.state
    connection = _Connection(socket, state.store, state.tokens, state.hub, state.timing)
    parts = Parts(state.store, state.blobs, state.hub)
    try:
        _check_origin(socket, state.origins)
        await connection.serve(parts, state.output_kept)
    except _ClosedError as closed:
        await _close(socket, closed.code, closed.reason)
    except LoginRevokedError:
        await _close(socket, _BAD_TOKEN, "the login was revoked")
    except GoingAwayError:
        await _close(socket, _GOING_AWAY, "the server restarts")
    except WebSocketDisconnect:
        pass


# without the stacks that FastAPI holds for dependencies as long as a connection lasts
router.add_websocket_route("/ws", connect)


def _check_origin(socket: WebSocket, allowed: tuple[str, ...]) -> None:
    """Browsers say which page connects; other clients say nothing."""
    origin = socket.headers.get("origin")
    if origin and allowed and origin not in allowed and "*" not in allowed:
        raise _ClosedError(_FORBIDDEN, "this origin is not in DIRECTOR_CORS_ORIGINS")


async def _close(socket: WebSocket, code: int, reason: str) -> None:
    """A client that takes nothing does not take a close either: it is waited for only so long."""
    with suppress(RuntimeError, TimeoutError, WebSocketDisconnect):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await socket.close(code, reason)


class _Connection:
    def __init__(
        self, socket: WebSocket, store: Store, tokens: Tokens, hub: Hub, timing: Timing
    ) -> None:
        self._socket, self._store, self._tokens, self._hub = socket, store, tokens, hub
        self._timing = timing
        self._id = new_id(CONNECTION)
        self._filter = SubscribeFrame(type="subscribe")
        self._principal: Principal

    async def serve(self, parts: Parts, kept: timedelta | None) -> None:
        """Authenticate, then send and listen until one of them ends."""
        frame = await self._first_frame()
        await self._authenticate(frame)
        login_id = self._principal.login_id
        with self._hub.listening(login_id, self._wanted(), frame.cursor) as listener:
            await self._greet(listener)
            listener.push = self._socket.scope["extensions"].get(PUSH, {}).get("push")
            seconds = self._timing.send_seconds
            outputs = OutputSubscriptions(parts, kept, self._send, seconds, listener.end)
            hearing = asyncio.create_task(self._hear(listener, outputs))
            try:
                await pump(listener, self._write, seconds)
            except SlowError:
                where = written({"reason": "too slow", "cursor": listener.cursor})
                raise _ClosedError(_SLOW, where) from None
            finally:
                hearing.cancel()
                await asyncio.gather(hearing, return_exceptions=True)
                await outputs.close()

    async def _hear(self, listener: Listener, outputs: OutputSubscriptions) -> None:
        """Take the client's frames; what ends that ends the sending, too."""
        try:
            while True:
                frame = await self._receive()
                if isinstance(frame, OutputFrame):
                    await outputs.take(frame, self._principal)
                else:
                    await self._take(frame, listener)
        except Exception as error:
            listener.end(error)

    async def _take(self, frame: AuthFrame | SubscribeFrame | None, listener: Listener) -> None:
        if isinstance(frame, AuthFrame):
            await self._authenticate(frame)
            listener.login_id = self._principal.login_id
            await self._greet(listener)
        elif frame is not None:
            self._filter = frame
        listener.wanted = self._wanted()

    def _wanted(self) -> Wanted:
        asked = self._filter
        return Wanted(
            owner_id=owner_of(self._principal),
            types=None if asked.types is None else types_named(asked.types),
            session_id=asked.session_id,
            workflow_id=asked.workflow_id,
        )

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

    async def _greet(self, listener: Listener) -> None:
        greeting = Greeting(connection_id=self._id, cursor=listener.cursor)
        await self._send("auth_ok", greeting.model_dump(mode="json"))

    async def _receive(self, refusal: str = "error") -> ClientFrame | None:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        try:
            return _read(message)
        except DirectorError as error:
            await self._send(refusal, {"message": error.message, "details": error.details})
            return None

    async def _refuse(self, message: str) -> None:
        await self._send("auth_error", {"message": message})

    async def _send(self, kind: str, data: Json) -> None:
        await self._socket.send_text(written({"type": kind, "data": data}))

    async def _write(self, frame: Frame) -> None:
        await self._socket.send_text(frame.text)


def _read(message: Message) -> ClientFrame:
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
