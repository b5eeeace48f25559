"""`make docs`: write the pages that are made from the code."""

from pathlib import Path

from director.domain import states

FOLDER = Path(__file__).parents[1] / "docs"

if __name__ == "__main__":
    (FOLDER / "states.md").write_text(states.page())
