"""Parts of Director are killed at random for a minute, and what is seen from outside is right."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos.campaign import Campaign, chaos, line
from chaos.checker import check
from chaos.report import show
from e2e.installation import quiet_ports, remove_containers
from rich.console import Console

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(240)]

SECONDS = 60
SEED = int(os.environ.get("DIRECTOR_CHAOS_SEED", "7"))
"""The same in every run, so that a failure can be had again; `make chaos` draws another."""


@pytest.fixture
def nothing_is_wrong(tmp_path: Path) -> Callable[[Campaign], None]:
    """Do a campaign, print its figures, and fail where one that must be zero is not."""

    def judge(campaign: Campaign) -> None:
        try:
            record = campaign.run()
        finally:
            remove_containers(campaign.home)
        figures = check(record.seen)
        show(Console(width=100), record, figures)
        assert {figure.name: figure.cases for figure in figures if figure.cases} == {}

    return judge


def test_every_kind_of_run_reaches_its_end_and_nothing_happens_twice(
    nothing_is_wrong: Callable[[Campaign], None], tmp_path: Path, sandbox_image: str
) -> None:
    nothing_is_wrong(chaos(tmp_path, quiet_ports(), sandbox_image, SEED, SECONDS))


def test_a_hundred_runs_of_a_department_with_three_slots_run_three_at_once_in_their_order(
    nothing_is_wrong: Callable[[Campaign], None], tmp_path: Path, sandbox_image: str
) -> None:
    hundred = line(tmp_path, quiet_ports(), sandbox_image, SEED, SECONDS, runs=100, limit=3)
    nothing_is_wrong(hundred)
