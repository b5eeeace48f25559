"""Listening to the events of a Director through its WebSocket."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from e2e.installation import Data, Installation
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


@contextmanager
def listening(director: Installation, **auth: Any) -> Iterator[ClientConnection]:
    """A WebSocket that is authenticated as admin."""
    token = director.user.token()
    with connect(director.stack.api.replace("http", "ws") + "/v1/ws") as socket:
        socket.send(json.dumps({"type": "auth", "token": token, **auth}))
        assert json.loads(socket.recv(timeout=30))["type"] == "auth_ok"
        yield socket


def frames(socket: ClientConnection, *, until_silent: bool = False) -> Iterator[Data]:
    """What comes, until the connection breaks or nothing has come for half a second."""
    try:
        while True:
            yield json.loads(socket.recv(timeout=0.5 if until_silent else 30))
    except TimeoutError:
        assert until_silent, "the frame that was waited for did not come"
    except ConnectionClosed:
        return
