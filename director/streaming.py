"""Answers that are sent while they are made."""

from collections.abc import AsyncGenerator

import structlog
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from director.domain.errors import BrokenOffError

log = structlog.get_logger()


class Streamed(StreamingResponse):
    """An answer whose end is missing, as HTTP has it, where it breaks off."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and let what makes it come to its end, also where nobody takes the rest."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            if isinstance(self.body_iterator, AsyncGenerator):
                await self.body_iterator.aclose()

    async def stream_response(self, send: Send) -> None:
        """Send it; what is broken off stays without the end that HTTP would mark."""
        try:
            await super().stream_response(send)
        except BrokenOffError as error:
            log.info("a stream was broken off", why=str(error))
