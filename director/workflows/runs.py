"""The workflow of a run: one activity for each step, then one that settles."""

import asyncio
from collections.abc import Sequence as Arguments
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RawValue, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError

with workflow.unsafe.imports_passed_through():
    from director.domain import names
    from director.domain.errors import DeadlineError, DirectorError
    from director.domain.runs import (
        Progress,
        ProgressNote,
        ProgressSignal,
        RunInput,
        RunResult,
        RunState,
        RunStatus,
        Sequence,
        SettleInput,
        SettleOutcome,
        StatusNote,
        StepInput,
        StepOutcome,
        StepPlan,
        StepStatus,
    )
    from director.domain.steps import OnFailure
    from director.domain.times import from_millis
    from director.workflows import policies
    from director.workflows.progress import RunStory

_STATE = SearchAttributeKey.for_keyword(names.SEARCH_STATE)
_FAILURES = (StepStatus.FAILED, StepStatus.TIMED_OUT)


class _Ended(Exception):  # noqa: N818 - it ends the interpretation, whatever the reason
    """The run ends here and now."""

    def __init__(self, status: RunStatus, plan: StepPlan | None = None, code: str | None = None):
        super().__init__(status)
        self.status, self.plan, self.code = status, plan, code


@workflow.defn(name=names.RUN_WORKFLOW)
class DirectorWorkflow:
    """Interprets the plan of a run. Commands, output and secrets never come here: activities
    read and write them in the store, and tell this workflow only how a step ended."""

    @workflow.init
    def __init__(self, run: RunInput) -> None:
        self._input = run
        self._story = RunStory(run)
        self._budget = from_millis(run.timeout_ms)
        self._host: str | None = None
        self._scheduled = workflow.now()
        self._began: datetime | None = None
        self._untold: list[Progress] = []
        self._settling = False

    @workflow.run
    async def run(self, run: RunInput) -> RunResult:
        """Perform all steps, settle whatever the end is, and end as the run ended."""
        telling = asyncio.create_task(self._tell_progress())
        end = await self._perform()
        finishing = asyncio.create_task(self._finish(end, telling))
        while not finishing.done():
            try:
                await workflow.wait_condition(finishing.done)
            except asyncio.CancelledError:
                workflow.logger.info("cancelled too late: the run is at its end already")
        finishing.result()
        return self._conclude(end)

    async def _finish(self, end: _Ended, telling: asyncio.Task[None]) -> None:
        self._settling = True
        await telling
        await self._settle(end)

    @workflow.signal(name=names.PAUSE)
    def pause(self) -> None:
        """Hold before the next step."""
        self._story.paused = True
        self._show()

    @workflow.signal(name=names.RESUME)
    def resume(self) -> None:
        """Go on."""
        self._story.paused = False
        self._show()

    @workflow.signal(name=names.PROGRESS)
    def progress(self, signal: ProgressSignal) -> None:
        """Number what a step or an agent says about how far it is."""
        if signal.source == "step" and signal.elapsed_ms is not None and self._began is None:
            began = workflow.now() - from_millis(signal.elapsed_ms)
            # a late signal of the attempt before must not start this one's clock
            self._began = began if began >= self._scheduled else None
        self._untold.append(self._story.progressed(signal))
        self._show()

    @workflow.signal(dynamic=True)
    def signalled(self, name: str, args: Arguments[RawValue]) -> None:
        """Remember a signal with any other name."""
        self._story.signalled(name)
        self._show()

    @workflow.query(name=names.STATE_QUERY)
    def state(self) -> RunState:
        """The live state of the run."""
        return self._story.state()

    async def _perform(self) -> _Ended:
        try:
            await self._sequence(self._input.plan)
        except _Ended as end:
            return end
        except asyncio.CancelledError:
            return _Ended(RunStatus.CANCELLED)
        return _Ended(RunStatus.COMPLETED)

    async def _sequence(self, sequence: Sequence) -> None:
        position = 0
        while position < len(sequence.children):
            child = sequence.children[position]
            if isinstance(child, Sequence):
                await self._sequence(child)
            elif (again := await self._step(child)) is not None:
                position = _position(sequence, again)
                continue
            position += 1

    async def _step(self, plan: StepPlan) -> int | None:
        """Attempt a step once; gives the index to go on from where it is to be tried again."""
        await self._hold_while_paused()
        self._check_budget(plan)
        outcome = await self._attempt(plan)
        if outcome.status is StepStatus.CANCELLED:
            raise _Ended(RunStatus.CANCELLED, plan)
        if outcome.status not in _FAILURES:
            return None
        attempt = self._story.attempts(plan.index)
        if attempt < plan.max_attempts:
            await self._back_off(plan, attempt)
            return plan.index if plan.judges is None else plan.judges
        if plan.on_failure is OnFailure.CONTINUE:
            return None
        raise _Ended(RunStatus.FAILED, plan, outcome.code)

    async def _back_off(self, plan: StepPlan, attempt: int) -> None:
        wait = min(policies.backoff(plan.backoff_ms, attempt), self._budget)
        if wait > timedelta(0):
            await asyncio.sleep(wait.total_seconds())
            self._budget -= wait

    def _check_budget(self, plan: StepPlan) -> None:
        if self._budget <= timedelta(0):
            raise _Ended(RunStatus.TIMED_OUT, plan, DeadlineError.code)

    async def _attempt(self, plan: StepPlan) -> StepOutcome:
        attempt = self._story.began(plan)
        self._scheduled, self._began = workflow.now(), None
        self._show()
        handle = workflow.start_activity(
            names.RUN_STEP,
            StepInput(
                run_id=self._input.run_id,
                index=plan.index,
                attempt=attempt,
                last_attempt=attempt >= plan.max_attempts,
            ),
            result_type=StepOutcome,
            task_queue=names.host_queue(self._host) if self._host else names.SANDBOX_QUEUE,
            start_to_close_timeout=from_millis(plan.timeout_ms) + policies.STEP_SLACK,
            heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
            retry_policy=policies.WITHOUT_END,
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            summary=f"{plan.id}: {plan.type}" + (f", attempt {attempt}" if attempt > 1 else ""),
        )
        end = await self._watch(handle, plan)
        if end is not None:
            handle.cancel()
        outcome = await _outcome(handle)
        self._host = outcome.host_id or self._host
        self._budget -= from_millis(outcome.elapsed_ms)
        self._story.ended(plan, outcome)
        self._show()
        if end is not None:
            raise end
        return outcome

    async def _watch(
        self, handle: workflow.ActivityHandle[StepOutcome], plan: StepPlan
    ) -> _Ended | None:
        """Wait for a step; gives an end if the run's time is over or the run is cancelled.

        The deadline runs from the step's first progress signal, which says since when the step
        runs: time in a queue does not count, and a short step costs no timer."""
        try:
            while not handle.done():
                began = self._began
                left = self._budget - (workflow.now() - began) if began else None
                if left is not None and left <= timedelta(0):
                    return _Ended(RunStatus.TIMED_OUT, plan, DeadlineError.code)
                await self._changed(handle, began, left)
        except asyncio.CancelledError:
            return _Ended(RunStatus.CANCELLED, plan)
        return None

    async def _changed(
        self,
        handle: workflow.ActivityHandle[StepOutcome],
        began: datetime | None,
        left: timedelta | None,
    ) -> None:
        try:
            await workflow.wait_condition(
                lambda: handle.done() or self._began != began, timeout=left
            )
        except TimeoutError:
            return

    async def _hold_while_paused(self) -> None:
        while self._story.paused:
            await self._record(RunStatus.PAUSED)
            await workflow.wait_condition(lambda: not self._story.paused)
            await self._record(RunStatus.RUNNING)

    async def _record(self, status: RunStatus) -> None:
        self._story.status = status
        self._show()
        workflow.upsert_search_attributes([_STATE.value_set(status)])
        await workflow.execute_local_activity(
            names.RECORD_STATUS,
            StatusNote(run_id=self._input.run_id, status=status),
            start_to_close_timeout=policies.RECORD_TIMEOUT,
            retry_policy=policies.WITHOUT_END,
        )

    async def _tell_progress(self) -> None:
        while True:
            await workflow.wait_condition(lambda: bool(self._untold) or self._settling)
            if not self._untold:
                return
            entries, self._untold = self._untold, []
            try:
                await workflow.execute_local_activity(
                    names.RECORD_PROGRESS,
                    ProgressNote(run_id=self._input.run_id, entries=entries),
                    start_to_close_timeout=policies.RECORD_TIMEOUT,
                    retry_policy=policies.FEW,
                )
            except ActivityError:
                workflow.logger.warning("progress was not recorded", exc_info=True)

    async def _settle(self, end: _Ended) -> None:
        settle = SettleInput(
            run_id=self._input.run_id,
            status=end.status,
            failed_step=end.plan.index if end.plan else None,
            code=end.code,
        )
        host = self._host
        while True:
            outcome: SettleOutcome = await workflow.execute_activity(
                names.SETTLE,
                settle,
                result_type=SettleOutcome,
                task_queue=names.control_queue(host) if host else names.WORKFLOW_QUEUE,
                start_to_close_timeout=policies.SETTLE_TIMEOUT,
                heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
                retry_policy=policies.WITHOUT_END,
                summary=f"settle: {end.status}",
            )
            if outcome.host_id is None:
                return
            host = outcome.host_id

    def _conclude(self, end: _Ended) -> RunResult:
        self._story.concluded(end.status)
        self._show()
        workflow.upsert_search_attributes([_STATE.value_set(end.status)])
        if end.status is RunStatus.CANCELLED:
            raise CancelledError("the run was cancelled")
        if end.status is not RunStatus.COMPLETED:
            step = f"step {end.plan.id}" if end.plan else "the run"
            code = end.code or DirectorError.code
            raise ApplicationError(f"{step}: {end.status}", type=code, non_retryable=True)
        return self._story.result(failed_step=None)

    def _show(self) -> None:
        workflow.set_current_details(self._story.details())


async def _outcome(handle: workflow.ActivityHandle[StepOutcome]) -> StepOutcome:
    try:
        return await handle
    except ActivityError as error:
        if isinstance(error.cause, CancelledError):
            return StepOutcome(status=StepStatus.CANCELLED)
        code = error.cause.type if isinstance(error.cause, ApplicationError) else None
        return StepOutcome(status=StepStatus.FAILED, code=code or DirectorError.code)


def _position(sequence: Sequence, index: int) -> int:
    """Where in a sequence the step of that index stands."""
    for position, child in enumerate(sequence.children):
        if isinstance(child, StepPlan) and child.index == index:
            return position
    raise ApplicationError(f"step {index} is not in this sequence", non_retryable=True)
