"""What each round of reconcile does for those who wait: whose turn it is, what was decided, and
whose idle time is over."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from director.activities.telling import Signals
from director.store import approvals, hosts, sessions, tickets
from director.store.engine import Store

_UNHEARD = timedelta(seconds=3)
"""A signal takes milliseconds: whoever has not begun so long after it did not hear it."""

_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 300.0


class Reminders:
    """Who is to be told the same again: at once, then ever more rarely.

    Most of those who do not answer have heard it, and wait in a queue for a worker or for a host
    that is away; each signal stays in their history, of which Temporal bounds the length."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next: dict[str, tuple[float, float]] = {}

    def due(self, run_ids: Collection[str]) -> list[str]:
        """Those of all who do not answer now that are to be told now."""
        now = self._clock()
        turns = {id: self._next.get(id, (now, _FIRST_PAUSE)) for id in run_ids}
        due = [id for id, (at, _) in turns.items() if at <= now]
        for id in due:
            pause = turns[id][1]
            turns[id] = (now + pause, min(2 * pause, _LONGEST_PAUSE))
        self._next = turns
        return due


@dataclass(frozen=True)
class Tending:
    """Sends again what was lost with a process between a commit and its signal."""

    store: Store
    signals: Signals
    _granted_again: Reminders = field(default_factory=Reminders)
    _decided_again: Reminders = field(default_factory=Reminders)

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
            unheard = tickets.unheard(session, _UNHEARD)
        return sorted({*granted, *self._granted_again.due(unheard)})

    def _decided(self) -> list[str]:
        with self.store.read() as session:
            return self._decided_again.due(approvals.decided(session))

    def _expire(self) -> None:
        with self.store.read() as session:
            if not sessions.due(session):
                return
        with self.store.write() as session:
            sessions.expire(session)
