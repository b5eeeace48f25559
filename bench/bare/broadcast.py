"""A bare broadcast with `websockets`: what is asked for goes to everybody who is connected.

`python -m bench.bare.broadcast PORT asyncio|uvloop`"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.processes import answer

_CONNECTED: set[ServerConnection] = set()


async def _handle(connection: ServerConnection) -> None:
    _CONNECTED.add(connection)
    try:
        await connection.wait_closed()
    finally:
        _CONNECTED.discard(connection)


async def send(frame: str, count: int, pause: float) -> Any:
    """Send a frame of that size so many times, the moment of sending in it."""
    fields = json.loads(frame)
    for _ in range(count):
        broadcast(_CONNECTED, json.dumps({**fields, "at": time.time()}, separators=(",", ":")))
        await asyncio.sleep(pause)


async def main(port: str) -> None:
    """Serve, and do what is asked."""
    async with serve(_handle, "127.0.0.1", int(port), ping_interval=20, compression=None):
        sys.stdout.write("serves\n")
        sys.stdout.flush()
        await answer({"send": send})


if __name__ == "__main__":
    if sys.argv[2] == "uvloop":
        uvloop.run(main(sys.argv[1]))
    else:
        asyncio.run(main(sys.argv[1]))
