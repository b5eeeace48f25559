"""Listeners on the WebSocket that lose their connection and resume with their cursor."""

import asyncio
import json
from random import Random
from typing import Any

from chaos.client import Api
from chaos.observations import ENDED, Frame
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

_PAUSE = 0.2
_LONGEST_LIFE = 12.0


class Listener:
    """One client; between two connections it remembers nothing but its cursor."""

    def __init__(self, api: Api, address: str, seed: str) -> None:
        self._api, self._random = api, Random(seed)
        self._address = address.replace("http", "ws") + "/v1/ws"
        self.cursor = 0
        self.frames: list[Frame] = []
        self.ended: set[str] = set()
        """Runs whose end it has heard of."""
        self.connections = 0
        self.faults: list[str] = []

    async def listen(self) -> None:
        """Listen for ever."""
        while True:
            try:
                async with asyncio.timeout(self._random.uniform(1.0, _LONGEST_LIFE)):
                    await self._connected()
            except (OSError, TimeoutError, WebSocketException):
                await asyncio.sleep(self._random.uniform(0, 2 * _PAUSE))

    async def _connected(self) -> None:
        async with connect(self._address, open_timeout=3, close_timeout=0.2, proxy=None) as socket:
            auth = {"type": "auth", "token": self._api.token, "cursor": self.cursor}
            await socket.send(json.dumps(auth))
            self.connections += 1
            async for text in socket:
                await self._heard(socket, json.loads(text))

    async def _heard(self, socket: ClientConnection, frame: dict[str, Any]) -> None:
        kind, data = frame["type"], frame["data"]
        if kind == "auth_error":
            await self._api.login()
            await socket.close()
        elif kind in ("error", "resync_required"):
            self.faults.append(f"a listener with cursor {self.cursor} got {kind}: {data}")
        elif "id" in frame:
            self.frames.append(_frame(frame, data))
            self.cursor = frame["id"]
            if "runId" in data and data["status"] in ENDED:
                self.ended.add(data["runId"])


def _frame(frame: dict[str, Any], data: dict[str, Any]) -> Frame:
    event, now = frame["event"], data.get("currentStep")
    steps = {"step.queued": now, "step.started": now, "step.ended": data.get("endedStep")}
    named = steps.get(event)
    return Frame(
        id=frame["id"],
        subject=data.get("runId") or data["sessionId"],
        seq=frame["seq"],
        event=event,
        status=str(data.get("status")),
        step=f"{named['index'] + 1}.{named['attempt']}" if named else "",
    )
