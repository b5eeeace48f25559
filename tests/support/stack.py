"""API and worker in this process, on a real Temporal server and with scripted sandboxes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from support.networks import ScriptedHost
from support.scripts import Gates
from support.server import free_port
from support.waiting import until_so
from temporalio.client import Client
from temporalio.worker import Interceptor
from websockets.asyncio.client import ClientConnection, connect

from director.api.app import create_app
from director.api.gateway import Gateway
from director.api.server import Server
from director.blobs.store import LocalBlobs
from director.endpoint.app import Routes
from director.endpoint.passes import Passes
from director.endpoint.places import Places
from director.endpoint.server import Endpoint
from director.sandbox.scripted import ScriptedRuntime
from director.settings import Settings, read_settings
from director.store.engine import Store
from director.temporal import client as temporal
from director.worker import WorkerHost

Data = dict[str, Any]

ADMIN_PASSWORD = "correct horse battery"


class QuietServer(Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to pytest."""
        yield


@dataclass
class Stack:
    """What a test works with."""

    url: str
    settings: Settings
    store: Store
    temporal: Client
    runtime: ScriptedRuntime
    gates: Gates
    http: httpx.AsyncClient
    networks: ScriptedHost = field(default_factory=ScriptedHost)
    _worker: asyncio.Task[None] | None = field(default=None)
    _stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Call a route as admin; gives `data`, or fails the test with the error."""
        response = await self.http.request(method, path, json=body, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()["data"]

    async def session(self, **fields: Any) -> Data:
        """Make a session."""
        body = {"type": "director", "name": "A session", **fields}
        return dict(await self.call("POST", "/sessions", body))

    async def workflow(self, *steps: Any, session_id: str | None = None, **fields: Any) -> Data:
        """Make a workflow; a step that is a string is an `execute` of it."""
        if session_id is None:
            session_id = (await self.session())["id"]
        full = [
            {"type": "execute", "command": step} if isinstance(step, str) else step
            for step in steps
        ]
        body = {"sessionId": session_id, "name": "A workflow", "steps": full, **fields}
        return dict(await self.call("POST", "/workflows", body))

    async def start(self, workflow_id: str, body: Any = None) -> Data:
        """Start a run without waiting for it."""
        return dict(await self.call("POST", f"/workflows/{workflow_id}/start", body or {}))

    async def run(self, *steps: Any, start: Any = None, **fields: Any) -> Data:
        """Make a workflow, run it to its end and give the run."""
        workflow = await self.workflow(*steps, **fields)
        await self.start(workflow["id"], start)
        return await self.ended(workflow["id"])

    async def ended(self, workflow_id: str) -> Data:
        """Wait for the end of a workflow's latest run."""
        run = await self.call("GET", f"/workflows/{workflow_id}/status?wait=60")
        assert run["completedAt"], f"the run has not ended: {run['status']}"
        return dict(run)

    async def until(self, workflow_id: str, status: str) -> Data:
        """Wait until the latest run has a status."""

        async def reached() -> Data | None:
            run = dict(await self.call("GET", f"/workflows/{workflow_id}/status"))
            return run if run["status"] == status else None

        return dict(await until_so(reached, f"run of {workflow_id} is {status}"))

    @asynccontextmanager
    async def listening(self, **auth: Any) -> AsyncIterator[ClientConnection]:
        """A WebSocket that is authenticated as admin."""
        token = self.http.headers["Authorization"].removeprefix("Bearer ")
        async with connect(self.url.replace("http", "ws") + "/v1/ws") as socket:
            await socket.send(json.dumps({"type": "auth", "token": token, **auth}))
            assert json.loads(await socket.recv())["type"] == "auth_ok"
            yield socket

    async def user(self, username: str, role: str) -> httpx.AsyncClient:
        """Make a user, unless they are there, and log in as them."""
        body = {"username": username, "password": ADMIN_PASSWORD, "role": role}
        made = await self.http.post("/users", json=body)
        assert made.status_code in (201, 409), made.text
        return await logged_in(self.url, username)

    async def start_worker(self, *interceptors: Interceptor) -> None:
        """Serve runs with the scripted sandboxes. Interceptors see each activity."""
        host = WorkerHost(
            self.temporal,
            self.store,
            LocalBlobs(self.settings.home / "blobs"),
            self.runtime,
            host_id="scripted",
            image="scripted-image",
            places=16,
            networks=self.networks.networks(self.store, "scripted"),
            endpoint=Endpoint(
                Routes("scripted", self.runtime, Passes(self.settings.secret_keys)).app(),
                Places(self.settings.home, "scripted"),
            ),
            interceptors=interceptors,
        )
        self._stopped = asyncio.Event()
        self._worker = asyncio.create_task(host.run(self._stopped))
        await self._until_ready()

    async def stop_worker(self) -> None:
        """Stop as SIGTERM does."""
        self._stopped.set()
        if self._worker is not None:
            await self._worker
            self._worker = None

    async def _until_ready(self) -> None:
        for _ in range(200):
            if (await self.http.get(f"{self.url}/readyz")).status_code == 200:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the worker does not poll")


async def logged_in(url: str, username: str) -> httpx.AsyncClient:
    """A client with a fresh token."""
    http = httpx.AsyncClient(base_url=f"{url}/v1", timeout=70, verify=False)
    body = {"username": username, "password": ADMIN_PASSWORD}
    tokens = (await http.post("/auth/login", json=body)).json()["data"]
    http.headers["Authorization"] = f"Bearer {tokens['token']}"
    return http


@asynccontextmanager
async def running_stack(
    folder: Path,
    temporal_address: str,
    namespace: str,
    gateway: Callable[[Client], Gateway] = Gateway,
    *,
    url: str = "",
) -> AsyncIterator[Stack]:
    """A whole Director in this process, with everything of its own below `folder`, but for the
    database of a URL."""
    settings = read_settings(
        {
            "DIRECTOR_DATABASE_URL": url,
            "DIRECTOR_HOME": str(folder / "home"),
            "DIRECTOR_PORT": str(free_port()),
            "DIRECTOR_TEMPORAL_ADDRESS": temporal_address,
            "DIRECTOR_TEMPORAL_NAMESPACE": namespace,
            "DIRECTOR_ADMIN_PASSWORD": ADMIN_PASSWORD,
        }
    )
    client = await temporal.connect(temporal_address, namespace, lazy=False)
    await temporal.prepare_namespace(client)
    async with _served(create_app(settings, gateway), settings):
        store, gates = Store(settings.database_url), Gates()
        address = f"http://127.0.0.1:{settings.port}"
        runtime = ScriptedRuntime(folder / "sandboxes", gates.script)
        http = await logged_in(address, "admin")
        stack = Stack(address, settings, store, client, runtime, gates, http)
        await stack.start_worker()
        try:
            yield stack
        finally:
            await stack.stop_worker()
            await http.aclose()
            store.close()


@asynccontextmanager
async def _served(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    settings.home.mkdir(parents=True, exist_ok=True)
    server = QuietServer(app, "127.0.0.1", settings.port)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
