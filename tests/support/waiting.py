"""Waiting for a condition: no test sleeps where it can look."""

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

PATIENCE = 60.0
"""Seconds. What is waited for comes within one or two on a quiet machine: only what never comes
takes so long, also beside other tests on a machine of two cores."""

_PERIOD = 0.02


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Look until the condition holds, and give what it gave; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not so after {seconds} s: {what}"
        time.sleep(_PERIOD)
    return found


async def until_so(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """As `until`, for tests that are coroutines; the condition may be one as well."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not so after {seconds} s: {what}"
        await asyncio.sleep(_PERIOD)
