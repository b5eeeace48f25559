"""Clients that listen in each of the three ways, lose their connection, and come back."""

import asyncio
import json
from abc import ABC, abstractmethod
from random import Random
from typing import Any

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

Seen = tuple[int, str, int]
"""Cursor, subject and seq of an event."""

_FAULTS = (OSError, TimeoutError, WebSocketException, httpx.TransportError)


def seen(frame: dict[str, Any]) -> Seen:
    """What of a frame tells whether it was missed or doubled."""
    data = frame["data"]
    return frame["id"], data.get("runId") or data["sessionId"], frame["seq"]


class Listener(ABC):
    """Between two connections it remembers nothing but its cursor."""

    def __init__(self, api: str, token: str, cursor: int, seed: str) -> None:
        self.api, self.token, self.cursor = api, token, cursor
        self.events: list[Seen] = []
        self.connections = 0
        self._random = Random(seed)

    async def listen(self) -> None:
        """Listen for ever."""
        while True:
            try:
                async with asyncio.timeout(self._random.uniform(0.2, 3.0)):
                    await self._connected()
            except _FAULTS:
                await asyncio.sleep(self._random.uniform(0, 0.2))

    @abstractmethod
    async def _connected(self) -> None:
        """Listen on one connection until it breaks."""

    def _heard(self, frame: dict[str, Any]) -> None:
        assert "seq" in frame, f"with cursor {self.cursor}: {frame}"
        self.events.append(seen(frame))
        self.cursor = frame["id"]

    def _http(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token}"}
        base = f"{self.api}/v1"
        return httpx.AsyncClient(base_url=base, headers=headers, timeout=10, verify=False)


class SocketListener(Listener):
    """On the WebSocket."""

    async def _connected(self) -> None:
        address = self.api.replace("http", "ws") + "/v1/ws"
        async with connect(address, open_timeout=3, close_timeout=0.2, proxy=None) as socket:
            auth = {"type": "auth", "token": self.token, "cursor": self.cursor}
            await socket.send(json.dumps(auth))
            assert json.loads(await socket.recv())["type"] == "auth_ok"
            self.connections += 1
            async for text in socket:
                self._heard(json.loads(text))


class StreamListener(Listener):
    """On the event stream, as a browser's EventSource does it."""

    async def _connected(self) -> None:
        headers = {"Last-Event-ID": str(self.cursor)}
        async with (
            self._http() as http,
            http.stream("GET", "/events/stream", headers=headers) as response,
        ):
            assert response.status_code == 200
            self.connections += 1
            data, last = None, None
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "data":
                    data = value
                elif name == "id":
                    last = int(value)
                elif not line and last is not None:
                    if data is not None:
                        self._heard(json.loads(data))
                    self.cursor, data = last, None


class PollListener(Listener):
    """With long-polls."""

    async def _connected(self) -> None:
        async with self._http() as http:
            self.connections += 1
            while True:
                params = {"after": self.cursor, "wait": 5, "limit": 7}
                response = await http.get("/events", params=params)
                assert response.status_code == 200, response.text
                body = response.json()
                for frame in body["data"]:
                    self._heard(frame)
                self.cursor = body["metadata"]["pagination"]["nextCursor"]
