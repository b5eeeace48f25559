"""Sandboxes that people made, and their commands, brought together again with what carries them in
Temporal: what a crash between the two left apart. Parts of each round of reconcile."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TypeVar

import structlog
from sqlmodel import Session, col, select
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from director.activities.lifetimes import Lifetimes
from director.activities.rounds import ORPHAN_PERIOD, Seldom, all_tried, each
from director.domain import names
from director.domain.lifetimes import (
    OPEN_SANDBOXES,
    ExecutionStatus,
    SandboxEnd,
    SandboxStatus,
)
from director.store import executions, locks, placement, sandboxes
from director.store.engine import Store
from director.store.tables import ExecutionRow, SandboxRow
from director.temporal.executions import closed_among, closed_as, open_ones, terminate
from director.temporal.sandboxes import (
    activity_is_over,
    start_ending,
    start_execution,
    start_sandbox,
    start_steering,
)

log = structlog.get_logger()

T = TypeVar("T")

_YOUNG = timedelta(seconds=5)
_COMMANDS = 200
_NO_ROW = "Director's database has no such sandbox"


@dataclass
class Strays:
    """Starts what was not started, re-sends what is wanted, and settles what ended unseen."""

    client: Client
    lifetimes: Lifetimes
    orphan_age: timedelta = timedelta(seconds=60)
    _orphans: Seldom = field(default_factory=lambda: Seldom(ORPHAN_PERIOD), init=False)

    @property
    def store(self) -> Store:
        """Where sandboxes are."""
        return self.lifetimes.store

    def parts(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """The parts of a round."""
        return (
            self.start_sandboxes,
            self.follow_commands,
            self.send_wishes,
            self.settle_closed_sandboxes,
            self.end_left_workflows,
        )

    async def start_sandboxes(self) -> None:
        """Start the workflows of sandboxes that have none."""
        await each(await self._open(begun=False, age=_YOUNG), self._start)

    async def follow_commands(self) -> None:
        """Start the commands that nobody follows, and have those killed whose activity was
        ended."""
        wanted = partial(executions.open_ones, age=_YOUNG, limit=_COMMANDS)
        found = await asyncio.to_thread(self._read, wanted)
        await each(found, self._follow)

    async def send_wishes(self) -> None:
        """Send again what is wanted of sandboxes: to end, to stop, to hold or to go on."""
        await each(await self._open(begun=True, age=_YOUNG), self._send)

    async def settle_closed_sandboxes(self) -> None:
        """Settle the sandboxes whose workflow has ended without."""
        begun = await self._open(begun=True, age=timedelta(0))
        async for found in closed_among(self.client, [row.id for row in begun]):
            await each(found, self._close)

    async def end_left_workflows(self) -> None:
        """End the workflows of sandboxes that have ended without their host, and terminate those of
        sandboxes that the database does not have."""
        if not self._orphans.due():
            return
        async for page in open_ones(self.client, names.SANDBOX_WORKFLOW, self.orphan_age):
            ids = [one.id for one in page]
            known = await asyncio.to_thread(self._read, partial(sandboxes.known, ids=ids))
            await each([one for one in page if one.id not in known], self._terminate)
            await each([id for id, status in known.items() if status.ended], self._end)

    def settle_here(self) -> None:
        """Settle those that have ended in Temporal and are on this host. Raises SandboxError after
        all were tried."""
        here = self.lifetimes.sandboxes.host_id
        closed = (
            col(SandboxRow.closed_as).is_not(None),
            col(SandboxRow.status).in_(OPEN_SANDBOXES),
            SandboxRow.host_id == here,
        )
        with self.store.read() as session:
            found = list(session.exec(select(SandboxRow.id).where(*closed)))
        all_tried(found, self._settle)

    def _read(self, query: Callable[[Session], T]) -> T:
        with self.store.read() as session:
            return query(session)

    async def _open(self, *, begun: bool, age: timedelta) -> list[SandboxRow]:
        return await asyncio.to_thread(
            self._read, partial(sandboxes.open_ones, begun=begun, age=age)
        )

    async def _start(self, row: SandboxRow) -> None:
        run_id = await start_sandbox(self.client, sandboxes.input_of(row))
        if run_id is None:
            await self._close(row.id)
            return
        log.info("sandbox started by reconcile", sandbox_id=row.id)
        note = partial(sandboxes.note_started, id=row.id, temporal_run_id=run_id)
        await asyncio.to_thread(self.store.transact, note)

    async def _follow(self, found: tuple[ExecutionRow, str]) -> None:
        row, host_id = found
        if row.status == ExecutionStatus.QUEUED:
            over = not await start_execution(
                self.client, row.id, row.timeout_ms, host_id, row.owner_id
            )
        else:
            over = await activity_is_over(self.client, row.id)
        if over:
            await start_ending(self.client, row.id, host_id)

    async def _send(self, row: SandboxRow) -> None:
        if row.delete_wanted:
            await self._end(row.id)
        elif row.intents > row.steered and row.host_id is not None:
            await start_steering(self.client, row.id, row.intents, row.host_id)

    async def _end(self, id: str) -> None:
        try:
            await self.client.get_workflow_handle(id).signal(names.END)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    async def _close(self, id: str) -> None:
        """Settle a sandbox whose workflow is closed: visibility may be wrong, describe is not."""
        status = await closed_as(self.client, id)
        if status is not None:
            await asyncio.to_thread(self._closed, id, status.name)

    def _closed(self, id: str, how: str) -> None:
        """Write that nothing carries a sandbox any more, and settle it as far as this host may."""

        def note(session: Session) -> bool:
            row = locks.get_one(session, SandboxRow, id)
            row.closed_as = row.closed_as or how
            session.add(row)
            return not SandboxStatus(row.status).ended

        if self.store.transact(note) and self._settle(id) is not None:
            self._settle_elsewhere(id)

    def _settle(self, id: str) -> str | None:
        end = SandboxEnd(sandbox_id=id, status=SandboxStatus.FAILED)
        elsewhere = self.lifetimes.settle_here(end)
        if elsewhere is None:
            log.warning("sandbox is settled, its workflow had ended", sandbox_id=id)
        return elsewhere

    def _settle_elsewhere(self, id: str) -> None:
        def settle(session: Session) -> list[str]:
            row = locks.get_one(session, SandboxRow, id)
            if SandboxStatus(row.status).ended or not placement.settle_elsewhere(session, row):
                return []
            return sandboxes.settle(session, SandboxEnd(sandbox_id=id, status=SandboxStatus.FAILED))

        self.lifetimes.signals.granted(self.store.transact(settle))

    async def _terminate(self, execution: WorkflowExecution) -> None:
        if await terminate(self.client, execution, _NO_ROW):
            log.warning("workflow terminated", sandbox_id=execution.id, why=_NO_ROW)
