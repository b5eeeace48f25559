"""Many runs want the few slots of a department, while workers are killed and started at random."""

from dataclasses import replace
from pathlib import Path

import pytest
from chaos.campaign import line
from chaos.report import SEED, nothing_is_wrong
from e2e.installation import quiet_ports

pytestmark = [
    pytest.mark.docker,
    pytest.mark.e2e,
    pytest.mark.kills,
    pytest.mark.storm,
    pytest.mark.timeout(240),
]

SIZES = {"sqlite": (100, 40), "postgres": (50, 20)}
"""How many runs, and for how many seconds workers are killed: all of it on one kind of database."""


def test_many_runs_have_three_slots_and_use_no_more_lose_none_and_keep_their_order(
    tmp_path: Path, database: str, url: str, sandbox_image: str
) -> None:
    runs, seconds = SIZES[database]
    campaign = line(
        tmp_path, quiet_ports(), sandbox_image, SEED, seconds=seconds, runs=runs, limit=3
    )
    nothing_is_wrong(replace(campaign, database=url))
