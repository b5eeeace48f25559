"""Verdicts: what passes, what fails, and what people are told."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter

from director.domain.criteria import Criterion, Verdict, parse_phrase
from director.verify.judge import judge

OUTPUTS = Path(__file__).parent / "outputs"
CRITERION: TypeAdapter[Criterion] = TypeAdapter(Criterion)


class Left:
    """What a command left: evidence out of plain values. Records the commands that were run."""

    def __init__(
        self,
        exit_code: int | None = 0,
        stdout: str = "",
        stderr: str = "",
        files: dict[str, str] | None = None,
        codes: dict[str, int | None] | None = None,
    ) -> None:
        self.exit_code = exit_code
        self._streams = {"stdout": stdout, "stderr": stderr}
        self._files = files or {}
        self._codes = codes or {}
        self.commands: list[tuple[str, ...]] = []

    def output(self, stream: Literal["stdout", "stderr"]) -> str:
        return self._streams[stream]

    def read(self, path: str, limit: int) -> bytes:
        if path in ("link", "folder"):
            raise PermissionError(path)
        if path not in self._files:
            raise FileNotFoundError(path)
        return self._files[path].encode()[:limit]

    def kind(self, path: str) -> str | None:
        known = {"link": "symlink", "folder": "directory"}
        return "file" if path in self._files else known.get(path)

    def glob(self, pattern: str) -> Sequence[str]:
        return sorted(path for path in self._files if fnmatch(path, pattern))

    def run(self, argv: Sequence[str], timeout_ms: int) -> tuple[int | None, str]:
        self.commands.append(tuple(argv))
        return self._codes.get(argv[-1], 0), "its output"


def verdict(criterion: str | dict[str, Any], left: Left) -> Verdict:
    parsed = parse_phrase(criterion) if isinstance(criterion, str) else criterion
    return judge(CRITERION.validate_python(parsed), left)


def output(name: str) -> str:
    return (OUTPUTS / name).read_text()


def test_an_exit_code_is_compared() -> None:
    assert verdict("exit code is 3", Left(exit_code=3)).passed
    wrong = verdict("exit code is 0", Left(exit_code=1))
    assert (wrong.passed, wrong.message) == (False, "exit code was 1, wanted 0")
    assert wrong.evidence == {"exitCode": 1}


@pytest.mark.parametrize("phrase", ["exit code is 0", "tests pass", "no errors"])
def test_nothing_passes_when_no_command_ended(phrase: str) -> None:
    assert not verdict(phrase, Left(exit_code=None)).passed
    opposite = {"type": "not", "criterion": parse_phrase(phrase).model_dump(by_alias=True)}
    assert not verdict(opposite, Left(exit_code=None)).passed


@pytest.mark.parametrize(
    "name",
    ["pytest-green.txt", "jest-green.txt", "go-green.txt", "cargo-green.txt", "maven-green.txt"],
)
def test_green_suites_pass_with_counts(name: str) -> None:
    found = verdict("tests pass", Left(stdout=output(name)))
    assert found.passed
    assert found.counts is not None
    assert found.counts.passed > 0
    assert found.message.startswith("All tests passed (")


@pytest.mark.parametrize("name", ["pytest-red.txt", "vitest-red-colour.txt", "maven-red.txt"])
@pytest.mark.parametrize("exit_code", [0, 1])
def test_red_suites_fail_whatever_the_exit_code(name: str, exit_code: int) -> None:
    assert not verdict("tests pass", Left(exit_code, stdout=output(name))).passed


def test_failing_tests_are_named_in_the_message() -> None:
    found = verdict("tests pass", Left(1, stderr=output("unittest-red.txt")))
    assert found.message == (
        "3 of 4 tests failed: test_sum.SumTest.test_divides, test_sum.SumTest.test_multiplies,"
        " test_sum.SumTest.test_fixed"
    )


@pytest.mark.parametrize(
    "name",
    [
        "unittest-none.txt",
        "unittest-skips.txt",
        "pytest-skips.txt",
        "jest-none-allowed.txt",
        "vitest-none-allowed.txt",
        "vitest-skips.txt",
        "mocha-none.txt",
        "node-none-tap.txt",
        "node-skips-spec.txt",
        "go-none.txt",
        "go-none-notests.txt",
        "go-skips-v.txt",
        "cargo-none.txt",
        "maven-none.txt",
        "maven-skips.txt",
        "junit-pytest-none.xml",
    ],
)
def test_a_run_without_a_test_fails_though_the_command_ended_with_0(name: str) -> None:
    found = verdict("tests pass", Left(stdout=output(name)))
    assert not found.passed
    assert found.message.startswith("no test ran")


def test_green_tests_with_another_exit_code_fail() -> None:
    found = verdict("tests pass", Left(2, stdout=output("pytest-green.txt")))
    assert (found.passed, found.message) == (False, "2 tests passed; exit code was 2, wanted 0")


def test_without_a_summary_the_exit_code_is_judged_and_the_message_says_so() -> None:
    passing = verdict("tests pass", Left(stdout="fine"))
    assert passing.passed
    assert "no test summary was found, only the exit code was judged" in passing.message
    assert not verdict("tests pass", Left(1, stdout="fine")).passed


def test_reports_are_read_from_the_workspace() -> None:
    files = {
        "out/a.xml": output("junit-surefire-green.xml"),
        "out/b.xml": output("junit-surefire-red.xml"),
    }
    criterion = {"type": "tests", "report": "out/*.xml"}
    both = verdict(criterion, Left(files=files))
    assert not both.passed
    assert both.counts is not None
    assert (both.counts.passed, both.counts.failed) == (2, 2)
    assert verdict({"type": "tests", "report": "out/a.xml"}, Left(files=files)).passed


@pytest.mark.parametrize(
    "content", ["<nonsense", "<testsuite>" + " " * 2**20 + "</testsuite>", None]
)
def test_a_report_that_is_missing_or_broken_fails(content: str | None) -> None:
    files = {} if content is None else {"a.xml": content}
    found = verdict({"type": "tests", "report": "a.xml"}, Left(files=files))
    assert not found.passed
    assert "a.xml" in found.message


def test_output_is_searched_without_its_colours() -> None:
    left = Left(stdout="\x1b[32mall \x1b[1mdone\x1b[0m\n", stderr="a warning")
    assert verdict("output contains 'all done'", left).passed
    assert verdict("output contains 'a warning'", left).passed
    assert not verdict({"type": "output", "contains": "warning", "stream": "stdout"}, left).passed
    assert verdict({"type": "output", "contains": "ALL DONE", "ignoreCase": True}, left).passed
    assert not verdict("output contains 'ALL DONE'", left).passed


def test_a_pattern_matches_at_line_ends() -> None:
    left = Left(stdout="first\nBUILD 12 OK\r\nlast\n")
    found = verdict(r"output matches /^BUILD \d+ OK$/", left)
    assert found.passed
    assert found.evidence["match"] == "BUILD 12 OK"
    assert not verdict("output matches /^OK/", left).passed


def test_a_pattern_that_re2_does_not_know_never_passes() -> None:
    look_ahead = {"type": "regex", "pattern": "a(?=b)"}
    found = verdict(look_ahead, Left(stdout="ab"))
    assert "is no RE2 pattern" in found.message
    assert not found.passed
    assert not verdict({"type": "not", "criterion": look_ahead}, Left(stdout="ab")).passed


def test_a_costly_pattern_sees_only_the_end_and_its_opposite_does_not_pass() -> None:
    costly = {"type": "regex", "pattern": "start.{0,400}q"}
    left = Left(stdout="startq" + "x" * (1024 * 1024))
    found = verdict(costly, left)
    assert "characters were read" in found.message
    assert not verdict({"type": "not", "criterion": costly}, left).passed


def test_files_are_looked_for() -> None:
    left = Left(files={"dist/app.js": "console.log(1)"})
    assert verdict("file exists dist/app.js", left).passed
    assert verdict("file exists folder", left).passed
    assert verdict("file exists gone", left).message == "gone does not exist"
    assert verdict({"type": "file", "path": "gone", "exists": False}, left).passed
    assert not verdict({"type": "file", "path": "dist/app.js", "exists": False}, left).passed
    assert verdict({"type": "file", "path": "dist/app.js", "contains": "log"}, left).passed
    assert not verdict({"type": "file", "path": "dist/app.js", "contains": "warn"}, left).passed


def test_a_link_is_no_file() -> None:
    assert not verdict("file exists link", Left()).passed


def test_the_opposite_of_a_file_that_cannot_be_read_does_not_pass() -> None:
    inner = {"type": "file", "path": "folder", "contains": "x"}
    assert not verdict({"type": "not", "criterion": inner}, Left()).passed
    gone = {"type": "file", "path": "gone", "contains": "x"}
    assert not verdict({"type": "not", "criterion": gone}, Left()).passed
    assert verdict({"type": "not", "criterion": {"type": "file", "path": "gone"}}, Left()).passed


@pytest.mark.parametrize(
    ("phrase", "passed"),
    [
        ("json summary.failed == 0", True),
        ("json $.summary.failed == 0.0", True),
        ("json summary.failed == false", False),
        ("json summary.failed == '0'", False),
        ("json items[1].name == b", True),
        ("json items.1.name == 'b'", True),
        ("json items[2].name == b", False),
        ('json items == [{"name": "a"}, {"name": "b"}]', True),
        ('json $["a.b"] == null', True),
        ("json gone == null", False),
        ("json summary.failed.deeper == 0", False),
    ],
)
def test_json_values_are_compared_as_json(phrase: str, passed: bool) -> None:
    text = '{"summary": {"failed": 0}, "items": [{"name": "a"}, {"name": "b"}], "a.b": null}'
    assert verdict(phrase, Left(stdout=text)).passed is passed
    assert verdict(phrase, Left(stdout=f"> npm run report\n{text}\n")).passed is passed
    in_file = phrase.replace("json ", "json out.json:").replace(
        'out.json:$["a.b"]', "out.json:['a.b']"
    )
    assert verdict(in_file, Left(files={"out.json": text})).passed is passed


@pytest.mark.parametrize("stdout", ["", "no json", "[" * 100_000, "1" * 10_000, "{" + " " * 2**20])
def test_what_is_no_json_does_not_pass(stdout: str) -> None:
    found = verdict("json a == 1", Left(stdout=stdout))
    assert not found.passed
    assert found.message.startswith("stdout ")


def test_a_json_file_that_is_not_there_is_told() -> None:
    assert (
        verdict("json r.json:a == 1", Left()).message == "r.json cannot be read: it does not exist"
    )


def test_a_command_is_judged_by_its_exit_code() -> None:
    left = Left(codes={"exit 3": 3, "sleep 9": None})
    assert verdict({"type": "command", "command": "true"}, left).passed
    assert verdict({"type": "command", "command": "exit 3", "exitCode": 3}, left).passed
    assert not verdict({"type": "command", "command": ["exit 3"]}, left).passed
    late = verdict({"type": "command", "command": "sleep 9", "timeout": 5}, left)
    assert "did not end within 5 ms" in late.message
    assert left.commands[0] == ("/bin/sh", "-c", "true")
    assert left.commands[2] == ("exit 3",)


@pytest.mark.parametrize(
    "text",
    [
        "ERROR something broke",
        "2024-01-01 12:00:00 ERROR [main] no database",
        "error: cannot find symbol",
        "  Error: Cannot find module 'x'",
        "fatal: not a git repository",
        "panic: runtime error",
        "Traceback (most recent call last):",
        "ValueError: bad",
        "java.io.IOException: gone",
        "main.c:3:1: error: expected ';'",
        "src/a.ts(1,1): error TS2322: Type",
        "npm ERR! code 1",
        "error[E0425]: cannot find function",
        "\x1b[31mERROR\x1b[0m red",
        "0 errors here\nbut an ERROR there",
    ],
)
def test_a_line_that_tells_of_an_error_fails_no_errors(text: str) -> None:
    assert not verdict("no errors", Left(stdout=f"fine\n{text}\nfine")).passed
    assert not verdict("no errors", Left(stderr=text)).passed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0 errors, 0 warnings",
        "0 ERROR",
        "No errors found",
        "errors: 0",
        "ERROR: 0",
        "finished without error",
        "test_ERROR_handling passed",
        "ErrorBoundary renders",
        "handles an error: shows a message",
        "Errors: none",
    ],
)
def test_words_about_errors_are_no_errors(text: str) -> None:
    assert verdict("no errors", Left(stdout=text)).passed


def test_no_errors_wants_exit_code_0() -> None:
    assert not verdict("no errors", Left(exit_code=1)).passed


def test_all_stops_at_the_first_that_fails() -> None:
    criteria = [
        {"type": "exitCode", "equals": 0},
        {"type": "exitCode", "equals": 1},
        {"type": "command", "command": "true"},
    ]
    left = Left()
    found = verdict({"type": "all", "criteria": criteria}, left)
    assert found.message == "exit code was 0, wanted 1 (1 more not judged)"
    assert [child.passed for child in found.children] == [True, False]
    assert left.commands == []


def test_any_stops_at_the_first_that_passes() -> None:
    criteria = [{"type": "exitCode", "equals": 1}, {"type": "exitCode"}, {"type": "noErrors"}]
    found = verdict({"type": "any", "criteria": criteria}, Left())
    assert found.passed
    assert len(found.children) == 2
    none = verdict({"type": "any", "criteria": criteria[:1]}, Left())
    assert (none.passed, none.message) == (False, "none of 1 holds: exit code was 0, wanted 1")


def test_counts_of_a_part_are_the_counts_of_the_whole() -> None:
    left = Left(stdout=output("pytest-green.txt"), files={"a": ""})
    found = verdict("tests pass and file exists a", left)
    assert found.passed
    assert found.counts is not None
    assert found.counts.total == 3


def test_not_turns_a_verdict_around() -> None:
    assert verdict({"type": "not", "criterion": {"type": "exitCode"}}, Left(exit_code=1)).passed
    assert not verdict({"type": "not", "criterion": {"type": "exitCode"}}, Left()).passed


def test_a_verdict_is_json() -> None:
    left = Left(1, stdout=output("jest-red.txt"))
    found = verdict("tests pass", left)
    assert Verdict.model_validate_json(found.model_dump_json()) == found
