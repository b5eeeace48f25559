"""The steps of a workflow as a caller writes them."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from director.domain.base import Body, Description, Int, Millis, Name, PlacedError, Text, no_nul
from director.domain.criteria import Criterion, parse_phrase
from director.domain.departments import Capabilities
from director.domain.secrets import MASK, is_secret

DEFAULT_TIMEOUT_MS = 300_000
MAX_STEPS = 500
RETRY_ATTEMPTS = 3
"""Attempts of a step with `onFailure: retry` that says no number of its own."""


class OnFailure(StrEnum):
    """What follows when the last attempt of a step has failed."""

    FAIL = "fail"
    CONTINUE = "continue"
    RETRY = "retry"


class Retry(Body):
    """How often a step is tried in all, and how many ms pass before the second attempt;
    each further wait is twice the one before, at most five minutes."""

    max_attempts: Annotated[Int, Field(ge=1, le=100)] | None = None
    backoff: Annotated[Int, Field(ge=0, le=300_000)] = 1000


def _no_mask(variables: dict[str, str]) -> dict[str, str]:
    """Refuse what reads show in the place of a secret, lest it replaces the secret."""
    for name, value in variables.items():
        if value == MASK and is_secret(name):
            issue = f"{MASK} is what is shown instead of a secret; send the value itself"
            raise PlacedError(issue, name)
    return variables


StepId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]
VariableValue = Annotated[str, Field(max_length=128 * 1024), AfterValidator(no_nul)]
Variables = Annotated[
    dict[VariableName, VariableValue], Field(max_length=1000), AfterValidator(_no_mask)
]
Argument = Annotated[str, Field(max_length=128 * 1024), AfterValidator(no_nul)]
CommandList = Annotated[list[Argument], Field(min_length=1, max_length=4096)]
CommandText = Annotated[Argument, Field(min_length=1)]


class StepBase(Body):
    """What every step can say."""

    id: StepId | None = None
    timeout: Millis = DEFAULT_TIMEOUT_MS
    retry: Retry | None = None
    on_failure: OnFailure = OnFailure.FAIL
    environment: Variables = {}
    department_id: str | None = None
    domain: Name | None = None
    requires: Capabilities | None = None
    description: Description | None = None


class ExecuteStep(StepBase):
    """Run a command: a string goes to `/bin/sh -c`, a list is executed as it is."""

    type: Literal["execute"]
    name: Name | None = None
    command: CommandText | CommandList


def _known(phrase: str) -> str:
    parse_phrase(phrase)
    return phrase


Phrase = Annotated[Text, Field(min_length=1, max_length=10_000), AfterValidator(_known)]


class VerifyStep(StepBase):
    """Judge what the execute step before it did: a phrase, or the structured form."""

    type: Literal["verify"]
    name: Name | None = None
    criteria: Phrase | Criterion

    def criterion(self) -> Criterion:
        """The structured form of the criteria. Raises ValueError for an unknown phrase."""
        return parse_phrase(self.criteria) if isinstance(self.criteria, str) else self.criteria


class CheckpointStep(StepBase):
    """Keep the workspace's files and the run's state under one id."""

    type: Literal["checkpoint"]
    name: Name | None = None


Step = Annotated[ExecuteStep | VerifyStep | CheckpointStep, Field(discriminator="type")]
Steps = Annotated[list[Step], Field(min_length=1, max_length=MAX_STEPS)]


def step_ids(steps: list[ExecuteStep | VerifyStep | CheckpointStep]) -> list[str]:
    """The ids of the steps: as given, else `step-1`, `step-2` and so on by position."""
    return [step.id or f"step-{number}" for number, step in enumerate(steps, 1)]
