"""Beating while a step works, and telling a cancel from a worker that goes away."""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

_PERIOD = 1.0


@contextmanager
def heartbeating() -> Iterator[None]:
    """Beat every second from a thread of its own, also while the activity is in a long call."""
    done = threading.Event()

    def beat() -> None:
        while not done.wait(_PERIOD):
            activity.heartbeat()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(beat,), name="heartbeat", daemon=True)
    activity.heartbeat()
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def cancel_requested() -> bool:
    """Whether the workflow wants this activity to stop what it does.

    Raises a retryable error where the activity must let go without stopping anything: its worker
    shuts down, or Temporal gave the attempt up. The next attempt finds the command running."""
    if activity.is_worker_shutdown():
        raise _detached("the worker is going away; the next one goes on")
    if not activity.is_cancelled():
        return False
    details = activity.cancellation_details()
    if details is not None and details.cancel_requested:
        return True
    raise _detached("Temporal gave this attempt up; the next one goes on")


def _detached(why: str) -> ApplicationError:
    # Benign: nothing is wrong, so that no trace of it belongs into the log.
    return ApplicationError(why, type="Detached", category=ApplicationErrorCategory.BENIGN)
