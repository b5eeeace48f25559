"""Many WebSocket listeners in one process, each as cheap as can be: a frame costs them its time
and a copy. What was in it is looked at afterwards."""

import asyncio
import base64
import json
import os
import time
from datetime import datetime
from typing import Any, cast

import uvloop

from bench.processes import answer

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_AT_ONCE = 20
_PATIENCE = 30


class Listener(asyncio.Protocol):
    """One connection: shakes hands, says what it has to, then notes when frames come."""

    def __init__(self, path: str, first: bytes | None, kept: list[tuple[float, bytes]]) -> None:
        self._path, self._first, self._kept = path, first, kept
        self._open, self._buffer = False, b""
        self._transport: asyncio.Transport
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.closed = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the upgrade."""
        self._transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Take the time first."""
        now = time.time()
        self._buffer += data
        if not self._open and not self._opened():
            return
        while (frame := self._frame()) is not None:
            self._got(now, *frame)

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember that nothing comes any more."""
        self.closed = self.closed or f"lost: {exc}"
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(self.closed))

    def close(self) -> None:
        """Go, as a client that is ended goes."""
        self._transport.abort()

    def _opened(self) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        if not head.startswith(b"HTTP/1.1 101"):
            self.closed = head[:200].decode(errors="replace")
            self._transport.abort()
            return False
        self._open, self._buffer = True, rest
        if self._first is None:
            self.ready.set_result(None)
        else:
            self._send(_TEXT, self._first)
        return True

    def _frame(self) -> tuple[int, bytes] | None:
        """A server's frame: never masked, and none of ours is in pieces."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, begin = buffer[1] & 0x7F, 2
        if length >= 126:
            begin = 4 if length == 126 else 10
            if len(buffer) < begin:
                return None
            length = int.from_bytes(buffer[2:begin], "big")
        if len(buffer) < begin + length:
            return None
        self._buffer = buffer[begin + length :]
        return buffer[0] & 0xF, buffer[begin : begin + length]

    def _got(self, now: float, opcode: int, content: bytes) -> None:
        if opcode == _PING:
            self._send(_PONG, content)
        elif opcode == _CLOSE:
            self.closed = f"closed: {content!r}"
        elif not self.ready.done():
            if b"auth_ok" in content:
                self.ready.set_result(None)
            else:
                self.ready.set_exception(ConnectionError(content.decode()))
        elif b'"step.ended"' in content:
            self._kept.append((now, content))

    def _send(self, opcode: int, content: bytes) -> None:
        """A client's frame, masked with zeros."""
        length = len(content)
        head = bytes([0x80 | opcode])
        if length < 126:
            head += bytes([0x80 | length])
        else:
            head += bytes([0x80 | 126]) + length.to_bytes(2, "big")
        self._transport.write(head + bytes(4) + content)


class Listeners:
    """All of this process."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []
        self._kept: list[tuple[float, bytes]] = []

    async def connect(self, port: int, path: str, count: int, token: str | None = None) -> Any:
        """Connect so many, and authenticate them where there is a token."""
        first = None if token is None else json.dumps({"type": "auth", "token": token}).encode()
        free, loop = asyncio.Semaphore(_AT_ONCE), asyncio.get_running_loop()

        async def one() -> None:
            async with free:
                _, listener = await loop.create_connection(
                    lambda: Listener(path, first, self._kept), "127.0.0.1", port
                )
                await asyncio.wait_for(listener.ready, _PATIENCE)
                self._listeners.append(listener)

        await asyncio.gather(*(one() for _ in range(count)))

    async def collect(self) -> Any:
        """How many milliseconds after the step's end each frame came, and how large one is."""
        kept = list(self._kept)
        self._kept.clear()
        gone = [listener.closed for listener in self._listeners if listener.closed]
        millis = [(at - _told_at(content)) * 1000 for at, content in kept]
        sample = kept[-1][1].decode() if kept else ""
        return {"millis": millis, "gone": gone, "frame": sample}

    async def close(self) -> Any:
        """Close all of them."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()


def _told_at(content: bytes) -> float:
    """When it happened, on this machine's clock. Director says it in milliseconds, so that a frame
    looks half a millisecond older than it is."""
    said = json.loads(content)
    if "at" in said:
        return float(said["at"])
    return datetime.fromisoformat(said["timestamp"]).timestamp()


async def main() -> None:
    """Do what is asked."""
    listeners = Listeners()
    await answer(
        {
            "connect": listeners.connect,
            "collect": listeners.collect,
            "close": listeners.close,
        }
    )


if __name__ == "__main__":
    uvloop.run(main())
