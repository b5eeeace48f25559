"""Runs and steps move as the tables say, and in no other way."""

from itertools import product
from pathlib import Path

import pytest

from director.domain import states
from director.domain.runs import RunStatus, StepStatus
from director.domain.states import RUN_MOVES, STEP_MOVES, advance, advance_step

ENDED = [status for status in RunStatus if status.ended]
OPEN = [status for status in RunStatus if not status.ended and status is not RunStatus.CREATED]
DOCS = Path(__file__).parents[2] / "docs" / "states.md"


def test_every_status_has_its_row() -> None:
    assert set(RUN_MOVES) == set(RunStatus)
    assert set(STEP_MOVES) == set(StepStatus)


@pytest.mark.parametrize(("current", "wanted"), list(product(RunStatus, RunStatus)))
def test_a_run_moves_where_the_table_has_the_move_and_else_stays(
    current: RunStatus, wanted: RunStatus
) -> None:
    assert advance(current, wanted) is (wanted if wanted in RUN_MOVES[current] else current)


@pytest.mark.parametrize(("current", "wanted"), list(product(StepStatus, StepStatus)))
def test_a_step_moves_where_the_table_has_the_move_and_another_is_refused(
    current: StepStatus, wanted: StepStatus
) -> None:
    if wanted is current or wanted in STEP_MOVES[current]:
        assert advance_step(current, wanted) is wanted
    else:
        with pytest.raises(ValueError, match=f"{current} does not become {wanted}"):
            advance_step(current, wanted)


@pytest.mark.parametrize("end", ENDED)
def test_nothing_leaves_an_end(end: RunStatus) -> None:
    assert RUN_MOVES[end] == {}


@pytest.mark.parametrize("current", OPEN)
def test_every_open_run_can_end_in_each_way(current: RunStatus) -> None:
    assert set(ENDED) <= set(RUN_MOVES[current])


def test_a_run_that_is_being_cancelled_only_ends() -> None:
    assert set(RUN_MOVES[RunStatus.CANCELLING]) == set(ENDED)


def test_a_run_is_never_queued_again() -> None:
    assert [current for current in OPEN if RunStatus.QUEUED in RUN_MOVES[current]] == []


@pytest.mark.parametrize("current", [status for status in StepStatus if not status.ended])
def test_a_step_that_has_not_ended_can_end_with_its_run(current: StepStatus) -> None:
    ends = {StepStatus.FAILED, StepStatus.CANCELLED, StepStatus.TIMED_OUT}
    assert ends <= set(STEP_MOVES[current])


def test_the_page_of_the_docs_is_the_tables() -> None:
    assert DOCS.read_text() == states.page(), "run `make docs`"
