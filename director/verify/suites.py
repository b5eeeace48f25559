"""`tests pass`: the last command ended with 0, and the results that are found agree."""

from typing import Any

from director.domain.criteria import Counts, PassingTestsCriterion, Verdict
from director.verify import readers
from director.verify.evidence import READ_LIMIT, Evidence, plain
from director.verify.readers.junit import ReportError, read_report
from director.verify.readers.summary import Summary, added

_REPORTS = 200
"""Report files that are read."""


def judge_tests(criterion: PassingTestsCriterion, evidence: Evidence) -> Verdict:
    """Judge by exit code and by the output's summary, or the reports that the criterion names."""
    if evidence.exit_code is None:
        message = "no command ended with an exit code to judge"
        return Verdict(passed=False, judged=False, message=message)
    if criterion.report is None:
        summary = readers.read(plain(f"{evidence.output('stdout')}\n{evidence.output('stderr')}"))
        return _verdict(evidence.exit_code, summary)
    try:
        summary = _reports(criterion.report, evidence)
    except ReportError as error:
        seen = {"exitCode": evidence.exit_code, "report": criterion.report}
        return Verdict(passed=False, judged=False, message=str(error), evidence=seen)
    return _verdict(evidence.exit_code, summary)


def _reports(pattern: str, evidence: Evidence) -> Summary | None:
    files = evidence.glob(pattern)
    if not files:
        raise ReportError(f"no test report found: nothing in the workspace is named {pattern}")
    if len(files) > _REPORTS:
        raise ReportError(f"{pattern} names {len(files)} files, at most {_REPORTS} are read")
    return added(_report(file, evidence) for file in files)


def _report(file: str, evidence: Evidence) -> Summary:
    try:
        document = evidence.read(file, READ_LIMIT + 1)
    except OSError as error:
        raise ReportError(f"the test report {file} cannot be read") from error
    if len(document) > READ_LIMIT:
        raise ReportError(f"the test report {file} has more than {READ_LIMIT} bytes")
    try:
        return read_report(document)
    except ReportError as error:
        raise ReportError(f"the test report {file} {error}") from error


def _verdict(exit_code: int, summary: Summary | None) -> Verdict:
    seen: dict[str, Any] = {"exitCode": exit_code}
    if summary is None:
        return _by_exit_code(exit_code, seen)
    seen |= {"runner": summary.runner, "unit": summary.unit, "failures": list(summary.failures)}
    counts = Counts(
        total=summary.total,
        passed=summary.passed,
        failed=summary.failed,
        skipped=summary.skipped,
    )
    passed = exit_code == 0 and summary.ran > 0 and summary.failed == 0
    message = _message(exit_code, summary)
    return Verdict(passed=passed, message=message, evidence=seen, counts=counts)


def _by_exit_code(exit_code: int, seen: dict[str, Any]) -> Verdict:
    if exit_code != 0:
        message = f"exit code was {exit_code}, wanted 0; no test summary was found in the output"
        return Verdict(passed=False, message=message, evidence=seen)
    message = "The command ended with 0; no test summary was found, only the exit code was judged"
    return Verdict(passed=True, message=message, evidence=seen)


def _message(exit_code: int, summary: Summary) -> str:
    if summary.failed:
        names = _names(summary)
        after = "" if exit_code else "; the command ended with 0 all the same"
        return f"{summary.failed} of {_units(summary.ran, summary)} failed{names}{after}"
    code = f"; exit code was {exit_code}, wanted 0" if exit_code else ""
    if not summary.ran:
        skipped = f": {summary.skipped} skipped or still to do" if summary.skipped else ""
        return f"no test ran{skipped}{code}"
    if code:
        return f"{_units(summary.passed, summary)} passed{code}"
    skipped = f", {summary.skipped} skipped" if summary.skipped else ""
    return f"All tests passed ({_units(summary.passed, summary)}{skipped}; {summary.runner})"


def _units(number: int, summary: Summary) -> str:
    return f"{number} {summary.unit}{'' if number == 1 else 's'}"


def _names(summary: Summary) -> str:
    if not summary.failures:
        return ""
    more = ", …" if summary.failed > len(summary.failures) else ""
    return f": {', '.join(summary.failures)}{more}"
