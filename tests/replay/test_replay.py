"""Runs that are going on survive a new version of the workflow code."""

from pathlib import Path

import pytest
from replay.record import SHAPES
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer

from director.temporal.client import DATA_CONVERTER
from director.temporal.runner import DirectorWorkflowRunner
from director.workflows.policies import FAULTS
from director.workflows.registry import WORKFLOWS

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_there_is_a_history_of_each_shape_of_run() -> None:
    shapes = {path.stem for path in HISTORIES}
    assert shapes == set(SHAPES)


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
async def test_a_recorded_history_replays_with_the_code_of_today(path: Path) -> None:
    replayer = Replayer(
        workflows=WORKFLOWS,
        data_converter=DATA_CONVERTER,
        workflow_runner=DirectorWorkflowRunner(),
        workflow_failure_exception_types=FAULTS,
    )

    history = WorkflowHistory.from_json(path.stem, path.read_text())

    await replayer.replay_workflow(history)
