"""Parts of Director are killed at random for a minute, and what is seen from outside is right."""

from pathlib import Path

import pytest
from chaos.campaign import chaos
from chaos.report import SEED, nothing_is_wrong
from e2e.installation import quiet_ports

pytestmark = [
    pytest.mark.docker,
    pytest.mark.e2e,
    pytest.mark.storm,
    pytest.mark.timeout(240),
]


def test_every_kind_of_run_reaches_its_end_and_nothing_happens_twice(
    tmp_path: Path, sandbox_image: str
) -> None:
    nothing_is_wrong(chaos(tmp_path, quiet_ports(), sandbox_image, SEED, seconds=60))
