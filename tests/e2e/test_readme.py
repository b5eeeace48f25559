"""What the README says to paste works when it is pasted."""

import re
import subprocess
from pathlib import Path

import pytest
from e2e.installation import Installation

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

ROOT = Path(__file__).parents[2]


def test_the_tour_of_the_readme_works_when_it_is_pasted(director: Installation) -> None:
    (tour,) = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert "127.0.0.1:8000" in tour
    assert ".director/" in tour
    here = tour.replace("http://127.0.0.1:8000", director.stack.api)
    here = here.replace(".director/", f"{director.home}/")

    pasted = subprocess.run(
        ["bash", "-eu", "-c", here],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
    )

    assert pasted.returncode == 0, pasted.stderr
    assert "wordcount" in pasted.stdout
    assert "'success': True" in pasted.stdout
