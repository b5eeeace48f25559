"""Whether Director lives and can work, as a load balancer asks."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from support.server import free_port
from support.stack import Data, Stack

from director.api import health
from director.api.errors import install_error_handlers
from director.api.gateway import Gateway
from director.api.middleware import RequestMiddleware
from director.store.engine import Store
from director.temporal import client as temporal

Refusal = Callable[[httpx.Response, int, str], Data]


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("/healthz", {"status": "alive"}),
        ("/readyz", {"status": "ready", "database": True, "temporal": True, "worker": True}),
    ],
)
async def test_health_is_told_without_a_token(stack: Stack, path: str, data: Data) -> None:
    async with httpx.AsyncClient(verify=False) as stranger:
        response = await stranger.get(stack.url + path)
        unversioned = await stranger.get(f"{stack.url}/v1{path}")
    assert response.status_code == 200
    assert response.json()["data"].items() >= data.items()
    assert response.json()["metadata"]["requestId"] == response.headers["x-request-id"]
    assert unversioned.status_code == 404


@pytest.mark.parametrize("away", ["sqlite:///{}/gone/director.db", "postgresql://a@127.0.0.1:{}/b"])
async def test_what_does_not_answer_is_named_in_a_503(
    tmp_path: Path, refused: Refusal, away: str
) -> None:
    app = FastAPI()
    install_error_handlers(app)
    app.include_router(health.router)
    app.add_middleware(RequestMiddleware)
    where = tmp_path if away.startswith("sqlite") else free_port()
    app.state.store = Store(away.format(where))
    nowhere = f"127.0.0.1:{free_port()}"
    app.state.gateway = Gateway(await temporal.connect(nowhere, "default", lazy=True))

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://director") as client:
        details = refused(await client.get("/readyz"), 503, "SERVICE_UNAVAILABLE")
        assert (await client.get("/healthz")).status_code == 200
    app.state.store.close()

    assert (details["database"], details["temporal"], details["worker"]) == (False, False, False)
    assert "database, temporal, worker" in details["message"]
