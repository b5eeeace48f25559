"""Reads vitest: the lines ` Test Files  …` and `      Tests  2 failed | 1 passed (3)`."""

from director.verify.patterns import whole_line
from director.verify.readers.summary import Summary, added, named

_FILES = whole_line(r" *Test Files  (.+?) *(?:\(\d+\))?")
_TESTS = whole_line(r" *Tests  (.+?) *(?:\(\d+\))?")
_ERRORS = whole_line(r" *Errors  (\d+) errors?")


def read(text: str) -> Summary | None:
    """Add up the runs of an output; a file that could not be run counts as a failure."""
    lines = text.split("\n")
    runs, names = list[Summary](), list[str]()
    for at, line in enumerate(lines):
        if line.startswith(" FAIL  "):
            names.append(line[7:])
        elif line.startswith("No test files found, exiting with code "):
            runs.append(Summary("vitest"))
        elif " Test Files  " in line and at + 1 < len(lines):
            files, tests = _FILES(line), _TESTS(lines[at + 1])
            if files and tests:
                errors = _ERRORS(lines[at + 2]) if at + 2 < len(lines) else None
                runs.append(_summary(files[0], tests[0], errors, names))
                names = []
    return added(runs)


def _counts(items: str) -> dict[str, int]:
    pairs = (item.strip().partition(" ") for item in items.split("|"))
    return {word: int(number) for number, _, word in pairs if number.isdigit()}


def _summary(files: str, tests: str, errors: tuple[str, ...] | None, names: list[str]) -> Summary:
    counts, failed_files = _counts(tests), _counts(files).get("failed", 0)
    broken = dict.fromkeys(name for name in names if " > " not in name and name.endswith("]"))
    failed = counts.get("failed", 0) + len(broken)
    return Summary(
        "vitest",
        counts.get("passed", 0),
        (failed or failed_files) + (int(errors[0]) if errors else 0),
        counts.get("skipped", 0) + counts.get("todo", 0),
        named(name.partition(" [ ")[0] if name in broken else name for name in names),
    )
