"""The routes of a worker's endpoint. Whoever asks shows a pass for what is asked for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from director.blobs.tar_streams import Taken, take
from director.domain.errors import (
    BrokenOffError,
    ConflictError,
    DirectorError,
    UnavailableError,
    ValidationError,
)
from director.domain.trees import PathError
from director.endpoint.passes import Passes, Verb
from director.sandbox.runtime import SandboxNotFoundError, SandboxRuntime
from director.streaming import Streamed

log = structlog.get_logger()

AT_ONCE = 32
"""Transfers that a worker serves at the same time; each may cost some hundred descriptors."""

_STALL_SECONDS = 60.0
"""How long a reader may take for a block before its transfer is given up."""


class Routes:
    """What a worker gives of the sandboxes on its host."""

    def __init__(
        self,
        host_id: str,
        runtime: SandboxRuntime,
        passes: Passes,
        *,
        at_once: int = AT_ONCE,
        stall_seconds: float = _STALL_SECONDS,
    ) -> None:
        self._host_id, self._runtime, self._passes = host_id, runtime, passes
        self._at_once, self._stall_seconds = at_once, stall_seconds
        self._going = 0

    def app(self) -> Starlette:
        """The application with all routes."""
        routes = [Route("/sandboxes/{sandbox_id}/files", self.files, methods=["GET"])]
        return Starlette(routes=routes, exception_handlers={DirectorError: _told})

    async def files(self, request: Request) -> Response:
        """A file of a workspace, or a folder as a tar, while it is read."""
        sandbox_id = request.path_params["sandbox_id"]
        self._check(request, sandbox_id, "read")
        path = _path(request)
        if self._going >= self._at_once:
            raise UnavailableError("the host serves too many transfers at once: try it again")
        self._going += 1
        try:
            taken = await run_in_threadpool(self._take, sandbox_id, path)
        except BaseException:
            self._going -= 1
            raise
        return _Transfer(self, taken)

    def let_go(self, taken: Taken) -> None:
        """Note that a transfer is over."""
        self._going -= 1
        taken.close()

    @property
    def stall_seconds(self) -> float:
        """How long a reader may take for a block."""
        return self._stall_seconds

    def _check(self, request: Request, object_id: str, verb: Verb) -> None:
        _, _, shown = request.headers.get("authorization", "").partition("Bearer ")
        self._passes.check(shown, self._host_id, object_id, verb)

    def _take(self, sandbox_id: str, path: bytes) -> Taken:
        try:
            return take(Path(self._runtime.workspace(sandbox_id).path()), path)
        except SandboxNotFoundError as error:
            raise ConflictError(error.message) from error
        except PathError as error:
            raise ValidationError(f"path: {error}") from None


def _path(request: Request) -> bytes:
    """The path as its bytes are, which no decoding has changed."""
    return unquote_to_bytes(request.url.query.removeprefix("path="))


class _Transfer(Streamed):
    """A file or a tar on its way; it ends without HTTP's end where it does not come to its own."""

    def __init__(self, routes: Routes, taken: Taken) -> None:
        is_file = taken.size is not None
        kind = "application/octet-stream" if is_file else "application/x-tar"
        headers = {"Content-Length": str(taken.size)} if is_file else {}
        super().__init__(_blocks(taken), media_type=kind, headers=headers)
        self._routes, self._taken = routes, taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, self._patiently(send))
        finally:
            self._routes.let_go(self._taken)

    def _patiently(self, send: Send) -> Send:
        async def sent(message):  # type: ignore[no-untyped-def]
            try:
                async with asyncio.timeout(self._routes.stall_seconds):
                    await send(message)
            except TimeoutError:
                raise BrokenOffError("nobody takes what is sent") from None

        return sent


async def _blocks(taken: Taken) -> AsyncIterator[bytes]:
    """Each block by a thread, which is waited for also when the transfer is given up."""
    blocks = taken.blocks()
    try:
        while block := await run_in_threadpool(next, blocks, b""):
            yield block
    except OSError as error:
        raise BrokenOffError(str(error)) from error
    finally:
        blocks.close()


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, DirectorError)  # noqa: S101 - tells the type checker
    told = {"code": error.code, "message": error.message, "details": error.details}
    return JSONResponse(told, error.status)
