"""What workers stream, given on to whoever asked for it, at the pace at which it is taken."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import structlog
from starlette.types import Receive, Scope, Send

from director.api.refusals import refusal
from director.domain.errors import BrokenOffError, DirectorError, HostAwayError
from director.endpoint.passes import Passes
from director.endpoint.places import Place, Places
from director.streaming import Streamed

log = structlog.get_logger()

_PATIENCE = 10.0
"""Seconds in which a worker that was ended is there again, or another one."""

_PAUSE = 0.5
_TIMES = httpx.Timeout(30, connect=2)
"""A worker goes through a folder before it begins to give it."""

_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # a usual one takes as long as a transfer

_AWAY = (
    "no worker of the sandbox's host answers: is it running? One on another machine than the API"
    " needs DIRECTOR_WORKER_ADDRESS. Try it again"
)

_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
_DISTRUSTED = "the sandbox's host does not trust the API: have both the same DIRECTOR_SECRET_KEY?"
_FAILED = "the sandbox's host could not read it now: its log says why. Try it again"


@dataclass
class Transfer:
    """A stream that a worker has begun. Close it at the end."""

    response: httpx.Response
    stack: AsyncExitStack

    async def blocks(self) -> AsyncIterator[bytes]:
        """What comes. Raises BrokenOffError where it does not come to its end."""
        try:
            async for block in self.response.aiter_raw():
                yield block
        except httpx.TransportError as error:
            why = f"the worker's stream broke off: {error or type(error).__name__}"
            raise BrokenOffError(why) from error

    async def close(self) -> None:
        """Let go of the worker."""
        await self.stack.aclose()


class Transfers:
    """Asks the workers of hosts for streams."""

    def __init__(self, home: Path, passes: Passes, patience: float = _PATIENCE) -> None:
        self._home, self._passes, self._patience = home, passes, patience

    async def read(self, host_id: str, sandbox_id: str, path: bytes) -> Transfer:
        """A file of a workspace, or a folder as a tar. Raises HostAwayError where no worker of the
        host answers, and what it says where it refuses."""
        deadline = time.monotonic() + self._patience
        target = f"/sandboxes/{sandbox_id}/files?path={quote(path)}"
        while True:
            shown = self._passes.make(host_id, sandbox_id, "read")
            found = await _asked(Places(self._home, host_id), target, shown)
            if isinstance(found, Transfer):
                return found
            if time.monotonic() > deadline:
                raise found
            await asyncio.sleep(_PAUSE)


async def _asked(places: Places, target: str, shown: str) -> Transfer | HostAwayError:
    """What the first worker gives that can, or why none can now."""
    why = HostAwayError(_AWAY)
    with places.announced() as announced:
        for place in announced:
            try:
                return await _opened(place, target, shown)
            except httpx.TransportError as error:
                log.info("a worker does not answer", why=str(error) or type(error).__name__)
            except _BusyError as error:
                why = error
    return why


class _BusyError(HostAwayError):
    """A worker cannot take it on now."""


async def _opened(place: Place, target: str, shown: str) -> Transfer:
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_client(place))
        headers = {"Authorization": f"Bearer {shown}", "Accept-Encoding": "identity"}
        asked = client.stream("GET", f"http://{place.address or 'worker'}{target}", headers=headers)
        response = await stack.enter_async_context(asked)
        if response.status_code != httpx.codes.OK:
            await response.aread()
            raise _refused(response)
        return Transfer(response, stack.pop_all())


def _client(place: Place) -> httpx.AsyncClient:
    """A client for one request: a worker may be gone before the next."""
    transport = httpx.AsyncHTTPTransport(uds=place.path, verify=_NO_TLS)
    return httpx.AsyncClient(transport=transport, timeout=_TIMES, trust_env=False)


def _refused(response: httpx.Response) -> DirectorError:
    told = _told(response)
    code, message = told.get("code"), told.get("message", "")
    if code == _BusyError.code:
        return _BusyError(message)
    error = refusal(code, message, told.get("details", {}))
    if error is None:
        status = response.status_code
        log.error("a worker did not do what it was asked for", status=status, why=told)
        error = HostAwayError(_DISTRUSTED if status in _REFUSED else _FAILED)
    return error


def _told(response: httpx.Response) -> dict[str, Any]:
    try:
        told = response.json()
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


class Passed(Streamed):
    """An answer that gives a worker's stream on."""

    def __init__(self, transfer: Transfer) -> None:
        given = transfer.response.headers
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        if (length := given.get("content-length")) is not None:
            headers["Content-Length"] = length
        super().__init__(transfer.blocks(), media_type=given["content-type"], headers=headers)
        self._transfer = transfer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and let go of the worker, however that ends."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._transfer.close()
