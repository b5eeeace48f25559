"""Reads Maven Surefire: `Tests run: 5, Failures: 1, Errors: 1, Skipped: 1` for each module."""

from director.verify.patterns import whole_line
from director.verify.readers.summary import Summary, added, named

_LEVEL = r"(?:\[(?:INFO|WARNING|ERROR)\] +)?"
_RUN = whole_line(
    rf"{_LEVEL}Tests run: (\d+), Failures: (\d+), Errors: (\d+), Skipped: (\d+)(?:, Flakes: \d+)?"
)
_FAILURE = whole_line(rf"{_LEVEL}(\S.*?)(?: --|  ?) *Time elapsed: .*<<< (?:FAILURE|ERROR)!")


def read(text: str) -> Summary | None:
    """Add up the modules of an output; lines of single classes (`Time elapsed`) do not count."""
    modules, names = list[Summary](), list[str]()
    for line in text.split("\n"):
        if "<<< " in line and (failure := _FAILURE(line)):
            names += [] if failure[0].startswith("Tests run:") else [_name(failure[0])]
        elif "Tests run: " in line and (found := _RUN(line)):
            run, failures, errors, skipped = map(int, found)
            failed = failures + errors
            passed = max(run - failed - skipped, 0)
            modules.append(Summary("Maven", passed, failed, skipped, named(names)))
            names = []
        elif line in ("[INFO] No tests to run.", "No tests to run."):
            modules.append(Summary("Maven"))
    return added(modules)


def _name(test: str) -> str:
    """Write `adds(shop.SumTest)` of older versions as the newer ones do: `shop.SumTest.adds`."""
    method, parenthesis, place = test.partition("(")
    return f"{place[:-1]}.{method}" if parenthesis and place.endswith(")") else test
