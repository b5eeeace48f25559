"""Reads mocha: `  2 passing (3ms)`, then `  1 pending`, `  3 failing` and the failures."""

from director.verify.patterns import whole_line
from director.verify.readers.summary import NAMES, Summary, added, named

_PASSING = whole_line(r" *(\d+) passing \([\d.]+(?:ms|s|m|h)\)")
_OTHERS = whole_line(r" *(\d+) (pending|failing)")
_TITLES = 20
"""Lines that a failure's nested titles may take."""

_TITLE = whole_line(r" +\d+\) (.+)")


def read(text: str) -> Summary | None:
    """Add up the runs of an output."""
    lines = text.split("\n")
    starts = (at for at, line in enumerate(lines) if " passing (" in line)
    return added(_summary(lines, at, found) for at in starts if (found := _PASSING(lines[at])))


def _summary(lines: list[str], at: int, passing: tuple[str, ...]) -> Summary:
    counts = {"pending": 0, "failing": 0}
    at += 1
    while at < len(lines) and (found := _OTHERS(lines[at])):
        counts[found[1]] = int(found[0])
        at += 1
    names = _names(lines, at) if counts["failing"] else []
    return Summary("mocha", int(passing[0]), counts["failing"], counts["pending"], named(names))


def _names(lines: list[str], at: int) -> list[str]:
    """Join the titles under each `  1) ` down to the one that ends with a colon."""
    names = list[str]()
    while at < len(lines) and len(names) < NAMES and " passing (" not in lines[at]:
        title = _TITLE(lines[at]) if lines[at].startswith("  ") else None
        titles = [title[0]] if title else []
        while (
            titles
            and not titles[-1].endswith(":")
            and at + 1 < len(lines)
            and len(titles) < _TITLES
        ):
            at += 1
            titles.append(lines[at].strip())
        if titles and titles[-1].endswith(":"):
            names.append(" > ".join(titles)[:-1])
        at += 1
    return names
