"""Many runs want the few slots of a department, while workers are killed and started at random."""

from pathlib import Path

import pytest
from chaos.campaign import line
from chaos.report import SEED, nothing_is_wrong
from e2e.installation import quiet_ports

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.timeout(240)]


def test_a_hundred_runs_have_three_slots_and_use_no_more_lose_none_and_keep_their_order(
    tmp_path: Path, sandbox_image: str
) -> None:
    ports = quiet_ports()
    nothing_is_wrong(line(tmp_path, ports, sandbox_image, SEED, seconds=60, runs=100, limit=3))
