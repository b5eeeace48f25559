"""The transitions of a run, and the plan that its workflow interprets."""

import pytest

from director.domain.plans import judged_next, plan_of
from director.domain.runs import RunStatus, StepPlan, advance, percent
from director.domain.workflows import Definition
from director.workflows.policies import MAX_BACKOFF, backoff

ENDED = [status for status in RunStatus if status.ended]
OPEN = [status for status in RunStatus if not status.ended and status is not RunStatus.CREATED]


@pytest.mark.parametrize("end", ENDED)
@pytest.mark.parametrize("wanted", list(RunStatus))
def test_nothing_leaves_an_end(end: RunStatus, wanted: RunStatus) -> None:
    assert advance(end, wanted) is end


@pytest.mark.parametrize("current", OPEN)
@pytest.mark.parametrize("end", ENDED)
def test_every_open_run_can_end(current: RunStatus, end: RunStatus) -> None:
    assert advance(current, end) is end


@pytest.mark.parametrize("wanted", [RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.QUEUED])
def test_a_run_that_is_being_cancelled_only_ends(wanted: RunStatus) -> None:
    assert advance(RunStatus.CANCELLING, wanted) is RunStatus.CANCELLING


def test_a_run_is_never_queued_again() -> None:
    assert [advance(status, RunStatus.QUEUED) for status in OPEN] == OPEN


@pytest.mark.parametrize(
    ("done", "total", "wanted"), [(2, 5, 40), (1, 3, 33), (0, 4, 0), (0, 0, 0)]
)
def test_progress_is_the_floor_of_the_completed_share(done: int, total: int, wanted: int) -> None:
    assert percent(done, total) == wanted


def steps(*types: str, **config: object) -> list[StepPlan]:
    body = {
        "execute": {"type": "execute", "command": "x"},
        "verify": {"type": "verify", "criteria": "exit code is 0"},
        "checkpoint": {"type": "checkpoint"},
        "retry": {"type": "execute", "command": "x", "onFailure": "retry"},
        "thrice": {"type": "execute", "command": "x", "retry": {"maxAttempts": 3}},
    }
    definition = Definition.model_validate({"steps": [body[type] for type in types], **config})
    return plan_of(definition).steps()


def test_a_verify_judges_the_execute_that_ran_last_before_it() -> None:
    plans = steps("execute", "checkpoint", "verify", "execute", "verify", "verify")

    assert [plan.judges for plan in plans] == [None, None, 0, None, 3, 3]


def test_only_an_execute_with_a_verify_directly_behind_is_judged_by_it() -> None:
    body = [
        {"type": "execute", "command": "x"},
        {"type": "checkpoint"},
        {"type": "execute", "command": "y"},
        {"type": "verify", "criteria": "exit code is 0"},
    ]
    definition = Definition.model_validate({"steps": body})

    assert [judged_next(definition, index) for index in range(4)] == [False, False, True, False]


def test_attempts_come_from_the_step_else_from_on_failure_else_from_max_retries() -> None:
    plans = steps("execute", "thrice", "retry", config={"maxRetries": 1})

    assert [plan.max_attempts for plan in plans] == [2, 3, 3]


def test_waits_double_and_are_bounded() -> None:
    assert [backoff(1000, attempt).total_seconds() for attempt in (1, 2, 3)] == [1, 2, 4]
    assert backoff(300_000, 99) == MAX_BACKOFF
    assert backoff(0, 50).total_seconds() == 0
