"""Every reader against outputs that the real tools wrote (`outputs/<tool>-<case>`)."""

from pathlib import Path

import pytest

from director.verify import readers
from director.verify.evidence import plain
from director.verify.readers import junit
from director.verify.readers.summary import Summary

OUTPUTS = Path(__file__).parent / "outputs"


def summary_of(name: str) -> Summary | None:
    return readers.read(plain((OUTPUTS / name).read_text()))


# name: passed, failed, skipped, what is counted or who says it, failing tests
EXPECTED: dict[str, tuple[int, int, int, str, tuple[str, ...]]] = {
    "cargo-green.txt": (3, 0, 1, "cargo", ()),
    "cargo-red.txt": (1, 2, 1, "cargo", ("tests::divides", "tests::multiplies")),
    "cargo-red-all.txt": (2, 2, 1, "cargo", ("tests::divides", "tests::multiplies")),
    "cargo-red-quiet.txt": (1, 2, 1, "cargo", ("tests::divides", "tests::multiplies")),
    "cargo-none.txt": (0, 0, 0, "cargo", ()),
    "go-green.txt": (2, 0, 0, "go", ()),
    "go-green-cached.txt": (2, 0, 0, "go", ()),
    "go-green-v.txt": (4, 0, 1, "go", ()),
    "go-green-json.txt": (4, 0, 1, "go", ()),
    "go-red.txt": (1, 1, 0, "go", ("TestMultiply", "TestTable/two", "TestPanic")),
    "go-red-v.txt": (3, 3, 1, "go", ("TestMultiply", "TestTable/two", "TestPanic")),
    "go-red-json.txt": (3, 3, 1, "go", ("TestMultiply", "TestTable/two", "TestPanic")),
    "go-red-plain.txt": (1, 1, 0, "go", ("TestMultiply", "TestTable/two")),
    "go-red-plain-v.txt": (3, 2, 1, "go", ("TestMultiply", "TestTable/two")),
    "go-red-plain-json.txt": (3, 2, 1, "go", ("TestMultiply", "TestTable/two")),
    "go-build.txt": (1, 1, 0, "go", ("example.com/shop/shop [build failed]",)),
    "go-build-v.txt": (1, 1, 0, "go", ("example.com/shop/shop [build failed]",)),
    "go-build-json.txt": (1, 1, 0, "go", ("example.com/shop/shop [build failed]",)),
    "go-none.txt": (0, 0, 0, "go", ()),
    "go-none-v.txt": (0, 0, 0, "go", ()),
    "go-none-json.txt": (0, 0, 0, "go", ()),
    "go-none-notests.txt": (0, 0, 0, "go", ()),
    "go-skips-v.txt": (0, 0, 1, "go", ()),
    "go-skips-json.txt": (0, 0, 1, "go", ()),
    "jest-green.txt": (2, 0, 2, "jest", ()),
    "jest-red.txt": (
        1,
        3,
        1,
        "jest",
        ("./broken.test.js", "sum › multiplies", "sum › divides › by zero"),
    ),
    "jest-red-colour.txt": (
        1,
        3,
        1,
        "jest",
        ("./broken.test.js", "sum › multiplies", "sum › divides › by zero"),
    ),
    "jest-none.txt": (0, 0, 0, "jest", ()),
    "jest-none-allowed.txt": (0, 0, 0, "jest", ()),
    "vitest-green.txt": (2, 0, 2, "vitest", ()),
    "vitest-red.txt": (
        1,
        3,
        1,
        "vitest",
        ("broken.test.js", "sum.test.js > sum > multiplies", "sum.test.js > sum > divides"),
    ),
    "vitest-red-colour.txt": (
        1,
        3,
        1,
        "vitest",
        ("broken.test.js", "sum.test.js > sum > multiplies", "sum.test.js > sum > divides"),
    ),
    "vitest-none.txt": (0, 0, 0, "vitest", ()),
    "vitest-none-allowed.txt": (0, 0, 0, "vitest", ()),
    "vitest-skips.txt": (0, 0, 1, "vitest", ()),
    "mocha-green.txt": (2, 0, 2, "mocha", ()),
    "mocha-red.txt": (
        1,
        3,
        1,
        "mocha",
        ("divides", "sum > multiplies", 'database > "before all" hook for "reads"'),
    ),
    "mocha-red-dot.txt": (
        1,
        3,
        1,
        "mocha",
        ("divides", "sum > multiplies", 'database > "before all" hook for "reads"'),
    ),
    "mocha-none.txt": (0, 0, 0, "mocha", ()),
    "node-green-spec.txt": (2, 0, 2, "node:test", ()),
    "node-green-tap.txt": (2, 0, 2, "node:test", ()),
    "node-red-spec.txt": (1, 4, 2, "node:test", ("multiplies", "divides", "child")),
    "node-red-spec-colour.txt": (1, 4, 2, "node:test", ("multiplies", "divides", "child")),
    "node-red-tap.txt": (1, 4, 2, "node:test", ("multiplies", "divides", "child")),
    "node-none-spec.txt": (0, 0, 0, "node:test", ()),
    "node-none-tap.txt": (0, 0, 0, "node:test", ()),
    "node-skips-spec.txt": (0, 0, 1, "node:test", ()),
    "node-skips-tap.txt": (0, 0, 1, "node:test", ()),
    "tap-mocha-red.txt": (
        1,
        3,
        1,
        "TAP",
        ("divides", "sum multiplies", 'database "before all" hook for "reads"'),
    ),
    "tap-vitest-red.txt": (1, 3, 1, "TAP", ("broken.test.js", "multiplies", "divides")),
    "tap-vitest-red-flat.txt": (
        1,
        3,
        1,
        "TAP",
        ("broken.test.js", "sum.test.js > sum > multiplies", "sum.test.js > sum > divides"),
    ),
    "maven-green.txt": (2, 0, 1, "Maven", ()),
    "maven-reactor.txt": (2, 0, 1, "Maven", ()),
    "maven-red.txt": (2, 2, 1, "Maven", ("shop.SumTest.multiplies", "shop.SumTest.divides")),
    "maven-red-colour.txt": (
        2,
        2,
        1,
        "Maven",
        ("shop.SumTest.multiplies", "shop.SumTest.divides"),
    ),
    "maven-none.txt": (0, 0, 0, "Maven", ()),
    "maven-skips.txt": (0, 0, 1, "Maven", ()),
    "junit-jest-green.xml": (3, 0, 1, "JUnit XML", ()),
    "junit-jest-red.xml": (1, 2, 1, "JUnit XML", ("sum multiplies", "sum divides › by zero")),
    "junit-mocha-red.xml": (
        1,
        3,
        1,
        "JUnit XML",
        ("divides", "sum.multiplies", 'database."before all" hook for "reads"'),
    ),
    "junit-node-red.xml": (1, 3, 2, "JUnit XML", ("multiplies", "divides", "child")),
    "junit-pytest-green.xml": (2, 0, 1, "JUnit XML", ()),
    "junit-pytest-none.xml": (0, 0, 0, "JUnit XML", ()),
    "junit-pytest-skips.xml": (0, 0, 1, "JUnit XML", ()),
    "junit-surefire-green.xml": (1, 0, 1, "JUnit XML", ()),
    "junit-surefire-skips.xml": (0, 0, 1, "JUnit XML", ()),
    "junit-surefire-red.xml": (
        1,
        2,
        1,
        "JUnit XML",
        ("shop.SumTest.multiplies", "shop.SumTest.divides"),
    ),
    "junit-vitest-red.xml": (
        1,
        3,
        1,
        "JUnit XML",
        ("broken.test.js", "sum.test.js.sum > multiplies", "sum.test.js.sum > divides"),
    ),
    "junit-pytest-errors.xml": (
        3,
        3,
        1,
        "JUnit XML",
        ("test_sum.test_setup", "test_sum.test_param[2]", "test_sum.test_fixed_strict"),
    ),
    "junit-pytest-red.xml": (
        1,
        3,
        2,
        "JUnit XML",
        (
            "test_sum.SumTest.test_divides",
            "test_sum.SumTest.test_fixed",
            "test_sum.SumTest.test_multiplies",
        ),
    ),
}
_UNITTEST_RED = (
    "test_sum.SumTest.test_divides",
    "test_sum.SumTest.test_multiplies",
    "test_sum.SumTest.test_fixed",
)
_PYTEST_RED = (
    "test_sum.py::SumTest::test_divides",
    "test_sum.py::SumTest::test_fixed",
    "test_sum.py::SumTest::test_multiplies",
)
_PYTEST_ERRORS = (
    "test_sum.py::test_param[2]",
    "test_sum.py::test_fixed_strict",
    "test_sum.py::test_setup",
)
EXPECTED["pytest-errors-colour.txt"] = (3, 3, 1, "pytest", _PYTEST_ERRORS)
EXPECTED["pytest-nested.txt"] = (1, 0, 0, "pytest", ())
for _end in (".txt", "-quiet.txt"):
    EXPECTED[f"pytest-green{_end}"] = (2, 0, 1, "pytest", ())
    EXPECTED[f"pytest-red{_end}"] = (1, 3, 2, "pytest", _PYTEST_RED)
    EXPECTED[f"pytest-errors{_end}"] = (3, 3, 1, "pytest", _PYTEST_ERRORS)
    EXPECTED[f"pytest-collect{_end}"] = (0, 1, 0, "pytest", ("test_x.py",))
    EXPECTED[f"pytest-none{_end}"] = (0, 0, 0, "pytest", ())
    EXPECTED[f"pytest-skips{_end}"] = (0, 0, 1, "pytest", ())
for _end in (".txt", "-verbose.txt"):
    EXPECTED[f"unittest-green{_end}"] = (2, 0, 1, "unittest", ())
    EXPECTED[f"unittest-red{_end}"] = (1, 3, 2, "unittest", _UNITTEST_RED)
    EXPECTED[f"unittest-none{_end}"] = (0, 0, 0, "unittest", ())
    EXPECTED[f"unittest-skips{_end}"] = (0, 0, 1, "unittest", ())

PLAIN_GO = {"go-green.txt", "go-green-cached.txt", "go-red.txt", "go-red-plain.txt", "go-build.txt"}
UNKNOWN = {
    "cargo-build.txt": "it did not compile, no test binary ran",
    "go-skips.txt": "a package of skipped tests looks like any other without -v",
    "maven-green-quiet.txt": "-q prints nothing when all is well",
    "node-red-dot.txt": "the reporter dot has no summary",
}


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_output_of_a_real_run_is_counted(name: str) -> None:
    summary = summary_of(name)
    assert summary is not None
    passed, failed, skipped, runner, failures = EXPECTED[name]
    assert (summary.passed, summary.failed, summary.skipped) == (passed, failed, skipped)
    assert (summary.runner, summary.failures) == (runner, failures)


def test_no_recorded_output_is_left_without_an_expectation() -> None:
    names = {path.name for path in OUTPUTS.iterdir()}
    assert names == EXPECTED.keys() | UNKNOWN.keys()


@pytest.mark.parametrize("name", sorted(UNKNOWN.keys() - {"go-skips.txt"}))
def test_an_output_without_a_summary_is_not_guessed_at(name: str) -> None:
    assert summary_of(name) is None


def test_plain_go_says_that_it_counts_packages() -> None:
    assert all(
        summary is not None and summary.unit == "package" for summary in map(summary_of, PLAIN_GO)
    )
    verbose = summary_of("go-green-v.txt")
    assert verbose is not None
    assert verbose.unit == "test"


@pytest.mark.parametrize(
    "names",
    [
        ("pytest-green.txt", "jest-red.txt"),
        ("mocha-green.txt", "mocha-red.txt"),
        ("unittest-red.txt", "unittest-green.txt"),
        ("pytest-red.txt", "pytest-green-quiet.txt"),
        ("node-green-spec.txt", "vitest-red.txt", "cargo-green.txt"),
        ("junit-pytest-green.xml", "junit-jest-red.xml"),
        ("tap-mocha-red.txt", "tap-vitest-red-flat.txt"),
    ],
)
def test_several_runs_in_one_output_are_added_up(names: tuple[str, ...]) -> None:
    text = "\n".join((OUTPUTS / name).read_text() for name in names)
    summary = readers.read(plain(text))
    assert summary is not None
    each = [EXPECTED[name] for name in names]
    assert summary.passed == sum(passed for passed, *_ in each)
    assert summary.failed == sum(failed for _, failed, *_ in each)
    assert summary.skipped == sum(skipped for _, _, skipped, *_ in each)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_windows_line_ends_change_nothing(name: str) -> None:
    text = (OUTPUTS / name).read_text().replace("\n", "\r\n")
    assert readers.read(plain(text)) == summary_of(name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "all 12 tests passed",
        "I saw: 5 passed in 0.1s, nice",
        "  log: Tests: 5 passed, 5 total",
        "print: ok 1 - fine\nok 2 - fine",
        "expected Ran 3 tests in 0.1s\n\nOK",
        "2 passing cars",
        "<p><testsuite></testsuite></p>",
        "# tests 3\n# pass 3\n# fail 0",
    ],
)
def test_words_that_look_like_a_summary_are_not_one(text: str) -> None:
    assert readers.read(text) is None


def test_a_number_too_long_to_be_one_is_not_read() -> None:
    assert readers.read(f"-----\nRan {'9' * 5000} tests in 0.1s\n\nOK\n") is None


def test_tap_with_fewer_points_than_planned_has_failed() -> None:
    summary = readers.read("TAP version 13\n1..3\nok 1 - a\nok 2 - b\n")
    assert summary is not None
    assert (summary.passed, summary.failed) == (2, 1)


def test_a_todo_that_fails_is_no_failure_in_tap() -> None:
    summary = readers.read("1..3\nok 1 a\nnot ok 2 b # TODO later\nok 3 c # SKIP no network\n")
    assert summary is not None
    assert (summary.passed, summary.failed, summary.skipped) == (1, 0, 2)


def test_a_tap_parent_that_fails_by_itself_counts() -> None:
    text = "1..1\n# Subtest: a\n    ok 1 - inner\n    1..1\nnot ok 1 - a\n"
    summary = readers.read(text)
    assert summary is not None
    assert (summary.passed, summary.failed, summary.failures) == (1, 1, ("a",))


def test_bailing_out_is_a_failure() -> None:
    summary = readers.read("1..1\nok 1 - a\nBail out! no database\n")
    assert summary is not None
    assert summary.failed == 1


@pytest.mark.parametrize(
    "document",
    [
        "",
        "<html/>",
        "<testsuite>",
        '<!DOCTYPE a [<!ENTITY b "c">]><testsuite name="&b;"/>',
        "not xml at all",
        b"\xff\xfe\x00",
    ],
)
def test_a_report_that_is_no_junit_xml_is_refused(document: str | bytes) -> None:
    with pytest.raises(junit.ReportError):
        junit.read_report(document)


def test_a_suite_that_failed_before_its_first_test_counts() -> None:
    report = '<testsuites><testsuite name="shop" tests="0" errors="1"/></testsuites>'
    assert junit.read_report(report).failures == ("shop",)


def test_at_most_twenty_failing_tests_are_named() -> None:
    lines = "".join(f"FAILED test_a.py::test_{number} - x\n" for number in range(50))
    text = f"==== short test summary info ====\n{lines}==== 50 failed in 1.00s ====\n"
    summary = readers.read(text)
    assert summary is not None
    assert (summary.failed, len(summary.failures)) == (50, 20)


@pytest.mark.parametrize(
    "line",
    ["\n", "ok 1 - a\n", "{\n", "--- \n", "Tests: \n", "<testsuite\n", "  ● \n", "# tests 1\n"],
)
def test_noise_is_read_to_its_end(line: str) -> None:
    assert readers.read(line * (50_000 // len(line))) is None


def test_a_go_test_with_endless_subtests_is_read_in_linear_space() -> None:
    name = "a/" * 100_000
    text = f'{{"Action":"pass","Package":"p","Test":"{name}"}}\n{{"Action":"pass","Package":"p"}}'
    summary = readers.read(text)
    assert summary is not None
    assert summary.passed == 1
