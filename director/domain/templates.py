"""`{{context.…}}` in the fields of a step."""

import json
import re
from typing import Any

_TEMPLATE = re.compile(r"\{\{\s*(context(?:\.[A-Za-z0-9_-]+)*)\s*\}\}")
_SHELL_SAFE = re.compile(r"[A-Za-z0-9 _.,:/@%+=-]*")


class TemplateError(ValueError):
    """A template names no value, or one that must not go into a shell command."""


def fill(text: str, context: dict[str, Any], *, shell: bool = False) -> str:
    """Put the values of the context in the place of their templates.

    With `shell`, a value with other characters than `[A-Za-z0-9 _.,:/@%+=-]` is refused, since it
    could change what the command does. Raises TemplateError."""

    def value_of(match: re.Match[str]) -> str:
        value = _spelled(_lookup(match[1], context))
        if "\0" in value:
            raise TemplateError(f"{{{{{match[1]}}}}} holds a NUL, which no command can get")
        if shell and not _SHELL_SAFE.fullmatch(value):
            raise TemplateError(
                f"{{{{{match[1]}}}}} holds characters that a shell would interpret; use the"
                " variable $DIRECTOR_CONTEXT, or write the command as a list"
            )
        return value

    return _TEMPLATE.sub(value_of, text)


def _lookup(path: str, context: dict[str, Any]) -> Any:
    value: Any = context
    for key in path.split(".")[1:]:
        if not isinstance(value, dict) or key not in value:
            raise TemplateError(f"{{{{{path}}}}}: the run's context has no {key!r}")
        value = value[key]
    return value


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
