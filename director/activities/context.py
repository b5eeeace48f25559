"""The age of what is in context windows, a part of each round of reconcile: it goes although nobody
writes, whatever was restarted meanwhile."""

import asyncio
from dataclasses import dataclass
from functools import partial

from director.store import context
from director.store.engine import Store


@dataclass(frozen=True)
class Ageing:
    """Drops items whose time is over; every read judges that by itself as well."""

    store: Store

    async def drop_aged(self) -> None:
        """Drop and tell what is too old, of one window after the other."""
        await asyncio.to_thread(self._drop)

    def _drop(self) -> None:
        with self.store.read() as session:
            due = context.due(session)
        for id in due:
            self.store.transact(partial(context.age, id=id))
