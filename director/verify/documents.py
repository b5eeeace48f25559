"""Values inside JSON documents."""

import json
from typing import Any

from director.domain.criteria import parse_pointer

_SHOWN = 200


class DocumentError(ValueError):
    """A text that is no JSON document, or a path that leads nowhere in it."""


def read_json(text: str) -> Any:
    """Parse a text, or its last line where other output comes before. Raises DocumentError."""
    lines = text.strip().rsplit("\n", 1)
    for candidate in dict.fromkeys((text, lines[-1])):
        try:
            return json.loads(candidate)
        except (ValueError, RecursionError):
            continue
    raise DocumentError("is no JSON" if text.strip() else "is empty")


def value_at(document: Any, pointer: str) -> Any:
    """Follow a path such as `summary.items[0]`. Raises DocumentError that says where it ends."""
    value, gone = document, "$"
    for key in parse_pointer(pointer):
        place = int(key) if isinstance(value, list) and str(key).isdecimal() else key
        known = (
            place in value
            if isinstance(value, dict)
            else isinstance(value, list) and isinstance(place, int) and place < len(value)
        )
        if not known:
            raise DocumentError(f"has nothing at {pointer}: {_what(value)} at {gone} has no {key}")
        value, gone = value[place], f"{gone}.{key}"
    return value


def _what(value: Any) -> str:
    if isinstance(value, dict):
        return "the object"
    return "the array" if isinstance(value, list) else "the value"


def same(one: Any, other: Any) -> bool:
    """Compare as JSON does: 1 is 1.0 and is not true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | float) and isinstance(other, int | float):
        return one == other
    return type(one) is type(other) and bool(one == other)


def shown(value: Any) -> str:
    """Write a value for a message, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
