"""Reads pytest: `=== 2 failed, 1 passed in 0.03s ===`, or without the bars when quiet."""

from director.verify.patterns import whole_line
from director.verify.readers.summary import Summary, added, named

_ITEM = r"\d+ [a-z]+(?: [a-z]+)?"
_END = whole_line(
    rf"(?:=+ )?((?:{_ITEM}(?:, {_ITEM})*)|no tests ran|no tests collected)"
    r"(?:, \d+ deselected)? in [\d.]+s(?: \([^)]*\))?(?: =+)?"
)
_OUTCOMES = {
    "passed": "passed",
    "xpassed": "passed",
    "subtests passed": "passed",
    "failed": "failed",
    "error": "failed",
    "errors": "failed",
    "subtests failed": "failed",
    "skipped": "skipped",
    "xfailed": "skipped",
    "subtests skipped": "skipped",
}


def read(text: str) -> Summary | None:
    """Add up the sessions of an output, without those that a test printed inside another."""
    ends: list[tuple[int, Summary]] = []
    depth, names, listing = 0, list[str](), False
    for line in text.split("\n"):
        if "= test session starts =" in line:
            depth += 1
        elif "= short test summary info =" in line:
            names, listing = [], True
        elif listing and line.startswith(("FAILED ", "ERROR ")):
            names.append(line.partition(" ")[2].partition(" - ")[0])
        elif " in " in line and (found := _END(line)):
            depth = max(depth - 1, 0)
            ends.append((depth, _summary(found[0], names)))
            names, listing = [], False
    return added(
        end for place, (depth, end) in enumerate(ends, 1) if not depth or place == len(ends)
    )


def _summary(items: str, names: list[str]) -> Summary:
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for item in items.split(", "):
        number, _, word = item.partition(" ")
        if word in _OUTCOMES:
            counts[_OUTCOMES[word]] += int(number)
    return Summary("pytest", counts["passed"], counts["failed"], counts["skipped"], named(names))
