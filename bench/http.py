"""HTTP as cheaply as asyncio can: a client that is not the bottleneck of what it measures."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

_END = b"\r\n\r\n"

_KEPT_SECONDS = 3.0
"""Servers close a connection that is idle for five seconds."""


class Connection:
    """A kept-open connection; one request at a time."""

    def __init__(self, port: int, headers: Mapping[str, str] | None = None) -> None:
        self._port = port
        self.headers = dict(headers or {})
        self._used = 0.0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of the answer. Raises OSError and EOFError where there is none."""
        now = asyncio.get_running_loop().time()
        if now - self._used > _KEPT_SECONDS:
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._head(method, path, body) + (body or b""))
        head = await reader.readuntil(_END)
        status, length = _read(head)
        content = await (_chunks(reader) if length is None else reader.readexactly(length))
        self._used = asyncio.get_running_loop().time()
        return status, content

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call a route of Director; gives `data`. Raises RuntimeError for an error."""
        raw = None if body is None else json.dumps(body).encode()
        status, content = await self.request(method, f"/v1{path}", raw)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {content[:1000].decode()}")
        return json.loads(content)["data"]

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    def _head(self, method: str, path: str, body: bytes | None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(lines).encode() + _END


def _read(head: bytes) -> tuple[int, int | None]:
    """The status, and the length of the body where it does not come in chunks."""
    first, *lines = head.split(b"\r\n")
    for line in lines:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(first.split()[1]), int(value)
        if name.lower() == b"transfer-encoding":
            return int(first.split()[1]), None
    raise ValueError(f"an answer without a length: {head[:200]!r}")


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    content = b""
    while size := int(await reader.readline(), 16):
        content += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return content


async def logged_in(port: int, password: str) -> Connection:
    """A connection to Director, as admin."""
    connection = Connection(port)
    login = {"username": "admin", "password": password}
    token = (await connection.call("POST", "/auth/login", login))["token"]
    connection.headers["Authorization"] = f"Bearer {token}"
    return connection
