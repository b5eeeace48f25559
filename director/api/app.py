"""The API's root: from settings to an application."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import copy
from functools import partial

import structlog
from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import RedirectResponse
from fastapi_offline import FastAPIOffline
from starlette.routing import Route, WebSocketRoute, compile_path
from temporalio.client import Client

from director import API_VERSION
from director.api import (
    archives,
    auth,
    checkpoints,
    context,
    departments,
    events,
    executions,
    files,
    health,
    hosts,
    messages,
    networks,
    runs,
    sandboxes,
    security,
    sessions,
    users,
    workflows,
    ws,
)
from director.api.errors import install_error_handlers
from director.api.gateway import Gateway
from director.api.hub import Hub
from director.api.idempotency import answered
from director.api.listeners import Timing
from director.api.middleware import RequestMiddleware
from director.api.once import Answered, Desk
from director.api.openapi import install_openapi
from director.api.tokens import Tokens
from director.api.transfers import Transfers
from director.blobs.places import open_blobs
from director.blobs.touched import TouchedBlobs
from director.domain.lifetimes import Terms
from director.endpoint.passes import Passes
from director.settings import Settings
from director.store.blobs import touch_now
from director.store.engine import Store
from director.temporal.client import connect

log = structlog.get_logger()

_VERSIONED = (
    auth,
    users,
    hosts,
    sessions,
    messages,
    departments,
    context,
    runs,
    workflows,
    archives,
    checkpoints,
    executions,
    files,
    sandboxes,
    networks,
    security,
    events,
    ws,
)
_EXPOSED = ["X-Request-Id", "ETag", "Location", "Idempotency-Replayed", "Retry-After"]


def create_app(settings: Settings, gateway: Callable[[Client], Gateway] = Gateway) -> FastAPI:
    """The application with all its routes; its parts are opened when it starts to serve."""
    app = FastAPIOffline(
        title="Director",
        version=API_VERSION,
        description="Durable workflows for people and AI agents, in Docker sandboxes on Temporal.",
        lifespan=_lifespan(settings, gateway),
        redirect_slashes=False,
    )
    install_error_handlers(app)
    app.add_exception_handler(Answered, answered)
    for module in _VERSIONED:
        _add(app, module.router, "/v1")
    _add(app, health.router, "")
    app.add_api_route("/", _to_docs, include_in_schema=False)
    install_openapi(app, ws.FRAMES)
    app.state.origins, app.state.timing = settings.cors_origins, Timing()
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=_EXPOSED,
        )
    app.add_middleware(RequestMiddleware)
    return app


def _add(app: FastAPI, router: APIRouter, prefix: str) -> None:
    """Serve a router's routes as the application's own, below a prefix.

    The framework matches what is in a router of a router twice for each request."""
    for route in router.routes:
        assert isinstance(route, Route | WebSocketRoute)  # noqa: S101 - tells the type checker
        mine = copy(route)
        mine.path = prefix + route.path
        mine.path_regex, mine.path_format, mine.param_convertors = compile_path(mine.path)
        app.router.routes.append(mine)


def _lifespan(settings: Settings, gateway: Callable[[Client], Gateway]):  # type: ignore[no-untyped-def]
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store = Store(settings.database_url)
        store.create_tables()
        tokens = Tokens(settings.secret_keys)
        if notice := users.ensure_first_admin(store, settings, tokens.passwords):
            log.info(notice)
        client = await connect(
            settings.temporal_address,
            settings.temporal_namespace,
            tls=settings.temporal_tls,
            api_key=settings.temporal_api_key,
            lazy=True,
        )
        hub = Hub(store)
        app.state.store, app.state.tokens, app.state.hub = store, tokens, hub
        app.state.gateway, app.state.desk = gateway(client), Desk(settings.secret_keys)
        app.state.transfers = Transfers(settings.home, Passes(settings.secret_keys))
        blobs = open_blobs(settings.blob_url)
        app.state.blobs = TouchedBlobs(blobs, partial(touch_now, store))
        app.state.output_kept = settings.output_retention
        app.state.terms = Terms(
            sandboxes=settings.sandbox_quota,
            networks=settings.network_quota,
            runs=settings.run_quota,
            disk_mib=settings.sandbox_disk_mib,
            pool=settings.network_pool,
            images=settings.allowed_images,
            git=settings.git,
        )
        async with hub.running():
            yield
        await app.state.desk.close(store)
        store.close()

    return lifespan


async def _to_docs() -> RedirectResponse:
    return RedirectResponse("/docs")
