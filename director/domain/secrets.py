"""What must not be shown: the values of variables whose names look secret."""

import re
from typing import Any

MASK = "***"
_SECRET_NAME = re.compile(r"pass|secret|token|key|credential|auth|private|_url$|dsn", re.I)


def masked(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition with secret-looking values of every `environment` hidden."""
    shown = {**definition, "environment": masked_variables(definition.get("environment", {}))}
    shown["steps"] = [
        {**step, "environment": masked_variables(step.get("environment", {}))}
        for step in definition.get("steps", [])
    ]
    return shown


def masked_variables(variables: dict[str, str]) -> dict[str, str]:
    """The variables with the values of secret-looking names hidden."""
    return {name: MASK if is_secret(name) else value for name, value in variables.items()}


def is_secret(name: str) -> bool:
    """Whether a variable's name looks as if its value were a secret."""
    return _SECRET_NAME.search(name) is not None
