"""Criteria: the phrases, the structured form, and their bounds."""

import random
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from director.domain import criteria
from director.domain.criteria import (
    MAX_DEPTH,
    Criterion,
    change_texts,
    needs_execution,
    parse_phrase,
    parse_pointer,
)

CRITERION: TypeAdapter[Criterion] = TypeAdapter(Criterion)
KNOWN = (
    "tests pass",
    "exit code is 0",
    "no errors",
    "output contains 'done'",
    "output matches /",
    "file exists dist/index.js",
    "json report.json:summary.failed == 0",
)


def short(text: str) -> dict[str, Any]:
    return parse_phrase(text).model_dump(by_alias=True, exclude_defaults=True) | {
        "type": parse_phrase(text).type
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tests pass", {"type": "tests"}),
        ("  Tests   PASS ", {"type": "tests"}),
        ("exit code is 137", {"type": "exitCode", "equals": 137}),
        ("no\terrors", {"type": "noErrors"}),
        ("output contains 'a'", {"type": "output", "contains": "a"}),
        ('output contains "it\'s"', {"type": "output", "contains": "it's"}),
        (r"output contains 'it\'s'", {"type": "output", "contains": "it's"}),
        (r"output contains 'C:\temp\\x'", {"type": "output", "contains": r"C:\temp\x"}),
        (r"output matches /a\/b \d+/", {"type": "regex", "pattern": r"a/b \d+"}),
        ("file exists src/my file.js", {"type": "file", "path": "src/my file.js"}),
        ("file exists 'a and b'", {"type": "file", "path": "a and b"}),
        ("file exists src/and/or", {"type": "file", "path": "src/and/or"}),
        ("json a.b == 1", {"type": "json", "pointer": "a.b", "equals": 1}),
        ("json a.b==-1.5e3", {"type": "json", "pointer": "a.b", "equals": -1500.0}),
        ("json a == ok", {"type": "json", "pointer": "a", "equals": "ok"}),
        ("json a == 1.2.3", {"type": "json", "pointer": "a", "equals": "1.2.3"}),
        ("json a == 'x y'", {"type": "json", "pointer": "a", "equals": "x y"}),
        (
            "json r.json:a[0] == null",
            {"type": "json", "file": "r.json", "pointer": "a[0]", "equals": None},
        ),
        (
            "json 'my r.json:a' == true",
            {"type": "json", "file": "my r.json", "pointer": "a", "equals": True},
        ),
        (
            'json a == {"b": "c and d"}',
            {"type": "json", "pointer": "a", "equals": {"b": "c and d"}},
        ),
        ("json a == NaN", {"type": "json", "pointer": "a", "equals": "NaN"}),
        ("output contains '{{context.name}}'", {"type": "output", "contains": "{{context.name}}"}),
        ("file exists {{ context.path }}", {"type": "file", "path": "{{ context.path }}"}),
        (
            "json a == {{context.max}}",
            {"type": "json", "pointer": "a", "equals": "{{context.max}}"},
        ),
    ],
)
def test_a_phrase_is_read(text: str, expected: dict[str, Any]) -> None:
    assert short(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "applause",
        "approval",
        "looks good",
        "",
        "   ",
        "tests",
        "tests passing",
        "test pass",
        "jsonx == 1",
        "file existsfoo",
    ],
)
def test_an_unknown_phrase_is_refused_with_all_known_ones(text: str) -> None:
    with pytest.raises(ValueError, match="is unknown") as caught:
        parse_phrase(text)
    assert all(known in str(caught.value) for known in KNOWN)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("output contains done", "write e.g. `output contains 'done'`"),
        ("output contains 'done", "is not complete"),
        ("output matches /a", "is not complete"),
        ("output matches //", "is not complete"),
        ("exit code is {{context.code}}", "write e.g. `exit code is 0`"),
        ("exit code is 0x1", "is not complete"),
        ("exit code is 256", "less than or equal to 255"),
        ("file exists", "is not complete"),
        ("file exists 'a", "is not complete"),
        ("file exists ../secret", "must not contain '..'"),
        ("file exists /etc/passwd", "must lie in the workspace"),
        ("json a", "is not complete"),
        ("json a ==", "is not complete"),
        ("json a..b == 1", "is no path in JSON"),
        ("json a == [1,", "is no JSON value"),
        ("tests pass and", "where only `and`"),
        ("tests pass or no errors", "where only `and`"),
        ("tests pass and applause", "'applause' is unknown"),
        ("output contains ''", "at least 1 character"),
        ("tests pass" + " and tests pass" * 100, "100"),
        ("x" * 10_001, "at most 10000 characters"),
    ],
)
def test_a_wrong_phrase_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_phrase(text)
    assert said in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_phrases_are_joined_outside_of_quotes_and_patterns_only() -> None:
    text = "output contains 'a and b' AND output matches /c and d/ and file exists e and tests pass"
    whole = parse_phrase(text)
    assert isinstance(whole, criteria.AllCriterion)
    kinds = [part.type for part in whole.criteria]
    assert kinds == ["output", "regex", "file", "tests"]


def test_any_text_survives_quoting() -> None:
    rng = random.Random(7)
    for _ in range(500):
        raw = "".join(rng.choice("ab'\"\\/ {}.and\n=") for _ in range(rng.randint(1, 30)))
        mark = rng.choice("'\"")
        quoted = mark + raw.replace("\\", "\\\\").replace(mark, f"\\{mark}") + mark
        parsed = parse_phrase(f"output contains {quoted} and json a == {quoted} and no errors")
        assert isinstance(parsed, criteria.AllCriterion)
        first, second, third = parsed.criteria
        assert isinstance(first, criteria.OutputCriterion)
        assert isinstance(second, criteria.JsonCriterion)
        assert first.contains == raw
        assert third.type == "noErrors"


def test_no_text_makes_the_parser_fail_otherwise_than_with_a_value_error() -> None:
    rng = random.Random(11)
    words = [
        "tests pass",
        "and",
        "json",
        "==",
        "output contains",
        "'",
        '"',
        "/",
        "\\",
        "[",
        "{",
        "a.b",
    ]
    for _ in range(2000):
        text = rng.choice(["", " "]).join(rng.choice(words) for _ in range(rng.randint(1, 12)))
        try:
            parsed = parse_phrase(text)
        except ValueError:
            continue
        assert CRITERION.validate_json(parsed.model_dump_json(by_alias=True)) == parsed


@pytest.mark.parametrize(
    "data",
    [
        {"type": "exitCode", "equals": 1},
        {"type": "output", "contains": "x", "stream": "stderr", "ignoreCase": True},
        {"type": "regex", "pattern": "a+", "stream": "stdout"},
        {"type": "file", "path": "/workspace/a", "exists": False},
        {"type": "json", "file": "a.json", "pointer": "$", "equals": [1, {"a": None}]},
        {"type": "command", "command": ["ls", "-l"], "exitCode": 2, "timeout": 5},
        {"type": "tests", "report": "**/target/surefire-reports/*.xml"},
        {"type": "noErrors"},
        {"type": "not", "criterion": {"type": "any", "criteria": [{"type": "tests"}]}},
    ],
)
def test_the_structured_form_comes_back_as_it_went_in(data: dict[str, Any]) -> None:
    parsed = CRITERION.validate_python(data)
    again = CRITERION.validate_json(parsed.model_dump_json(by_alias=True))
    assert again == parsed
    assert (
        data.items() <= parsed.model_dump(by_alias=True, mode="json").items() or "criterion" in data
    )


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "applause"},
        {"type": "exitCode", "equals": True},
        {"type": "exitCode", "equals": "0"},
        {"type": "exitCode", "equals": -1},
        {"type": "exitCode", "equal": 0},
        {"type": "output"},
        {"type": "output", "contains": ""},
        {"type": "regex", "pattern": ""},
        {"type": "output", "contains": "a", "stream": "stdin"},
        {"type": "regex", "pattern": "a" * 1001},
        {"type": "file", "path": "a/../../b"},
        {"type": "file", "path": ""},
        {"type": "file", "path": "a", "exists": False, "contains": "x"},
        {"type": "json", "pointer": "a"},
        {"type": "json", "pointer": "", "equals": 1},
        {"type": "json", "pointer": "a", "equals": float("nan")},
        {"type": "json", "pointer": "a", "equals": "x" * 70_000},
        {"type": "command", "command": []},
        {"type": "command", "command": ""},
        {"type": "command", "command": "a\x00"},
        {"type": "command", "command": "a", "timeout": 0},
        {"type": "all", "criteria": []},
        {"type": "not"},
        {"type": "all", "criteria": ["tests pass"]},
    ],
)
def test_a_wrong_structured_form_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CRITERION.validate_python(data)


def nested(depth: int) -> dict[str, Any]:
    data: dict[str, Any] = {"type": "tests"}
    for _ in range(depth):
        data = {"type": "not", "criterion": data}
    return data


def test_nesting_is_bounded() -> None:
    assert CRITERION.validate_python(nested(MAX_DEPTH)).type == "not"
    for depth in (MAX_DEPTH + 1, 200, 5000):
        with pytest.raises(ValidationError):
            CRITERION.validate_python(nested(depth))


def test_the_number_of_criteria_is_bounded() -> None:
    rows = {"type": "all", "criteria": [{"type": "tests"}] * 10}
    with pytest.raises(ValidationError, match="at most 100 criteria"):
        CRITERION.validate_python({"type": "all", "criteria": [rows] * 10})


@pytest.mark.parametrize(
    ("pointer", "keys"),
    [
        ("$", ()),
        ("a", ("a",)),
        ("$.a.b", ("a", "b")),
        ("a[0][12].b", ("a", 0, 12, "b")),
        ("$['x.y'].z", ("x.y", "z")),
        ('a["it\'s"]', ("a", "it's")),
        ("a b.c-d", ("a b", "c-d")),
        ("$price", ("$price",)),
    ],
)
def test_pointers_are_keys_and_indexes(pointer: str, keys: tuple[str | int, ...]) -> None:
    assert parse_pointer(pointer) == keys


@pytest.mark.parametrize(
    "pointer", [".a", "a.", "a..b", "a[", "a[]", "a[-1]", "a]", "[x]", "a['b]"]
)
def test_what_is_no_pointer_is_refused(pointer: str) -> None:
    with pytest.raises(ValueError, match="is no path in JSON"):
        parse_pointer(pointer)


def test_patterns_are_found_at_any_depth() -> None:
    text = "output matches /a+/ and file exists b"
    whole = CRITERION.validate_python(
        {
            "type": "not",
            "criterion": {
                "type": "any",
                "criteria": [parse_phrase(text), {"type": "tests", "report": "f"}],
            },
        }
    )
    assert list(criteria.patterns(whole)) == ["a+"]


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("tests pass", True),
        ("exit code is 0", True),
        ("json a == 1", True),
        ("json a.json:a == 1", False),
        ("file exists a", False),
        ("file exists a and no errors", True),
    ],
)
def test_what_judges_an_execute_step_says_so(text: str, needs: bool) -> None:
    assert needs_execution(parse_phrase(text)) is needs


def test_filled_in_texts_cannot_become_other_criteria() -> None:
    raw = parse_phrase("output contains '{{context.x}}' and json n == {{context.n}} and no errors")
    values = {"{{context.x}}": "' and file exists /etc", "{{context.n}}": "3"}
    filled = change_texts(raw, lambda text: values.get(text, text))
    assert isinstance(filled, criteria.AllCriterion)
    first, second, third = filled.criteria
    assert isinstance(first, criteria.OutputCriterion)
    assert isinstance(second, criteria.JsonCriterion)
    assert first.contains == "' and file exists /etc"
    assert second.equals == 3
    assert third.type == "noErrors"


def test_a_filled_in_text_is_checked_again() -> None:
    raw = parse_phrase("file exists {{context.path}}")
    with pytest.raises(ValueError, match="must not contain"):
        change_texts(raw, lambda _: "../secret")
