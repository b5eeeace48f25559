"""Alert rules, a part of each round of reconcile: told at most some seconds after the threshold."""

import asyncio
from dataclasses import dataclass

import structlog
from sqlmodel import Session

from director.domain.alerts import AlertRules
from director.store import alerts
from director.store.engine import Store

log = structlog.get_logger()


@dataclass(frozen=True)
class Alerts:
    """Tells what too much happens of."""

    store: Store
    rules: AlertRules

    async def raise_alerts(self) -> None:
        """Write and tell each alert that is due and was not told in its window."""
        await asyncio.to_thread(self._raise)

    def _raise(self) -> None:
        with self.store.read() as session:
            due = alerts.due(session, self.rules)
        if not due:
            return

        def tell(session: Session) -> list[alerts.Due]:
            return [each for each in due if alerts.tell(session, each, self.rules)]

        for each in self.store.transact(tell):
            log.warning("security alert", rule=each.rule, subject=each.subject, count=each.times)
