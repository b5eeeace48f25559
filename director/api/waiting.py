"""Waiting for what becomes of a sandbox, of a command in it, and for what its host answers."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from math import inf
from typing import Any, TypeVar

from sqlmodel import Session

from director.api.hub import Hub
from director.domain.hosts import LEASE
from director.domain.lifetimes import SandboxStatus
from director.store import away, sandboxes
from director.store.engine import Store
from director.store.tables import SandboxRow

T = TypeVar("T")

HOST_LOOK_SECONDS = 2.0
"""How often whoever waits for a host looks whether it still answers."""

HOST_PATIENCE = LEASE
"""How long a host may be away before whoever waits for it is told: a worker that is started again
goes on with what it was asked for."""


async def until(
    store: Store,
    hub: Hub,
    sandbox_id: str,
    condition: Callable[[SandboxStatus], bool],
    seconds: float,
) -> None:
    """Wait until the status of a sandbox is as wished, at most so long."""

    async def holds() -> bool:
        return condition(await store.fetch(lambda s: sandboxes.present(s, sandbox_id)))

    await awaited(hub, holds, seconds)


async def awaited(
    hub: Hub, holds: Callable[[], Awaitable[bool]], seconds: float, *, look: float = inf
) -> bool:
    """Wait until something in the database is so, at most so long; tells whether it is. What no
    event tells is seen by a `look` every so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        mark = hub.mark()
        if await holds():
            return True
        left = deadline - time.monotonic()
        if left <= 0 or hub.closed:
            return False
        await hub.changed(mark, min(left, look))


async def by_host(store: Store, sandbox_id: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """What the host of a sandbox answers to a call. Raises HostAwayError where it does not answer,
    and soon where it does not answer any more, long before the call would give up."""
    await store.fetch(lambda s: _check_host(s, sandbox_id, timedelta(0)))
    asking = asyncio.create_task(call())
    try:
        while not (await asyncio.wait({asking}, timeout=HOST_LOOK_SECONDS))[0]:
            await store.fetch(lambda s: _check_host(s, sandbox_id, HOST_PATIENCE))
        return await asking
    finally:
        asking.cancel()


def _check_host(session: Session, sandbox_id: str, patience: timedelta) -> None:
    away.check(session, session.get_one(SandboxRow, sandbox_id), patience)
