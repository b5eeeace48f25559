"""A client of the API as anybody could write it: JSON over HTTP, progress over the WebSocket."""

import json
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from director.domain.base import Json

_SECONDS = 90
"""Longer than any `?wait=` that is asked for."""


class ClientError(Exception):
    """The API refused something or does not answer; the message says what."""


class Client:
    """Speaks with one API as one user."""

    def __init__(self, api: str) -> None:
        self._api = api
        # Proxies are for the world outside, never for this machine.
        self._http = httpx.Client(base_url=f"{api}/v1", timeout=_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def login(self, username: str, password: str) -> None:
        """Log in; every further request carries the token. Raises ClientError."""
        answer = self.post("/auth/login", {"username": username, "password": password})
        self._http.headers["Authorization"] = f"Bearer {answer['token']}"

    def get(self, path: str) -> Json:
        """The `data` of an answer. Raises ClientError."""
        return self._data("GET", path)

    def post(self, path: str, body: Json | None = None) -> Json:
        """The `data` of an answer. Raises ClientError."""
        return self._data("POST", path, json=body or {})

    def upload(self, archive: bytes, name: str) -> Json:
        """Send an archive. Raises ClientError."""
        headers = {"Content-Type": "application/gzip"}
        return self._data(
            "POST", "/archives", content=archive, headers=headers, params={"name": name}
        )

    def output(self, path: str) -> Iterator[bytes]:
        """A step's output, as it comes, until the step has ended. Raises ClientError."""
        try:
            with self._http.stream("GET", path, params={"follow": "true"}) as response:
                response.raise_for_status()
                yield from response.iter_raw()
        except httpx.HTTPError as error:
            raise ClientError(f"the output was not readable to its end: {error}") from error

    @contextmanager
    def socket(self, session_id: str) -> Iterator[ClientConnection]:
        """The WebSocket, authenticated, and narrowed to a session's workflows."""
        token = self._http.headers["Authorization"].removeprefix("Bearer ")
        address = self._api.replace("http", "ws", 1) + "/v1/ws"
        try:
            with connect(address, proxy=None) as socket:
                socket.send(json.dumps({"type": "auth", "token": token}))
                _check_authenticated(json.loads(socket.recv(_SECONDS)))
                narrowed = {"types": ["workflow_progress"], "sessionId": session_id}
                socket.send(json.dumps({"type": "subscribe", **narrowed}))
                yield socket
        except (OSError, WebSocketException) as error:
            raise ClientError(f"the WebSocket at {address} failed: {error}") from error

    def _data(self, method: str, path: str, **parts: Any) -> Json:
        try:
            response = self._http.request(method, path, **parts)
            answer = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ClientError(f"{method} {path} got no answer: {error}") from error
        if not answer.get("success"):
            told = answer.get("error", {})
            said = f"{told.get('code')}: {told.get('message')}"
            raise ClientError(f"{method} {path} was answered {response.status_code} {said}")
        data: Json = answer["data"]
        return data


def _check_authenticated(frame: Json) -> None:
    if frame["type"] != "auth_ok":
        raise ClientError(f"the WebSocket did not take the token: {frame['data']}")


class Feed:
    """What threads read from the socket and of outputs, for the one thread that shows it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._items: queue.SimpleQueue[Json | bytes | ClientError | None] = queue.SimpleQueue()
        self.following = False
        """Whether more of an output may come."""

    def listen(self, socket: ClientConnection) -> None:
        """Take the frames of a socket from now on."""
        _in_background(self._listen, socket)

    def follow(self, path: str) -> None:
        """Take a step's output from now on."""
        self.following = True
        _in_background(self._follow, path)

    def take(self, seconds: float) -> Sequence[Json | bytes | None]:
        """What has come, None for the end of an output; waits so long for something.

        Raises ClientError."""
        found: list[Json | bytes | None] = []
        try:
            while True:
                item = self._items.get(timeout=0 if found else seconds)
                if isinstance(item, ClientError):
                    raise item
                if item is None:
                    self.following = False
                found.append(item)
        except queue.Empty:
            return found

    def _listen(self, socket: ClientConnection) -> None:
        try:
            for message in socket:
                self._items.put(json.loads(message))
            reason = "it was closed"
        except (OSError, WebSocketException) as error:
            reason = str(error)
        self._items.put(ClientError(f"the WebSocket ended: {reason}"))

    def _follow(self, path: str) -> None:
        try:
            for content in self._client.output(path):
                self._items.put(content)
            self._items.put(None)
        except ClientError as error:
            self._items.put(error)


def _in_background(target: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=target, args=arguments, daemon=True).start()
