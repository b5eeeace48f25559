"""Gives the verdict on a criterion. Nothing passes by default: what cannot be seen fails."""

from collections.abc import Callable
from typing import Any

from director.domain.criteria import (
    AllCriterion,
    AnyCriterion,
    ApprovalCriterion,
    CommandCriterion,
    Criterion,
    ExitCodeCriterion,
    FileCriterion,
    JsonCriterion,
    NoErrorsCriterion,
    NotCriterion,
    OutputCriterion,
    PassingTestsCriterion,
    RegexCriterion,
    Stream,
    Verdict,
    parts,
)
from director.verify.documents import DocumentError, read_json, same, shown, value_at
from director.verify.errors import error_line
from director.verify.evidence import READ_LIMIT, ApprovalNeededError, Evidence, plain
from director.verify.patterns import Pattern, PatternError
from director.verify.suites import judge_tests

_EXCERPT = 300
_TAIL = 4096
_NOTHING_RAN = "no command ended with an exit code to judge"


def judge(criterion: Criterion, evidence: Evidence) -> Verdict:
    """Judge a criterion by the evidence; parts of `all` and `any` only until it is decided.

    Raises ApprovalNeededError where it comes to an approval that nobody has decided."""
    return _JUDGES[type(criterion)](criterion, evidence)


def _exit_code(criterion: ExitCodeCriterion, evidence: Evidence) -> Verdict:
    code = evidence.exit_code
    if code is None:
        return _missing(_NOTHING_RAN)
    wanted = "" if code == criterion.equals else f", wanted {criterion.equals}"
    return Verdict(passed=not wanted, message=f"exit code was {code}{wanted}", evidence=_code(code))


def _code(code: int | None) -> dict[str, Any]:
    return {"exitCode": code}


def _failed(message: str, **evidence: Any) -> Verdict:
    return Verdict(passed=False, message=message, evidence=evidence)


def _missing(message: str, **evidence: Any) -> Verdict:
    return Verdict(passed=False, judged=False, message=message, evidence=evidence)


def _passed(message: str, **evidence: Any) -> Verdict:
    return Verdict(passed=True, message=message, evidence=evidence)


def _output(stream: Stream, evidence: Evidence) -> str:
    if stream == "both":
        return plain(f"{evidence.output('stdout')}\n{evidence.output('stderr')}")
    return plain(evidence.output(stream))


def _where(stream: Stream) -> str:
    return "the output" if stream == "both" else stream


def _contains(criterion: OutputCriterion, evidence: Evidence) -> Verdict:
    text, wanted = _output(criterion.stream, evidence), criterion.contains
    wanted = wanted.replace("\r\n", "\n")
    at = text.casefold().find(wanted.casefold()) if criterion.ignore_case else text.find(wanted)
    where, what = _where(criterion.stream), shown(criterion.contains)
    if at < 0:
        return _failed(f"{where} does not contain {what}", tail=text[-_TAIL:])
    return _passed(f"{where} contains {what}", excerpt=_line_at(text, at))


def _line_at(text: str, at: int) -> str:
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    start = max(start, at - _EXCERPT)
    return text[start : end if end >= 0 else len(text)][: 2 * _EXCERPT]


def _matches(criterion: RegexCriterion, evidence: Evidence) -> Verdict:
    try:
        pattern = Pattern(criterion.pattern)
    except PatternError as error:
        return _missing(str(error))
    text, where = _output(criterion.stream, evidence), _where(criterion.stream)
    searched = text[-pattern.reach :]
    found = pattern.search(searched)
    if found is None:
        message, tail = f"{where} does not match /{criterion.pattern}/", text[-_TAIL:]
        if len(searched) == len(text):
            return _failed(message, tail=tail)
        return _missing(f"{message} (its last {len(searched)} characters were read)", tail=tail)
    return _passed(
        f"{where} matches /{criterion.pattern}/",
        match=found.text[:_EXCERPT],
        excerpt=_line_at(searched, found.start),
    )


def _file(criterion: FileCriterion, evidence: Evidence) -> Verdict:
    path = criterion.path
    try:
        kind = evidence.kind(path)
    except OSError as error:
        return _missing(f"{path} cannot be looked at: {_reason(error)}", path=path)
    seen = {"path": path, "kind": kind}
    if not criterion.exists:
        message = f"{path} does not exist" if kind is None else f"{path} exists ({kind})"
        return Verdict(passed=kind is None, message=message, evidence=seen)
    if kind is None:
        lacking = _failed if criterion.contains is None else _missing
        return lacking(f"{path} does not exist", **seen)
    if kind not in ("file", "directory"):
        return _missing(f"{path} is a {kind}; links and special files are not followed", **seen)
    if criterion.contains is None:
        return _passed(f"{path} exists", **seen)
    return _file_contains(path, criterion.contains, evidence)


def _file_contains(path: str, wanted: str, evidence: Evidence) -> Verdict:
    try:
        data = evidence.read(path, READ_LIMIT + 1)
    except OSError as error:
        return _missing(f"{path} cannot be read: {_reason(error)}", path=path)
    text = data[:READ_LIMIT].decode("utf-8", "replace")
    at = text.find(wanted)
    if at < 0 and len(data) > READ_LIMIT:
        return _missing(f"{path} does not contain {shown(wanted)} in its first MiB", path=path)
    if at < 0:
        return _failed(f"{path} does not contain {shown(wanted)}", path=path, head=text[:_TAIL])
    return _passed(f"{path} contains {shown(wanted)}", path=path, excerpt=_line_at(text, at))


def _document(path: str, evidence: Evidence) -> str:
    data = evidence.read(path, READ_LIMIT + 1)
    if len(data) > READ_LIMIT:
        raise DocumentError("has more than a MiB and is not read")
    return data.decode("utf-8", "replace")


def _reason(error: OSError) -> str:
    known = {FileNotFoundError: "it does not exist", PermissionError: "it is no regular file there"}
    return known.get(type(error), "an error of the file system")


def _json(criterion: JsonCriterion, evidence: Evidence) -> Verdict:
    where = criterion.file or "stdout"
    try:
        text = _document(where, evidence) if criterion.file else _output("stdout", evidence)
        actual = value_at(read_json(text), criterion.pointer)
    except OSError as error:
        return _missing(f"{where} cannot be read: {_reason(error)}", file=where)
    except DocumentError as error:
        return _missing(f"{where} {error}", source=where)
    equal = same(actual, criterion.equals)
    wanted = "" if equal else f", wanted {shown(criterion.equals)}"
    message = f"{criterion.pointer} in {where} was {shown(actual)}{wanted}"
    seen = {"source": where, "pointer": criterion.pointer, "actual": shown(actual)}
    return Verdict(passed=equal, message=message, evidence=seen)


def _command(criterion: CommandCriterion, evidence: Evidence) -> Verdict:
    command = criterion.command
    argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
    code, output = evidence.run(argv, criterion.timeout)
    seen = {"exitCode": code, "tail": plain(output)[-_TAIL:]}
    named = f"the command {shown(command if isinstance(command, str) else ' '.join(command))}"
    if code is None:
        return _missing(f"{named} did not end within {criterion.timeout} ms", **seen)
    wanted = "" if code == criterion.exit_code else f", wanted {criterion.exit_code}"
    message = f"{named} ended with {code}{wanted}"
    return Verdict(passed=not wanted, message=message, evidence=seen)


def _no_errors(_: NoErrorsCriterion, evidence: Evidence) -> Verdict:
    code = evidence.exit_code
    if code is None:
        return _missing(_NOTHING_RAN)
    if code != 0:
        return _failed(f"exit code was {code}, wanted 0", exitCode=code)
    line = error_line(_output("both", evidence))
    if line is not None:
        short = line.strip()[:_EXCERPT]
        return _failed(f"the output tells of an error: {short}", exitCode=code, line=short)
    return _passed("exit code was 0 and no line of the output tells of an error", exitCode=code)


def _all(criterion: AllCriterion, evidence: Evidence) -> Verdict:
    children = _until(False, criterion, evidence)
    last, left = children[-1], len(criterion.criteria) - len(children)
    counts = next((child.counts for child in children if child.counts), None)
    more = f" ({left} more not judged)" if left else ""
    message = "; ".join(child.message for child in children) if last.passed else last.message + more
    return Verdict(
        passed=last.passed,
        judged=last.judged,
        message=message,
        counts=counts,
        children=children,
    )


def _any(criterion: AnyCriterion, evidence: Evidence) -> Verdict:
    children = _until(True, criterion, evidence)
    last = children[-1]
    counts = next((child.counts for child in children if child.counts), None)
    none = f"none of {len(children)} holds: " + "; ".join(child.message for child in children)
    message = last.message if last.passed else none
    return Verdict(
        passed=last.passed,
        judged=last.passed or all(child.judged for child in children),
        message=message,
        counts=counts,
        children=children,
    )


def _until(
    decided: bool, criterion: AllCriterion | AnyCriterion, evidence: Evidence
) -> tuple[Verdict, ...]:
    children: list[Verdict] = []
    for part in parts(criterion):
        children.append(judge(part, evidence))
        if children[-1].passed is decided:
            break
    return tuple(children)


def _not(criterion: NotCriterion, evidence: Evidence) -> Verdict:
    child = judge(criterion.criterion, evidence)
    if not child.judged:
        return child
    passed = not child.passed
    message = f"as wanted, not so: {child.message}" if passed else f"not wanted: {child.message}"
    return Verdict(passed=passed, message=message, counts=child.counts, children=(child,))


def _approval(_: ApprovalCriterion, evidence: Evidence) -> Verdict:
    decision = evidence.approval()
    if decision is None:
        raise ApprovalNeededError
    verb = "approved" if decision.approved else "rejected"
    reason = f": {decision.reason}" if decision.reason else ""
    seen = decision.model_dump(mode="json", exclude_none=True)
    return Verdict(
        passed=decision.approved, message=f"{verb} by {decision.by}{reason}", evidence=seen
    )


_JUDGES: dict[type, Callable[[Any, Evidence], Verdict]] = {
    ExitCodeCriterion: _exit_code,
    OutputCriterion: _contains,
    RegexCriterion: _matches,
    FileCriterion: _file,
    JsonCriterion: _json,
    CommandCriterion: _command,
    PassingTestsCriterion: judge_tests,
    NoErrorsCriterion: _no_errors,
    ApprovalCriterion: _approval,
    AllCriterion: _all,
    AnyCriterion: _any,
    NotCriterion: _not,
}
