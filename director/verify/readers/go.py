"""Reads go test: plain (packages are counted), `-v` and `-json` (tests are counted)."""

import json
from dataclasses import dataclass, field

from director.verify.patterns import whole_line
from director.verify.readers.summary import Summary, added, named

_TEST = whole_line(r" *--- (PASS|FAIL|SKIP): (\S+) \([\d.]+s\)")
_PACKAGE = whole_line(r"(ok  |FAIL|\?   )\t(\S+)(?:[\t ](.*))?")
_OUTCOMES = {"PASS": "pass", "FAIL": "fail", "SKIP": "skip"}


@dataclass
class _Package:
    tests: dict[str, str] = field(default_factory=dict)

    def by_test(self, failed: bool, name: str) -> Summary:
        outcomes = list(_leaves(self.tests).values())
        failing = self._failing(failed, name)
        return Summary(
            "go", outcomes.count("pass"), len(failing), outcomes.count("skip"), named(failing)
        )

    def as_one(self, failed: bool, ran: bool, name: str) -> Summary:
        failing = self._failing(failed, name)
        return Summary("go", int(ran and not failed), int(failed), 0, named(failing), "package")

    def _failing(self, failed: bool, name: str) -> list[str]:
        """The failing tests, or the package where it failed without one (it did not build)."""
        names = [test for test, outcome in _leaves(self.tests).items() if outcome == "fail"]
        return names or ([name] if failed else [])


def read(text: str) -> Summary | None:
    """Add up the packages of an output."""
    lines = text.split("\n")
    events = [event for line in lines if line.startswith('{"') and (event := _event(line))]
    return _of_events(events, lines) if events else _of_lines(lines)


def _of_lines(lines: list[str]) -> Summary | None:
    verbose = any(line.startswith("=== RUN ") for line in lines)
    packages, package = list[Summary](), _Package()
    for line in lines:
        if "--- " in line and (test := _TEST(line)):
            package.tests[test[1]] = _OUTCOMES[test[0]]
        elif line.startswith(("ok  \t", "FAIL\t", "?   \t")) and (found := _PACKAGE(line)):
            kind, name, note = found
            failed, name = kind == "FAIL", _with_reason(name, note)
            ran = kind.startswith("ok") and "no tests to run" not in note
            packages.append(
                package.by_test(failed, name) if verbose else package.as_one(failed, ran, name)
            )
            package = _Package()
    return added(packages)


def _with_reason(name: str, note: str) -> str:
    return f"{name} {note}" if note.startswith("[") else name


def _event(line: str) -> dict[str, str] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(event, dict) and isinstance(event.get("Action"), str)
    return event if known and isinstance(event.get("Package"), str) else None


def _of_events(events: list[dict[str, str]], lines: list[str]) -> Summary | None:
    packages: dict[str, _Package] = {}
    ended: dict[str, str] = {}
    for event in events:
        package = packages.setdefault(event["Package"], _Package())
        if event["Action"] in ("pass", "fail", "skip"):
            test = event.get("Test")
            if test is None:
                ended[event["Package"]] = event["Action"]
            else:
                package.tests[str(test)] = event["Action"]
    for line in lines:
        if line.startswith("FAIL\t") and (found := _PACKAGE(line)):
            packages[_with_reason(found[1], found[2])] = _Package()
    return added(
        package.by_test(ended.get(name, "fail") == "fail", name)
        for name, package in packages.items()
    )


def _leaves(tests: dict[str, str]) -> dict[str, str]:
    """Leave out a test whose subtests are counted, unless it failed without one of them."""
    inner: dict[str, set[str]] = {}
    for test, outcome in tests.items():
        inner.setdefault(test.rpartition("/")[0], set()).add(outcome)
    return {
        test: outcome
        for test, outcome in tests.items()
        if test not in inner or (outcome == "fail" and "fail" not in inner[test])
    }
