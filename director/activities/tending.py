"""What each round of reconcile does for those who wait: whose turn it is, what was decided, and
whose idle time is over."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from director.activities.telling import Signals
from director.store import hosts, sessions, steps, tickets
from director.store.engine import Store

_UNHEARD = timedelta(seconds=3)
"""A signal takes milliseconds: whoever has not begun so long after it did not hear it."""


@dataclass(frozen=True)
class Tending:
    """Sends again what was lost with a process between a commit and its signal."""

    store: Store
    signals: Signals

    def parts(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """The parts of a round."""
        return (self.wake_granted, self.wake_decided, self.expire_sessions)

    async def wake_granted(self) -> None:
        """Grant what is free, and tell all that have been granted something and did not hear."""
        self.signals.granted(await asyncio.to_thread(self._granted))

    async def wake_decided(self) -> None:
        """Tell the runs whose approval is decided and that still wait."""
        self.signals.decided(await asyncio.to_thread(self._decided))

    async def expire_sessions(self) -> None:
        """Write and tell that sessions have expired; every read judges that by itself as well."""
        await asyncio.to_thread(self._expire)

    def _granted(self) -> list[str]:
        with self.store.write() as session:
            granted = tickets.grant_all(session)
            granted += tickets.grant_places(session, hosts.total_places(session))
            return sorted({*granted, *tickets.unheard(session, _UNHEARD)})

    def _decided(self) -> list[str]:
        with self.store.read() as session:
            return steps.decided(session)

    def _expire(self) -> None:
        with self.store.read() as session:
            if not sessions.due(session):
                return
        with self.store.write() as session:
            sessions.expire(session)
