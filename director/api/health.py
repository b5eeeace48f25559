"""`/healthz`: the process lives. `/readyz`: it can do its work. Both open and unversioned."""

from collections.abc import Callable

import structlog
from fastapi import APIRouter
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session, select

from director import __version__
from director.api.envelope import Answer, answer
from director.api.errors import documented
from director.api.state import GatewayDep, StoreDep
from director.domain.base import Shape
from director.domain.errors import UnavailableError
from director.store import hosts
from director.store.engine import Store

log = structlog.get_logger()
router = APIRouter(tags=["health"])


class Alive(Shape):
    """The process answers."""

    status: str = "alive"
    version: str = __version__


class Ready(Shape):
    """Every part that a run needs answers."""

    status: str = "ready"
    database: bool
    temporal: bool
    worker: bool


@router.get("/healthz", operation_id="health.alive")
async def alive() -> Answer[Alive]:
    """Tell that the process lives."""
    return answer(Alive())


@router.get("/readyz", operation_id="health.ready", responses=documented(UnavailableError))
async def ready(store: StoreDep, gateway: GatewayDep) -> Answer[Ready]:
    """Ask the database, Temporal, and for at least one worker."""
    database = await _answers(store)
    temporal = await gateway.answers()
    # Temporal remembers whoever polled for minutes; a host's lease is over in seconds
    worker = temporal and await gateway.has_worker() and await _has_host(store)
    parts = Ready(database=database, temporal=temporal, worker=worker)
    missing = [name for name in ("database", "temporal", "worker") if not getattr(parts, name)]
    if missing:
        details = parts.model_dump(exclude={"status"})
        raise UnavailableError(f"not ready: no answer from {', '.join(missing)}", **details)
    return answer(parts)


async def _answers(store: Store) -> bool:
    return await _holds(store, lambda session: session.exec(select(1)).one() == 1)


async def _has_host(store: Store) -> bool:
    return await _holds(store, lambda session: bool(hosts.living(session)))


async def _holds(store: Store, condition: Callable[[Session], bool]) -> bool:
    try:
        return await store.fetch(condition)
    except SQLAlchemyError:
        log.exception("the database does not answer")
        return False
