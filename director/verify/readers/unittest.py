"""Reads Python's unittest: `Ran 6 tests in 0.001s`, a blank line, `FAILED (failures=1)`."""

from director.verify.patterns import whole_line
from director.verify.readers.summary import Summary, added, named

_RAN = whole_line(r"Ran (\d+) tests? in [\d.]+s")
_END = whole_line(r"(OK|FAILED|NO TESTS RAN)(?: \(([a-z0-9=, ]+)\))?")
_FAILURE = whole_line(r"(?:ERROR|FAIL|UNEXPECTED SUCCESS): (\S+) \((.+)\)")


def read(text: str) -> Summary | None:
    """Add up the runs of an output; a run needs its rule, its count and its verdict."""
    lines = text.split("\n")
    runs, names = list[Summary](), list[str]()
    for at, line in enumerate(lines):
        if line.startswith(("ERROR: ", "FAIL: ", "UNEXPECTED SUCCESS: ")):
            failure = _FAILURE(line) if at and lines[at - 1].startswith("=====") else None
            names += [_name(*failure)] if failure else []
        elif line.startswith("Ran ") and at and lines[at - 1].startswith("-----"):
            ran, end = _RAN(line), _END(lines[at + 2]) if at + 2 < len(lines) else None
            if ran and end:
                verdict, details = end
                runs.append(_summary(int(ran[0]), verdict, details, names))
                names = []
    return added(runs)


def _name(test: str, place: str) -> str:
    return place if place.endswith(f".{test}") else f"{place}.{test}"


def _summary(ran: int, verdict: str, details: str, names: list[str]) -> Summary:
    counts = {"failures": 0, "errors": 0, "unexpected successes": 0}
    skips = {"skipped": 0, "expected failures": 0}
    for detail in details.split(", "):
        word, _, number = detail.partition("=")
        for kinds in (counts, skips):
            if word in kinds and number.isdigit():
                kinds[word] = int(number)
    failed, skipped = sum(counts.values()), sum(skips.values())
    failed = max(failed, 1) if verdict == "FAILED" else failed
    passed = max(ran - failed - skipped, 0)
    return Summary("unittest", passed, failed, skipped, named(names))
