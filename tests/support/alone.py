"""An API of its own with nothing behind it, whose log the test writes itself."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from sqlmodel import Session
from support.server import free_port
from support.stack import ADMIN_PASSWORD, QuietServer, logged_in
from support.waiting import until_so

from director.api.app import create_app
from director.api.hub import Hub
from director.api.listeners import Timing
from director.domain.events import EventType
from director.settings import read_settings
from director.store import events
from director.store.engine import Store

PROGRESS, DONE = EventType.WORKFLOW_PROGRESS, EventType.WORKFLOW_COMPLETED


@dataclass
class Alone:
    """What a test works with."""

    url: str
    http: httpx.AsyncClient
    store: Store
    hub: Hub
    server: QuietServer

    @property
    def token(self) -> str:
        """The access token of the admin."""
        return self.http.headers["Authorization"].removeprefix("Bearer ")

    async def tell(
        self, subject: str, kinds: Sequence[EventType], *, size: int = 0, owner: str = "usr_1"
    ) -> int:
        """Append events of a run in one transaction; gives the cursor behind them."""

        def append(session: Session) -> None:
            for kind in kinds:
                data = {"runId": subject, "status": "running", "padding": "x" * size}
                session_id, workflow_id = f"ses_{subject}", f"wf_{subject}"
                events.append(
                    session,
                    kind,
                    subject=subject,
                    owner_id=owner,
                    session_id=session_id,
                    workflow_id=workflow_id,
                    data=data,
                )

        await self.store.run(append)
        return await self.store.fetch(events.newest)

    async def unheard(self) -> None:
        """Wait until nobody listens: one that has left is let go a moment later."""
        await until_so(lambda: self.hub.count == 0, "nobody listens")


@asynccontextmanager
async def alone(
    folder: Path, timing: Timing | None = None, ping_seconds: float | None = None, **environ: str
) -> AsyncIterator[Alone]:
    """Serve it, with settings and times of its own."""
    settings = read_settings(
        {
            "DIRECTOR_HOME": str(folder / "home"),
            "DIRECTOR_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
            "DIRECTOR_ADMIN_PASSWORD": ADMIN_PASSWORD,
            **environ,
        }
    )
    settings.home.mkdir(parents=True, exist_ok=True)
    app, port = create_app(settings), free_port()
    app.state.timing = timing or Timing()
    server = QuietServer(app, "127.0.0.1", port)
    if ping_seconds is not None:
        server.config.ws_ping_interval = server.config.ws_ping_timeout = ping_seconds
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    http = await logged_in(f"http://127.0.0.1:{port}", "admin")
    try:
        yield Alone(f"http://127.0.0.1:{port}", http, app.state.store, app.state.hub, server)
    finally:
        await http.aclose()
        server.should_exit = True
        await task
