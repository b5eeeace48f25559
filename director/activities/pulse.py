"""Telling a run's workflow that a step lasts, by ever rarer signals."""

import time
from collections.abc import Callable

from director.activities.jobs import StepJob
from director.domain.runs import ProgressSignal
from director.domain.times import to_millis, utc_now

Tell = Callable[[str, ProgressSignal], None]
"""Sends a progress signal to the workflow of a run; it neither waits nor fails."""

RUN_SIGNALS = 200
"""Signals that the steps of one run send in all, each of their attempts the first at least: the
workflow's deadline begins with it. Signals are the larger part of a long run's history."""

_FIRST_SECONDS = 0.9
"""A step that takes less than a second tells nothing but its end."""


class Pulse:
    """Signals at the first seconds, then each time that a fifth more time has passed."""

    def __init__(self, job: StepJob, tell: Tell) -> None:
        self.output_bytes = 0
        self._job, self._tell = job, tell
        self._left = max(1, RUN_SIGNALS - job.run.progress_told)
        self._next = time.monotonic() + _FIRST_SECONDS

    def beat(self) -> None:
        """Send a signal if one is due."""
        if (now := time.monotonic()) < self._next or not self._left:
            return
        elapsed = to_millis(utc_now() - self._job.began)
        self._next, self._left = now + elapsed / 1000 / 5, self._left - 1
        signal = ProgressSignal(
            source="step",
            step=self._job.key.index,
            elapsed_ms=elapsed,
            output_bytes=self.output_bytes,
        )
        self._tell(self._job.run.id, signal)
