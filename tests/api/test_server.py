"""The HTTP server keeps what clients rely on."""

import asyncio
from urllib.parse import urlsplit

import pytest
from support.stack import Stack

_REQUEST = b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True, scope="session")
async def test_an_idle_connection_is_there_for_longer_than_clients_keep_it(stack: Stack) -> None:
    at = urlsplit(stack.url)
    reader, writer = await asyncio.open_connection(at.hostname, at.port)
    try:
        writer.write(_REQUEST)
        first = await reader.readuntil(b"\r\n\r\n")
        with pytest.raises(TimeoutError):  # httpx keeps it for 5 s
            await asyncio.wait_for(reader.read(1), 6)
        writer.write(_REQUEST)
        second = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    assert first.split(b"\r\n")[0] == second.split(b"\r\n")[0]
