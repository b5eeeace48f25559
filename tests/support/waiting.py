"""Waiting for a condition: no test sleeps where it can look."""

import asyncio
import time
from collections.abc import Callable
from inspect import isawaitable
from typing import Any

PATIENCE = 60.0
"""Seconds. What is waited for comes within one or two on a quiet machine: only what never comes
takes so long, also beside other tests on a machine of two cores."""

_FIRST, _LAST, _GROWTH = 0.02, 0.05, 1.1
"""Seconds between two looks: a look is often a request, and takes from what is waited for."""


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """Look until the condition holds, and give what it gave; fail the test after `seconds`."""
    deadline, pause = time.monotonic() + seconds, _FIRST
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not so after {seconds} s: {what}"
        time.sleep(pause)
        pause = min(pause * _GROWTH, _LAST)
    return found


async def until_so(condition: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
    """As `until`, for tests that are coroutines; the condition may be one as well."""
    deadline, pause = time.monotonic() + seconds, _FIRST
    while True:
        found = condition()
        if isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"not so after {seconds} s: {what}"
        await asyncio.sleep(pause)
        pause = min(pause * _GROWTH, _LAST)
