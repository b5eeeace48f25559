"""Phrases: criteria as people write them, `tests pass and file exists dist/app.js`."""

import json
import re
from collections.abc import Callable
from typing import NamedTuple, cast

from pydantic import JsonValue

from director.domain.base import Json

MAX_PHRASE = 10_000
"""Characters of a phrase."""

_SHOWN = 80

_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_BARE = r"""(?:(?!['"])\S(?:\S|\s(?!and(?:\s|$)))*)"""
_VALUE = re.compile(rf"{_QUOTED}(?=\s|$)|{_BARE}", re.IGNORECASE | re.DOTALL)
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)


class _Form(NamedTuple):
    example: str
    start: str
    rest: str
    data: Callable[[re.Match[str]], Json]


_FORMS = (
    _Form("tests pass", r"tests\s+pass", r"", lambda _: {"type": "tests"}),
    _Form(
        "exit code is 0",
        r"exit\s+code\s+is",
        r"\s+(\d{1,9})(?!\w)",
        lambda found: {"type": "exitCode", "equals": int(found[1])},
    ),
    _Form("no errors", r"no\s+errors", r"", lambda _: {"type": "noErrors"}),
    _Form("approved", r"approved", r"", lambda _: {"type": "approval"}),
    _Form(
        "output contains 'done'",
        r"output\s+contains",
        rf"\s*({_QUOTED})",
        lambda found: {"type": "output", "contains": unquote(found[1])},
    ),
    _Form(
        "output matches /[0-9]+ ok/",
        r"output\s+matches",
        r"\s*/((?:[^/\\]|\\.)+)/",
        lambda found: {"type": "regex", "pattern": found[1].replace(r"\/", "/")},
    ),
    _Form(
        "file exists dist/index.js",
        r"file\s+exists",
        rf"\s*({_QUOTED}|{_BARE})",
        lambda found: {"type": "file", "path": unquote(found[1])},
    ),
    _Form(
        "json report.json:summary.failed == 0",
        r"json",
        rf"""\s*({_QUOTED}|[^\s'"]\S*?)\s*==\s*(?=\S)""",
        lambda found: {"type": "json", **_place(unquote(found[1]))},
    ),
)
_FLAGS = re.IGNORECASE | re.DOTALL
_STARTS = [re.compile(rf"{form.start}(?!\w)", _FLAGS) for form in _FORMS]
_WHOLES = [re.compile(rf"{form.start}(?!\w){form.rest}", _FLAGS) for form in _FORMS]


def known_phrases() -> str:
    """Name the phrases with an example each, for error messages and documentation."""
    return ", ".join(f"`{form.example}`" for form in _FORMS) + "; several are joined with `and`"


def read_phrase(text: str) -> Json:
    """Read a phrase such as `tests pass and no errors` into the structured form, not yet checked.

    Raises ValueError that says what was not understood and lists what is known."""
    if len(text) > MAX_PHRASE:
        raise ValueError(f"criteria may have at most {MAX_PHRASE} characters")
    phrase, at = text.strip(), 0
    found: list[Json] = []
    while True:
        data, at = _clause(phrase, at)
        found.append(data)
        if at == len(phrase):
            return found[0] if len(found) == 1 else {"type": "all", "criteria": found}
        joint = _AND.match(phrase, at)
        if joint is None:
            raise ValueError(
                f"{_shown(phrase[at:])} follows {_shown(phrase[:at])}, where only `and` with "
                f"another phrase may follow; known phrases: {known_phrases()}"
            )
        at = joint.end()


def _clause(phrase: str, at: int) -> tuple[Json, int]:
    for form, start, whole in zip(_FORMS, _STARTS, _WHOLES, strict=True):
        found = whole.match(phrase, at)
        if found is not None:
            data, end = form.data(found), found.end()
            if data["type"] == "json":
                data["equals"], end = _value(phrase, end)
            return data, end
        if start.match(phrase, at):
            raise ValueError(f"{_shown(phrase[at:])} is not complete; write e.g. `{form.example}`")
    raise ValueError(f"{_shown(phrase[at:])} is unknown; known phrases: {known_phrases()}")


def _value(phrase: str, at: int) -> tuple[JsonValue, int]:
    """Read a JSON literal, a text in quotes, or a bare word, which is a text too."""
    try:
        value, end = _LITERALS.raw_decode(phrase, at)
    except (ValueError, RecursionError):
        end = -1
    if end == len(phrase) or (end > 0 and phrase[end].isspace()):
        return cast("JsonValue", value), end
    word = _VALUE.match(phrase, at)
    if word is None or (word[0][0] in "[{" and not word[0].startswith("{{")):
        raise ValueError(f"{_shown(phrase[at:])} is no JSON value and no word")
    return unquote(word[0]), word.end()


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_LITERALS = json.JSONDecoder(parse_constant=_no_constant)


def _place(path: str) -> Json:
    """Split `report.json:summary.failed` into file and pointer; without a file it is stdout."""
    file, colon, pointer = path.partition(":")
    if not colon or "[" in file:
        return {"pointer": path}
    return {"file": file, "pointer": pointer}


def unquote(text: str) -> str:
    """Take a text out of its quotes, where it has some; a backslash escapes quotes and itself."""
    text = text.strip()
    if text[0] not in "'\"":
        return text
    return re.sub(r"""\\(['"\\])""", r"\1", text[1:-1])


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
