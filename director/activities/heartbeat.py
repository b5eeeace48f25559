"""Beating while a step works, and telling a cancel from a worker that goes away."""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import activity
from temporalio.exceptions import ApplicationError

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
        raise ApplicationError("the worker is going away; the next one goes on", type="Detached")
    if not activity.is_cancelled():
        return False
    details = activity.cancellation_details()
    if details is not None and details.cancel_requested:
        return True
    raise ApplicationError("Temporal gave this attempt up; the next one goes on", type="Detached")
