"""Serves a worker's endpoint in a thread of its own, with a loop of its own: whatever is streamed
holds up neither what Temporal asks of the worker nor its lease."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
import uvicorn
from starlette.applications import Starlette

from director.endpoint.places import Address, Places

log = structlog.get_logger()

_GRACE_SECONDS = 5
"""How long transfers may go on when the worker stops; they are broken off then."""


@dataclass(frozen=True)
class Endpoint:
    """An application, and where it listens: at an address, or at a socket in the home."""

    app: Starlette
    places: Places
    address: Address | None = None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve while the block lasts. Raises OSError where it cannot listen."""
        with ExitStack() as stack:
            listener = await asyncio.to_thread(
                stack.enter_context, self.places.listening(self.address)
            )
            server = uvicorn.Server(_config(self.app))
            thread = threading.Thread(
                target=server.run, args=([listener],), name="endpoint", daemon=True
            )
            thread.start()
            log.info("endpoint listens", address=str(self.address or self.places.folder))
            try:
                yield
            finally:
                server.should_exit = True
                await asyncio.to_thread(thread.join, 2 * _GRACE_SECONDS)


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
