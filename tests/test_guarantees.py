"""The pages of guarantees name a test for each promise, and each of them is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ["docs/guarantees.md", "SECURITY.md"]
UNTESTED = "**Not promised:**"


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_the_page_names_is_there(page: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / page).read_text())
    assert named
    missing = [
        f"{path}::{name}"
        for path, name in named
        if not (ROOT / path).exists()
        or not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_of_the_page_names_a_test(page: str) -> None:
    rows = [line for line in (ROOT / page).read_text().splitlines() if line.startswith("| **")]
    assert len(rows) > 10
    assert [row for row in rows if "tests/" not in row and UNTESTED not in row] == []
