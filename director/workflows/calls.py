"""What a run asks of its activities, and what it makes of their answers."""

from collections.abc import Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    FailureError,
    TimeoutType,
)
from temporalio.exceptions import TimeoutError as ActivityTimeoutError

with workflow.unsafe.imports_passed_through():
    from director.domain import names
    from director.domain.errors import DirectorError
    from director.domain.runs import (
        Placed,
        PlaceInput,
        SettleInput,
        SettleOutcome,
        StepInput,
        StepOutcome,
        StepPlan,
        StepStatus,
    )
    from director.domain.times import from_millis
    from director.workflows import policies

_AT_ONCE = "settled-at-once"


def start_step(
    plan: StepPlan, step: StepInput, host: str | None, untaken: int
) -> workflow.ActivityHandle[StepOutcome]:
    """Ask for a step: of the host that has the run's sandbox, else of any. `untaken` is how often
    that host has not taken it in time before."""
    attempt = f", attempt {step.attempt}" if step.attempt > 1 else ""
    return workflow.start_activity(
        names.RUN_STEP,
        step,
        result_type=StepOutcome,
        task_queue=names.host_queue(host) if host else names.SANDBOX_QUEUE,
        schedule_to_start_timeout=patience(untaken) if host else None,
        start_to_close_timeout=from_millis(plan.timeout_ms) + policies.STEP_SLACK,
        heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
        retry_policy=policies.WITHOUT_END,
        cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        summary=f"{plan.id}: {plan.type}{attempt}",
    )


async def outcome_of(handle: workflow.ActivityHandle[StepOutcome]) -> StepOutcome | None:
    """The outcome of a step's activity; None where its host did not take it in time."""
    try:
        return await handle
    except ActivityError as error:
        if is_untaken(error):
            return None
        if isinstance(error.cause, CancelledError):
            return StepOutcome(status=StepStatus.CANCELLED)
        code = error.cause.type if isinstance(error.cause, ApplicationError) else None
        return StepOutcome(status=StepStatus.FAILED, code=code or DirectorError.code)


async def place(asked: PlaceInput) -> Placed:
    """Ask whether the sandbox of a run is lost with its host."""
    placed: Placed = await workflow.execute_local_activity(
        names.PLACE,
        asked,
        result_type=Placed,
        start_to_close_timeout=policies.RECORD_TIMEOUT,
        retry_policy=policies.WITHOUT_END,
    )
    return placed


async def settle(end: SettleInput, host: str | None) -> None:
    """Let the host of the sandbox clean up and write the end of a run, or any other where that
    host is gone. The worker that has this workflow tries first: mostly it is on that host, and an
    activity in a queue costs Temporal as much as a step."""
    if workflow.patched(_AT_ONCE) and (done := await _settled_at_once(end)) is not None:
        if done.host_id is None:
            return
        host = done.host_id
    untaken = 0
    while True:
        outcome = await _settled(end, host, untaken)
        if outcome is None:
            untaken += 1
            lost = (await place(PlaceInput(run_id=end.run_id, ending=True))).lost
            host = None if lost else host
        elif outcome.host_id is None:
            return
        else:
            host, untaken = outcome.host_id, 0


async def until(condition: Callable[[], bool], patience: timedelta) -> bool:
    """Wait for a condition at most so long; tells whether it holds."""
    try:
        await workflow.wait_condition(condition, timeout=max(patience, timedelta(0)))
    except TimeoutError:
        return False
    return True


async def _settled_at_once(end: SettleInput) -> SettleOutcome | None:
    """None where that did not work, or not quickly; what is done twice is as if done once."""
    try:
        outcome: SettleOutcome = await workflow.execute_local_activity(
            names.SETTLE,
            end,
            result_type=SettleOutcome,
            schedule_to_close_timeout=policies.AT_ONCE,
            retry_policy=policies.ONCE,
            summary=f"settle: {end.status}",
        )
    except FailureError:  # that of a local activity comes in no ActivityError
        return None
    return outcome


async def _settled(end: SettleInput, host: str | None, untaken: int) -> SettleOutcome | None:
    try:
        outcome: SettleOutcome = await workflow.execute_activity(
            names.SETTLE,
            end,
            result_type=SettleOutcome,
            task_queue=names.control_queue(host) if host else names.WORKFLOW_QUEUE,
            schedule_to_start_timeout=patience(untaken) if host else None,
            start_to_close_timeout=policies.SETTLE_TIMEOUT,
            heartbeat_timeout=policies.HEARTBEAT_TIMEOUT,
            retry_policy=policies.WITHOUT_END,
            summary=f"settle: {end.status}",
        )
    except ActivityError as error:
        if is_untaken(error):
            return None
        raise
    return outcome


def patience(untaken: int) -> timedelta:
    """How long a host may leave what it is asked for, which it has not taken so often before."""
    return policies.growing(policies.HOST_PATIENCE, policies.MOST_HOST_PATIENCE, untaken)


def is_untaken(error: ActivityError) -> bool:
    """Whether an activity has failed because no worker of its host took it in time."""
    cause = error.cause
    return isinstance(cause, ActivityTimeoutError) and cause.type is TimeoutType.SCHEDULE_TO_START
