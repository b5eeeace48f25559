"""Criteria: what a verify step demands, and the verdict on it."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from director.domain.base import Body, Flag, Int, Json, Shape
from director.domain.phrases import read_phrase, unquote

MAX_DEPTH = 8
"""How deep `all`, `any` and `not` may be nested."""

MAX_CRITERIA = 100
"""How many criteria one verify step may hold, nested ones and their `all`, `any`, `not` counted."""

Stream = Literal["stdout", "stderr", "both"]


def _inside_workspace(path: str) -> str:
    if path.startswith("/") and path != "/workspace" and not path.startswith("/workspace/"):
        raise ValueError("must lie in the workspace: give a path relative to /workspace")
    if ".." in path.split("/"):
        raise ValueError("must not contain '..'")
    return path


def _plain_json(value: JsonValue) -> JsonValue:
    try:
        text = json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise ValueError("must be JSON without NaN, Infinity or very deep nesting") from error
    if len(text) > 64 * 1024:
        raise ValueError("must be at most 64 KiB of JSON")
    return value


_STEP = re.compile(r"""\.?([^.\[\]]+)|\[(\d{1,9})\]|\[("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\]""")


def parse_pointer(pointer: str) -> tuple[str | int, ...]:
    """Read `summary.failed`, `$.items[0].id` or `["a.b"]` as keys and indexes; `$` is the whole.

    Raises ValueError where it is not such a path."""
    text = pointer.strip()
    text = text[1:] if text == "$" or text.startswith(("$.", "$[")) else text
    keys: list[str | int] = []
    at = 0
    while at < len(text):
        step = _STEP.match(text, at)
        if step is None or (at == 0 and text[0] == "." and pointer.strip()[0] != "$"):
            raise ValueError(f"{pointer[:80]!r} is no path in JSON; write e.g. items[0].name")
        keys.append(int(step[2]) if step[2] else step[1] or unquote(step[3]))
        at = step.end()
    return tuple(keys)


def _is_pointer(pointer: str) -> str:
    parse_pointer(pointer)
    return pointer


_NO_NUL = r"^[^\x00]*$"
Wanted = Annotated[str, Field(min_length=1, max_length=10_000, pattern=_NO_NUL)]
WorkspacePath = Annotated[
    str, Field(min_length=1, max_length=1000, pattern=_NO_NUL), AfterValidator(_inside_workspace)
]
Pointer = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_is_pointer)]
Argument = Annotated[str, Field(max_length=10_000, pattern=_NO_NUL)]


class ExitCodeCriterion(Body):
    """The last execute step ended with this code."""

    type: Literal["exitCode"] = "exitCode"
    equals: Annotated[Int, Field(ge=0, le=255)] = 0


class OutputCriterion(Body):
    """The last execute step's output contains this text; colour codes do not count."""

    type: Literal["output"] = "output"
    contains: Wanted
    stream: Stream = "both"
    ignore_case: Flag = False


class RegexCriterion(Body):
    """The output matches this RE2 pattern somewhere; `^` and `$` stand for a line's ends."""

    type: Literal["regex"] = "regex"
    pattern: Annotated[str, Field(min_length=1, max_length=1000)]
    stream: Stream = "both"


class FileCriterion(Body):
    """A file or folder lies in the workspace (or does not), and a file has this text in it."""

    type: Literal["file"] = "file"
    path: WorkspacePath
    exists: Flag = True
    contains: Wanted | None = None

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if not self.exists and self.contains is not None:
            raise ValueError("a file that must not exist cannot contain something")
        return self


class JsonCriterion(Body):
    """A value in a JSON file, or in the last execute step's stdout when no file is named."""

    type: Literal["json"] = "json"
    file: WorkspacePath | None = None
    pointer: Pointer
    equals: Annotated[JsonValue, AfterValidator(_plain_json)]


class CommandCriterion(Body):
    """A command, run in the sandbox when the step is judged, ends with this code.

    A string runs as `/bin/sh -c`, a list as it is. `timeout` is in milliseconds."""

    type: Literal["command"] = "command"
    command: Wanted | Annotated[tuple[Argument, ...], Field(min_length=1, max_length=1000)]
    exit_code: Annotated[Int, Field(ge=0, le=255)] = 0
    timeout: Annotated[Int, Field(ge=1, le=3_600_000)] = 60_000


class PassingTestsCriterion(Body):
    """The last execute step ended with 0 and, where results are found, tests ran, none failed.

    Results come from the output, or from the JUnit XML files that the glob `report` names."""

    type: Literal["tests"] = "tests"
    report: WorkspacePath | None = None


class NoErrorsCriterion(Body):
    """The last execute step ended with 0 and no line of its output is an error message."""

    type: Literal["noErrors"] = "noErrors"


class ApprovalCriterion(Body):
    """Somebody approves; until then, or until the step's time-out, the run is `waiting`."""

    type: Literal["approval"] = "approval"


class _Bounded(Body):
    @model_validator(mode="after")
    def _bounds(self) -> Self:
        whole = cast("Criterion", self)
        if _depth(whole) > MAX_DEPTH:
            raise ValueError(f"all, any and not may be nested {MAX_DEPTH} deep")
        if sum(1 for _ in walk(whole)) > MAX_CRITERIA:
            raise ValueError(f"at most {MAX_CRITERIA} criteria")
        return self


class AllCriterion(_Bounded):
    """Every one of these holds."""

    type: Literal["all"] = "all"
    criteria: Annotated[tuple["Criterion", ...], Field(min_length=1, max_length=MAX_CRITERIA)]


class AnyCriterion(_Bounded):
    """At least one of these holds."""

    type: Literal["any"] = "any"
    criteria: Annotated[tuple["Criterion", ...], Field(min_length=1, max_length=MAX_CRITERIA)]


class NotCriterion(_Bounded):
    """This does not hold."""

    type: Literal["not"] = "not"
    criterion: "Criterion"


Criterion = Annotated[
    ExitCodeCriterion
    | OutputCriterion
    | RegexCriterion
    | FileCriterion
    | JsonCriterion
    | CommandCriterion
    | PassingTestsCriterion
    | NoErrorsCriterion
    | ApprovalCriterion
    | AllCriterion
    | AnyCriterion
    | NotCriterion,
    Field(discriminator="type"),
]

for _composite in (AllCriterion, AnyCriterion, NotCriterion):
    _composite.model_rebuild()

_CRITERION: TypeAdapter[Criterion] = TypeAdapter(Criterion)


class Counts(Shape):
    """Tests by outcome. `skipped` holds also those still to do or expected to fail."""

    total: int
    passed: int
    failed: int
    skipped: int


class Verdict(Shape):
    """The outcome of one criterion, told to people, with what it was judged by."""

    passed: bool
    message: str
    judged: bool = True
    """False when evidence was missing: then neither the criterion nor its opposite holds."""
    evidence: Json = Field(default_factory=dict)
    counts: Counts | None = None
    children: tuple["Verdict", ...] = ()


def parts(criterion: Criterion) -> tuple[Criterion, ...]:
    """Give what an `all`, `any` or `not` is made of; nothing for the others."""
    if isinstance(criterion, NotCriterion):
        return (criterion.criterion,)
    return criterion.criteria if isinstance(criterion, AllCriterion | AnyCriterion) else ()


def walk(criterion: Criterion) -> Iterator[Criterion]:
    """Yield a criterion and everything in it."""
    yield criterion
    for part in parts(criterion):
        yield from walk(part)


def _depth(criterion: Criterion) -> int:
    inner = parts(criterion)
    return 1 + max(map(_depth, inner)) if inner else 0


def patterns(criterion: Criterion) -> Iterator[str]:
    """Yield every regular expression, so that a bad one can be refused before a run."""
    return (each.pattern for each in walk(criterion) if isinstance(each, RegexCriterion))


def change_texts(criterion: Criterion, change: Callable[[str], str]) -> Criterion:
    """Replace every text by `change(text)`, e.g. to fill in templates.

    What a text becomes cannot turn into another criterion, as it could in a phrase that is parsed
    after filling in. Raises ValueError where a changed text is not allowed."""

    def changed(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: changed(inner, name) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return [changed(inner) for inner in value]
        if not isinstance(value, str) or key in ("type", "stream"):
            return value
        return _value(value, change(value)) if key == "equals" else change(value)

    return _checked(changed(criterion.model_dump()))


def _value(template: str, text: str) -> JsonValue:
    """Read what stands for nothing but a template as JSON, so that `{{context.max}}` can be 3."""
    if not (template.startswith("{{") and template.endswith("}}")):
        return text
    try:
        return cast("JsonValue", json.loads(text))
    except (ValueError, RecursionError):
        return text


def _checked(data: Json) -> Criterion:
    try:
        return _CRITERION.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{data['type']}: {first['loc'][-1]}: {message}") from error


def parse_phrase(text: str) -> Criterion:
    """Read a phrase such as `tests pass and file exists dist/app.js`.

    Raises ValueError that says what was not understood and lists what is known."""
    return _checked(read_phrase(text))


def needs_execution(criterion: Criterion) -> bool:
    """Tell whether any of it is judged by an execute step that ran before."""
    return any(_reads_execution(each) for each in walk(criterion))


def _reads_execution(criterion: Criterion) -> bool:
    if isinstance(criterion, JsonCriterion):
        return criterion.file is None
    return isinstance(
        criterion,
        ExitCodeCriterion
        | OutputCriterion
        | RegexCriterion
        | PassingTestsCriterion
        | NoErrorsCriterion,
    )
