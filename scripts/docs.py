"""`make docs`: write the pages, and the parts of pages, that are made from the code."""

import sys
from pathlib import Path

from director.domain import events, states

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from bench import page  # noqa: E402 - it is no package that is installed

FOLDER = ROOT / "docs"
BEGIN, END = "<!-- made by `make docs` -->\n", "<!-- end of what is made -->\n"


def fill(page: Path, made: str) -> None:
    """Replace what stands between the marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{made}\n{END}{after}")


if __name__ == "__main__":
    (FOLDER / "states.md").write_text(states.page())
    fill(FOLDER / "events.md", events.tables())
    fill(FOLDER / "benchmarks.md", page.figures(ROOT / "bench" / "results.json"))
