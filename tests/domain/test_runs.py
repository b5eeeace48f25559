"""The plan that the workflow of a run interprets."""

import pytest

from director.domain.plans import judged_next, plan_of
from director.domain.runs import StepPlan, percent
from director.domain.workflows import Definition
from director.workflows.policies import MAX_BACKOFF, backoff


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
