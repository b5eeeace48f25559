"""Reads jest: the lines `Test Suites: …` and `Tests: 2 failed, 1 passed, 3 total`."""

from director.verify.patterns import whole_line
from director.verify.readers.summary import Summary, added, named

_SUITES = whole_line(r"Test Suites: +(?:(\d+) failed, )?(?:\d+ \w+, )*(?:\d+ of )?\d+ total")
_TESTS = whole_line(r"Tests: +((?:\d+ \w+, )*)\d+ total")
_NO_TESTS = ("Console", "Test suite failed to run", "Validation Warning", "Cannot log after")


def read(text: str) -> Summary | None:
    """Add up the runs of an output; a suite that could not be run counts as a failure."""
    runs = list[Summary]()
    names, broken, suite, failed_suites = list[str](), list[str](), "", 0
    for line in text.split("\n"):
        if line.startswith(("FAIL ", " FAIL ")):
            suite = line.strip().removeprefix("FAIL").split(" (")[0].strip()
        elif line.startswith("  ● "):
            title = line[4:]
            broken += [suite] if title.startswith("Test suite failed to run") else []
            names += [] if title.startswith(_NO_TESTS) else [title]
        elif line.startswith("Test Suites:") and (found := _SUITES(line)):
            failed_suites = int(found[0] or 0)
        elif line.startswith("Tests:") and (found := _TESTS(line)):
            runs.append(_summary(found[0], names, broken, failed_suites))
            names, broken, failed_suites = [], [], 0
        elif line.startswith("No tests found, exiting with code "):
            runs.append(Summary("jest"))
    return added(runs)


def _summary(items: str, names: list[str], broken: list[str], failed_suites: int) -> Summary:
    counts = {"failed": 0, "passed": 0, "skipped": 0, "todo": 0}
    for item in items.split(", "):
        number, _, word = item.partition(" ")
        if word in counts:
            counts[word] += int(number)
    failed = counts["failed"] + len(dict.fromkeys(broken))
    return Summary(
        "jest",
        counts["passed"],
        failed or failed_suites,
        counts["skipped"] + counts["todo"],
        named([*broken, *names]),
    )
