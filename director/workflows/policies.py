"""All time-outs and retry policies, by name. Infrastructure is retried without end, within the
run's deadline; what a user sees as an attempt is counted in rows, not here."""

from datetime import timedelta

from temporalio.common import RetryPolicy

HEARTBEAT_TIMEOUT = timedelta(seconds=3)
"""After a worker's death its activities go to the next one this much later, at the latest."""

STEP_SLACK = timedelta(minutes=30)
"""Beyond a step's own time-out: pulling an image, filling the workspace, ending what it began."""

HOST_PATIENCE, MOST_HOST_PATIENCE = timedelta(seconds=10), timedelta(minutes=5)
"""How long a host may leave a step in its queue before it is asked whether the sandbox there is
lost; longer each time, since a full host and one that starts again look the same."""

LINE_PATIENCE, MOST_LINE_PATIENCE = timedelta(seconds=30), timedelta(minutes=5)
"""How long a run waits in a line for `granted` before it looks for itself; longer each time, since
reconcile sends again what was lost."""

AT_ONCE = timedelta(seconds=2)
"""For what is tried within a workflow task, which lasts a few seconds at most."""

SETTLE_TIMEOUT = timedelta(minutes=10)
RECORD_TIMEOUT = timedelta(seconds=30)
RECONCILE_TIMEOUT = timedelta(minutes=3)
RECONCILE_PERIOD = timedelta(seconds=5)

WITHOUT_END = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
)

FEW = RetryPolicy(
    initial_interval=timedelta(milliseconds=100),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=2),
    maximum_attempts=5,
)

ONCE = RetryPolicy(maximum_attempts=1)

FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Faults of workflow code that fail a run instead of hanging it. Not `Exception`: code that does
not fit a history must leave the run as it is, until code comes that fits."""

MAX_BACKOFF = timedelta(minutes=5)


def growing(first: timedelta, most: timedelta, before: int) -> timedelta:
    """A wait that is twice as long after each one before it, up to the longest."""
    return min(first * (1 << min(before, 20)), most)


def backoff(initial_ms: int, attempt: int) -> timedelta:
    """How long to wait after a failed attempt: twice as long after each, at most five minutes."""
    return growing(timedelta(milliseconds=initial_ms), MAX_BACKOFF, attempt - 1)
