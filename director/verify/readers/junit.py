"""Reads JUnit XML, the report format that most runners can write, from an output or a file."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from director.verify.readers.summary import Summary, added, named

_DECLARATION = 200
"""Characters that an XML declaration on the same line may take."""


class ReportError(ValueError):
    """A report that is no JUnit XML."""


def read(text: str) -> Summary | None:
    """Add up the reports that are printed whole in an output."""
    found = list[Summary]()
    for document in _documents(text):
        try:
            found.append(read_report(document))
        except ReportError:
            continue
    return added(found)


def read_report(document: str | bytes) -> Summary:
    """Count the test cases of one report. Raises ReportError."""
    try:
        root = fromstring(document, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise ReportError(f"is no JUnit XML: {error}") from error
    if root.tag not in ("testsuites", "testsuite"):
        raise ReportError(f"is no JUnit XML: its root is <{str(root.tag)[:80]}>")
    return _summary(root)


def _documents(text: str) -> Iterator[str]:
    at = 0
    while (start := text.find("<testsuite", at)) >= 0:
        tag = "testsuites" if text.startswith("<testsuites", start) else "testsuite"
        stop = text.find(">", start)
        end = stop if text[stop - 1 : stop] == "/" else text.find(f"</{tag}>", start)
        if end < 0:
            return
        at = text.find(">", end) + 1
        before = text[max(start - _DECLARATION, 0) : start].rpartition("\n")[2].strip()
        if not before or before.startswith("<?xml"):
            yield text[start:at]


def _summary(root: Element) -> Summary:
    outcomes = [(_outcome(case), _name(case)) for case in root.iter("testcase")]
    for suite in root.iter("testsuite"):
        broken = suite.find("testcase") is None and suite.find("testsuite") is None
        if suite.find("error") is not None or (broken and _failures(suite)):
            outcomes.append(("failed", suite.get("name", "a suite")))
    each = [outcome for outcome, _ in outcomes]
    return Summary(
        "JUnit XML",
        each.count("passed"),
        each.count("failed"),
        each.count("skipped"),
        named(name for outcome, name in outcomes if outcome == "failed"),
    )


def _failures(suite: Element) -> bool:
    return any(suite.get(kind, "0").strip() not in ("", "0") for kind in ("failures", "errors"))


def _outcome(case: Element) -> str:
    if case.find("skipped") is not None:
        return "skipped"
    failed = case.find("failure") is not None or case.find("error") is not None
    return "failed" if failed else "passed"


def _name(case: Element) -> str:
    place, name = case.get("classname", ""), case.get("name", "a test without a name")
    return name if place in ("", "test", name) else f"{place}.{name}"
