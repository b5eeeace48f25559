"""The workflow of a run: one activity for each step, then one that settles."""

import asyncio
from collections.abc import Sequence as Arguments
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.common import RawValue, SearchAttributeKey
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    FailureError,
    is_cancelled_exception,
)

with workflow.unsafe.imports_passed_through():
    from director.domain import names
    from director.domain.errors import DeadlineError, DirectorError
    from director.domain.failures import FailureCode
    from director.domain.runs import (
        OnSandboxLost,
        PlaceInput,
        Progress,
        ProgressNote,
        ProgressSignal,
        RunInput,
        RunResult,
        RunState,
        RunStatus,
        Sequence,
        SettleInput,
        StatusNote,
        StepInput,
        StepOutcome,
        StepPlan,
        StepStatus,
    )
    from director.domain.steps import OnFailure
    from director.domain.times import from_millis
    from director.workflows import calls, policies
    from director.workflows.progress import RunStory

_STATE = SearchAttributeKey.for_keyword(names.SEARCH_STATE)
_FAILURES = (StepStatus.FAILED, StepStatus.TIMED_OUT)


class _Ended(Exception):  # noqa: N818 - it ends the interpretation, whatever the reason
    """The run ends here and now."""

    def __init__(self, status: RunStatus, plan: StepPlan | None = None, code: str | None = None):
        super().__init__(status)
        self.status, self.plan, self.code = status, plan, code


class _Returned(Exception):  # noqa: N818 - it goes on from an earlier step
    """The sandbox was lost, and the run goes on from an earlier step in another."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


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
        self._untaken = 0
        self._forgiven = dict.fromkeys((plan.index for plan in run.plan.steps()), 0)
        self._granted = self._decided = False
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
        await calls.settle(
            SettleInput(
                run_id=self._input.run_id,
                status=end.status,
                failed_step=end.plan.index if end.plan else None,
                code=end.code,
            ),
            self._host,
        )

    @workflow.signal(name=names.PAUSE)
    def pause(self) -> None:
        """Hold before the next step."""
        self._story.paused = True
        self._show()

    @workflow.signal(name=names.RESUME)
    def resume(self) -> None:
        """Go on; a step that did not begin because of the pause is to be asked for again."""
        self._story.paused, self._granted = False, True
        self._show()

    @workflow.signal(name=names.GRANTED)
    def granted(self) -> None:
        """There is a slot, or a place, for the step that waits in a line."""
        self._granted = True

    @workflow.signal(name=names.APPROVE)
    def approve(self) -> None:
        """The approval that a step waits for is decided."""
        self._decided = True

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
        except (asyncio.CancelledError, ActivityError) as error:
            if not is_cancelled_exception(error):
                raise
            return _Ended(RunStatus.CANCELLED, self._story.at)
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
        try:
            outcome = await self._attempt(plan)
        except _Returned as returned:
            return returned.index
        if outcome.status is StepStatus.CANCELLED:
            raise _Ended(RunStatus.CANCELLED, plan)
        if outcome.code == FailureCode.RUN_ENDED:
            raise _Ended(RunStatus.FAILED, plan, outcome.code)
        if outcome.status not in _FAILURES:
            return None
        attempt = self._story.attempts(plan.index)
        if attempt < self._most_attempts(plan):
            await self._back_off(plan, attempt)
            return plan.index if plan.judges is None else plan.judges
        if plan.on_failure is OnFailure.CONTINUE:
            return None
        raise _Ended(RunStatus.FAILED, plan, outcome.code)

    def _most_attempts(self, plan: StepPlan) -> int:
        """What is repeated after a loss costs a step none of its attempts."""
        return plan.max_attempts + self._forgiven[plan.index]

    async def _back_off(self, plan: StepPlan, attempt: int) -> None:
        wait = min(policies.backoff(plan.backoff_ms, attempt), self._budget)
        if wait > timedelta(0):
            await asyncio.sleep(wait.total_seconds())
            self._budget -= wait

    def _check_budget(self, plan: StepPlan) -> None:
        if self._budget <= timedelta(0):
            raise _Ended(RunStatus.TIMED_OUT, plan, DeadlineError.code)

    async def _attempt(self, plan: StepPlan) -> StepOutcome:
        """One attempt of a step as its user counts: asked for until it has an outcome."""
        attempt = self._story.began(plan)
        self._scheduled, waits = workflow.now(), 0
        while True:
            self._show()
            outcome = await self._asked(plan, attempt)
            if outcome.status is StepStatus.QUEUED:
                await self._stand_in_line(plan, waits)
                waits += 1
            elif outcome.status is StepStatus.WAITING:
                await self._await_approval(plan, outcome)
            elif outcome.status is not StepStatus.PENDING:
                break
        self._budget -= from_millis(outcome.elapsed_ms)
        self._story.ended(plan, outcome)
        self._show()
        return outcome

    async def _asked(self, plan: StepPlan, attempt: int) -> StepOutcome:
        self._began, self._granted, self._decided = None, False, False
        step = StepInput(
            run_id=self._input.run_id,
            index=plan.index,
            attempt=attempt,
            last_attempt=attempt >= self._most_attempts(plan),
        )
        handle = calls.start_step(plan, step, self._host, self._untaken)
        end = await self._watch(handle, plan)
        if end is not None:
            handle.cancel()
        outcome = await calls.outcome_of(handle)
        if end is not None:
            if outcome is not None:
                self._host = outcome.host_id or self._host
                self._story.ended(plan, outcome)
            raise end
        if outcome is None:
            return await self._untaken_step(plan)
        self._host, self._untaken = outcome.host_id or self._host, 0
        return outcome

    async def _untaken_step(self, plan: StepPlan) -> StepOutcome:
        """The sandbox's host did not take the step. Time alone does not tell that it is lost."""
        self._untaken += 1
        placed = await calls.place(PlaceInput(run_id=self._input.run_id, step=plan.index))
        self._host = placed.host_id
        if not placed.lost:
            return StepOutcome(status=StepStatus.PENDING, host_id=self._host)
        self._untaken = 0
        if self._input.on_sandbox_lost is OnSandboxLost.FAIL:
            raise _Ended(RunStatus.FAILED, plan, FailureCode.SANDBOX_LOST)
        for index in range(placed.repeat_from, plan.index + 1):
            self._forgiven[index] += 1
        self._story.returned(placed.repeat_from)
        raise _Returned(placed.repeat_from)

    async def _stand_in_line(self, plan: StepPlan, waits: int) -> None:
        """Wait for a slot or a place. Whoever is paused meanwhile leaves the line."""
        self._story.holds(plan, StepStatus.QUEUED)
        self._show()
        patience = policies.growing(policies.LINE_PATIENCE, policies.MOST_LINE_PATIENCE, waits)
        await calls.until(lambda: self._granted or self._story.paused, patience)
        await self._hold_while_paused()
        self._story.goes_on(plan)

    async def _await_approval(self, plan: StepPlan, outcome: StepOutcome) -> None:
        spent = from_millis(outcome.elapsed_ms)
        step_left, run_left = from_millis(plan.timeout_ms) - spent, self._budget - spent
        self._story.holds(plan, StepStatus.WAITING)
        self._show()
        workflow.upsert_search_attributes([_STATE.value_set(RunStatus.WAITING)])
        decided = await calls.until(lambda: self._decided, min(step_left, run_left))
        if not decided and run_left < step_left:
            raise _Ended(RunStatus.TIMED_OUT, plan, DeadlineError.code)
        workflow.upsert_search_attributes([_STATE.value_set(RunStatus.RUNNING)])
        self._story.goes_on(plan)

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
            except FailureError:  # that of a local activity comes as it is, in no ActivityError
                workflow.logger.warning("progress was not recorded", exc_info=True)

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


def _position(sequence: Sequence, index: int) -> int:
    """Where in a sequence the step of that index stands."""
    for position, child in enumerate(sequence.children):
        if isinstance(child, StepPlan) and child.index == index:
            return position
    raise ApplicationError(f"step {index} is not in this sequence", non_retryable=True)
