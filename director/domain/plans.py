"""From a definition to the plan that the workflow interprets."""

from director.domain.runs import Sequence, StepPlan
from director.domain.steps import RETRY_ATTEMPTS, OnFailure, Retry, Step, step_ids
from director.domain.workflows import Definition

MAX_ATTEMPTS = 2000
"""Of all steps of a run together. Temporal ends a workflow with more than 51,200 events: an
attempt costs 6, with a wait before it 11, with a signal and a deadline 18; 2000 signals from
outside cost 10,000 more."""


def plan_of(definition: Definition) -> Sequence:
    """The tree of a definition; each verify knows the execute step that it judges."""
    ids = step_ids(definition.steps)
    plans: list[StepPlan] = []
    executed: int | None = None
    for index, step in enumerate(definition.steps):
        if step.type == "execute":
            executed = index
        plans.append(
            StepPlan(
                index=index,
                id=ids[index],
                type=step.type,
                timeout_ms=step.timeout,
                max_attempts=_attempts(step, definition.config.max_retries),
                backoff_ms=(step.retry or Retry()).backoff,
                on_failure=step.on_failure,
                judges=executed if step.type == "verify" else None,
            )
        )
    return Sequence(children=list(plans))


def most_attempts(plan: Sequence) -> int:
    """How many attempts of steps a run can come to; a failing verify repeats a whole stretch."""
    return sum(
        step.max_attempts * (1 if step.judges is None else step.index - step.judges + 1)
        for step in plan.steps()
    )


def judged_next(definition: Definition, index: int) -> bool:
    """Whether an execute step is directly followed by a verify, which then judges its exit."""
    following = definition.steps[index + 1 : index + 2]
    return bool(following) and following[0].type == "verify"


def _attempts(step: Step, max_retries: int) -> int:
    if step.retry is not None and step.retry.max_attempts is not None:
        return step.retry.max_attempts
    if step.on_failure is OnFailure.RETRY:
        return max(RETRY_ATTEMPTS, max_retries + 1)
    return max_retries + 1
