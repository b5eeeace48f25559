"""Beating while an activity works, and telling a cancel from a worker that goes away."""

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

log = structlog.get_logger()

_PERIOD = 0.5


class StepCancelledError(Exception):
    """The workflow wants the step to stop; what it began has been ended."""


class Beat:
    """What the heartbeat sees, for work in threads that know nothing of Temporal."""

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self.each: Callable[[], None] = lambda: None
        """Called at every beat."""
        self._wanted = wanted
        self._end: Exception | None = None

    def check(self) -> None:
        """Raise as soon as the activity must stop or let go; half a second late at most."""
        if self._end is not None:
            raise self._end

    def cancelled(self) -> bool:
        """Whether the work is to be stopped; raises as `cancel_requested` where to let go."""
        if isinstance(self._end, StepCancelledError):
            return True
        self.check()
        return cancel_requested()

    def look(self) -> None:
        """Beat, and see whether the activity is wanted any longer."""
        activity.heartbeat()
        try:
            if cancel_requested() or not self._wanted():
                self._end = StepCancelledError()
        except ApplicationError as error:
            self._end = error
        self.each()


@contextmanager
def heartbeating(wanted: Callable[[], bool] = lambda: True) -> Iterator[Beat]:
    """Beat from a thread of its own, also while the activity is in a long call.

    `wanted` tells whether the work still is: an intent to cancel is seen in the store before
    Temporal brings it, and also while Temporal is away."""
    done, beat = threading.Event(), Beat(wanted)
    if activity.info().is_local:  # a workflow task has none
        yield beat
        return

    def go_on() -> None:
        while not done.wait(_PERIOD):
            try:
                beat.look()
            except Exception as error:
                # a loop that is stuck takes no heartbeat; the next one may be taken
                log.warning("a heartbeat failed", why=str(error) or type(error).__name__)

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(go_on,), name="heartbeat", daemon=True)
    thread.start()  # what is over before the first beat costs Temporal none: each is a commit there
    try:
        yield beat
    finally:
        done.set()
        thread.join()


def cancel_requested() -> bool:
    """Whether the workflow wants this activity to stop what it does.

    Raises a retryable error where the activity must let go without stopping anything: its worker
    shuts down, or Temporal gave the attempt up. The next attempt finds the command running."""
    if activity.is_worker_shutdown():
        raise detached("the worker is going away; the next one goes on")
    if not activity.is_cancelled():
        return False
    details = activity.cancellation_details()
    if details is not None and details.cancel_requested:
        return True
    raise detached("Temporal gave this attempt up; the next one goes on")


def detached(why: str) -> ApplicationError:
    """The error of an activity that lets go of what it does, for another attempt to go on."""
    # Benign: nothing is wrong, so that no trace of it belongs into the log.
    return ApplicationError(why, type="Detached", category=ApplicationErrorCategory.BENIGN)
