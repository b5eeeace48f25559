"""What the README and the pages say to paste works when it is pasted."""

import re
import subprocess
from pathlib import Path

import pytest
from e2e.installation import Installation

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

ROOT = Path(__file__).parents[2]


def paste(director: Installation, page: str, seconds: int = 90) -> subprocess.CompletedProcess[str]:
    """Paste the commands of a page that has one block of them; endless ones end with code 28."""
    (tour,) = re.findall(r"```bash\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert "127.0.0.1:8000" in tour
    assert ".director/" in tour
    here = tour.replace("http://127.0.0.1:8000", director.stack.api)
    here = here.replace(".director/", f"{director.home}/")
    here = here.replace("curl ", f"curl --max-time {seconds} ")
    return subprocess.run(
        ["bash", "-eu", "-c", here],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_the_tour_of_the_readme_works_when_it_is_pasted(director: Installation) -> None:
    pasted = paste(director, "README.md")

    assert pasted.returncode == 0, pasted.stderr
    assert "wordcount" in pasted.stdout
    assert "'success': True" in pasted.stdout


def test_the_talk_of_the_page_on_context_works_when_it_is_pasted(director: Installation) -> None:
    pasted = paste(director, "docs/context.md")

    assert pasted.returncode == 0, pasted.stderr
    evicted, *_, said = pasted.stdout.splitlines()
    assert evicted.startswith("['itm_")
    assert "It rains" not in pasted.stdout
    assert said == "Is it done?"


def test_the_ways_to_listen_work_when_they_are_pasted(director: Installation) -> None:
    run = director.user.run("echo heard")

    pasted = paste(director, "docs/events.md", seconds=5)

    polled, _, streamed = pasted.stdout.partition("id: 0\n")
    assert pasted.returncode == 28, "the stream goes on for ever"
    assert polled.startswith('{"success":true,"data":[{"type":')
    assert streamed.count("event: workflow_progress\ndata: {") >= 4
    assert f'"runId":"{run["runId"]}"' in streamed
