"""The HTTP server, as Director needs it, for its root and for tests."""

import os
import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from director.api.hub import Hub
from director.api.ws import PUSH

_PING_SECONDS, _PONG_SECONDS = 20, 40  # longer than a slow client is waited for: it gets 4008
_DEAD_MILLIS = 60_000
_IDLE_SECONDS = 75
"""Longer than clients keep a connection that is idle (httpx 5 s, balancers often 60): else one of
them sends a request just as it is closed, and cannot tell whether that was done."""
_MAX_MESSAGE = 1024 * 1024


class Socket(WebSocketsSansIOProtocol):
    """Takes messages also as they go over the wire, at once and past all layers between."""

    def handle_connect(self, event: Request) -> None:
        """Begin the connection, and tell the application that it may push."""
        super().handle_connect(event)
        if self.handshake_initiated and not self.handshake_complete:
            self.scope["extensions"][PUSH] = {"push": self.push}

    def push(self, message: bytes) -> bool:
        """Write a message; False where the client must be waited for, or is gone."""
        if not self.writable.is_set() or self.disconnected or self.close_sent:
            return False
        if self.transport.is_closing():
            return False
        self.transport.write(message)
        return True


class Server(uvicorn.Server):
    """Ends what listens before it waits for open connections; they would not end by themselves."""

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._app = app
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            ws=Socket,
            ws_ping_interval=_PING_SECONDS,
            ws_ping_timeout=_PONG_SECONDS,
            ws_max_size=_MAX_MESSAGE,
            ws_per_message_deflate=False,  # a context of its own for each listener: time and memory
            timeout_keep_alive=_IDLE_SECONDS,
            timeout_graceful_shutdown=5,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a peer that is gone without a word, or takes nothing, is given up in the end."""
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                with socket.socket(fileno=os.dup(listening.fileno())) as same:
                    same.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_MILLIS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all that listens or waits, then everything else."""
        hub: Hub = self._app.state.hub
        hub.close()
        await super().shutdown(sockets)
