"""Readers of test runners' output: each gives a summary, or None for what it does not know."""

from director.verify.readers import (
    cargo,
    go,
    jest,
    junit,
    maven,
    mocha,
    node,
    pytest,
    tap,
    unittest,
    vitest,
)
from director.verify.readers.summary import Summary, added

_RUNNERS = (pytest, unittest, jest, vitest, mocha, node, go, cargo, maven)
_FORMATS = (tap, junit)
"""Formats that a runner of the list above may print as well, so that they are read last."""


def read(text: str) -> Summary | None:
    """Add up what all test runners say in an output; None when none is recognised."""
    found = added(summary for runner in _RUNNERS if (summary := runner.read(text)))
    return found or added(summary for form in _FORMATS if (summary := form.read(text)))
