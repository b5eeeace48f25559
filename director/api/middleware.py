"""Pure ASGI middleware: the request's id, the log's context, and the last line of defence."""

import re
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from director.api.envelope import request_id
from director.api.errors import error_response
from director.domain.errors import DirectorError
from director.domain.ids import REQUEST, new_id

log = structlog.get_logger()

_QUIET = ("/healthz", "/readyz")
_IDS = re.compile(r"/(session|department|workflow|run|checkpoint)s/([a-z]+_[0-9a-z]{26})(?=/|$)")
_SENT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class RequestMiddleware:
    """Give each request an id, bind it to the log, and answer a fault with a 500 envelope."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        this_id = _id_of(scope)
        token = request_id.set(this_id)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=this_id, **_ids_in(scope["path"]))
        try:
            await self._guarded(scope, receive, send, this_id)
        finally:
            request_id.reset(token)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, this_id: str) -> None:
        started, status, begun = False, 0, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                message.setdefault("headers", []).append((b"x-request-id", this_id.encode()))
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            log.exception("unhandled fault", path=scope["path"])
            if started or scope["type"] != "http":
                raise
            error = DirectorError(f"internal error; quote the request id {this_id}")
            await error_response(error)(scope, receive, send_with_id)
        finally:
            if scope["type"] == "http" and scope["path"] not in _QUIET:
                took = round((time.perf_counter() - begun) * 1000, 1)
                log.info(
                    "request", method=scope["method"], path=scope["path"], status=status, ms=took
                )


def _ids_in(path: str) -> dict[str, str]:
    """The ids that a path names, for every log line of its request."""
    return {f"{noun}_id": id for noun, id in _IDS.findall(path)}


def _id_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SENT_ID.fullmatch(sent := value.decode("latin-1")):
            return str(sent)
    return new_id(REQUEST)
