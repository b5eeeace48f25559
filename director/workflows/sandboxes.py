"""The workflow of a sandbox that somebody made: made on a host, alive until its time is over or it
is deleted, and settled whatever the end is."""

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import SearchAttributeKey
from temporalio.exceptions import ActivityError, CancelledError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from director.domain import names
    from director.domain.lifetimes import (
        CreateInput,
        CreateOutcome,
        SandboxEnd,
        SandboxInput,
        SandboxResult,
        SandboxSettled,
        SandboxStatus,
    )
    from director.workflows import calls, policies

_STATE = SearchAttributeKey.for_keyword(names.SEARCH_STATE)


@workflow.defn(name=names.SANDBOX_WORKFLOW)
class SandboxWorkflow:
    """Owns the lifetime of a sandbox and nothing else: commands, stop, pause and files are
    activities that stand alone, and what they need is in the store."""

    @workflow.init
    def __init__(self, sandbox: SandboxInput) -> None:
        self._input = sandbox
        self._host: str | None = None
        self._wanted_end = self._granted = False

    @workflow.run
    async def run(self, sandbox: SandboxInput) -> SandboxResult:
        """Make it, wait for the end of its life, and leave nothing of it."""
        cancelled = False
        try:
            status = await self._live()
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            status, cancelled = SandboxStatus.FAILED, True
        settling = asyncio.create_task(self._settle(status))
        while not settling.done():
            try:
                await workflow.wait_condition(settling.done)
            except asyncio.CancelledError:
                workflow.logger.info("cancelled too late: the sandbox is at its end already")
        status = settling.result()
        self._show(status)
        if cancelled:
            raise CancelledError("the sandbox was ended in Temporal")
        return SandboxResult(status=status)

    @workflow.signal(name=names.END)
    def end(self) -> None:
        """The sandbox is deleted, or has ended without its host."""
        self._wanted_end = True

    @workflow.signal(name=names.GRANTED)
    def granted(self) -> None:
        """There is a place for the sandbox that waits in the line."""
        self._granted = True

    async def _live(self) -> SandboxStatus:
        made = await self._made()
        _check_cancelled()
        if made.state == "failed":
            return SandboxStatus.FAILED
        if made.state == "unwanted" or made.expires_at is None:
            return SandboxStatus.DELETED
        self._show(SandboxStatus.RUNNING)
        deleted = await calls.until(self._is_wanted_no_more, made.expires_at - workflow.now())
        return SandboxStatus.DELETED if deleted else SandboxStatus.EXPIRED

    def _is_wanted_no_more(self) -> bool:
        return self._wanted_end

    async def _made(self) -> CreateOutcome:
        """Ask for the sandbox until it runs, cannot be made, or is not wanted any more."""
        waits = 0
        while True:
            _check_cancelled()
            self._granted = False
            made = await self._asked()
            if made is None:
                self._host = None if await self._is_lost() else self._host
            elif made.state == "queued":
                patience = policies.growing(
                    policies.LINE_PATIENCE, policies.MOST_LINE_PATIENCE, waits
                )
                waits += 1
                await calls.until(self._may_go_on, patience)
            else:
                self._host = made.host_id or self._host
                if made.state != "elsewhere":
                    return made

    def _may_go_on(self) -> bool:
        return self._granted or self._wanted_end

    async def _asked(self) -> CreateOutcome | None:
        host = self._host
        try:
            outcome: CreateOutcome = await workflow.execute_activity(
                names.CREATE_SANDBOX,
                CreateInput(sandbox_id=self._input.sandbox_id),
                result_type=CreateOutcome,
                task_queue=names.execution_queue(host) if host else names.SANDBOX_QUEUE,
                schedule_to_start_timeout=policies.HOST_PATIENCE if host else None,
                start_to_close_timeout=policies.STEP_SLACK,
                heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
                retry_policy=policies.WITHOUT_END,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                summary="make the sandbox",
            )
        except ActivityError as error:
            if calls.is_untaken(error):
                return None
            raise
        return outcome

    async def _is_lost(self) -> bool:
        """Whether the sandbox's host is gone, so that its end need not wait for it."""
        lost: bool = await workflow.execute_local_activity(
            names.LET_SANDBOX_GO,
            CreateInput(sandbox_id=self._input.sandbox_id),
            result_type=bool,
            start_to_close_timeout=policies.RECORD_TIMEOUT,
            retry_policy=policies.WITHOUT_END,
        )
        return lost

    async def _settle(self, status: SandboxStatus) -> SandboxStatus:
        """Have it settled, and give the end that it has: an earlier one counts."""
        end, untaken = SandboxEnd(sandbox_id=self._input.sandbox_id, status=status), 0
        while True:
            outcome = await self._settled(end, calls.patience(untaken))
            if outcome is None:
                untaken += 1
                self._host = None if await self._is_lost() else self._host
            elif outcome.host_id is None:
                return outcome.status or status
            else:
                self._host, untaken = outcome.host_id, 0

    async def _settled(self, end: SandboxEnd, patience: timedelta) -> SandboxSettled | None:
        host = self._host
        try:
            outcome: SandboxSettled = await workflow.execute_activity(
                names.SETTLE_SANDBOX,
                end,
                result_type=SandboxSettled,
                task_queue=names.control_queue(host) if host else names.WORKFLOW_QUEUE,
                schedule_to_start_timeout=patience if host else None,
                start_to_close_timeout=policies.SETTLE_TIMEOUT,
                heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
                retry_policy=policies.WITHOUT_END,
                summary=f"settle: {end.status}",
            )
        except ActivityError as error:
            if calls.is_untaken(error):
                return None
            raise
        return outcome

    def _show(self, status: SandboxStatus) -> None:
        workflow.upsert_search_attributes([_STATE.value_set(status)])
        workflow.set_current_details(f"the sandbox is **{status}**")


def _check_cancelled() -> None:
    """Raise where a cancel was asked for: an activity that ends at that moment takes it away."""
    if workflow.cancellation_reason() is not None:
        raise asyncio.CancelledError
