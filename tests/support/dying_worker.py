"""Workers that end themselves, as kill -9 would, at boundaries for which a file lies in `death` of
their home.

One of them dies there, once: it moves the file to `died` first. A new worker is there at once,
forked from what is loaded already. Boundaries lie before and after each activity of a run, and
before and after each commit in one; the file `trace` tells which were reached."""

import asyncio
import ctypes
import os
import signal
import sys
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.orm import Session
from temporalio import activity
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from director.domain import names
from director.logs import set_up_logs
from director.settings import read_settings
from director.worker import serve

WALKED = (names.RUN_STEP, names.SETTLE, names.PLACE)
"""The others (notes on progress and status, reconcile) come whenever they come."""

_PR_SET_PDEATHSIG = 1


@dataclass
class Walked:
    """An activity that is under way, and how often it has committed."""

    name: str
    commits: int = 0


_walked: ContextVar[Walked] = ContextVar("walked")


class Death:
    """Where this worker dies."""

    def __init__(self, home: Path) -> None:
        self._planned, self._died, self._trace = home / "death", home / "died", home / "trace"

    def reached(self, boundary: str) -> None:
        """Write that a boundary was reached, and die if a death is planned there."""
        with self._trace.open("a") as trace:
            trace.write(f"{boundary}\n")
        with suppress(FileNotFoundError):
            (self._planned / boundary).rename(self._died / boundary)
            os.kill(os.getpid(), signal.SIGKILL)

    def await_commits(self) -> None:
        """See every commit that is made in an activity."""

        @event.listens_for(Engine, "commit")
        def before(connection: object) -> None:
            if (walked := _walked.get(None)) is not None:
                walked.commits += 1
                self.reached(f"before commit {walked.commits} of {walked.name}")

        @event.listens_for(Session, "after_commit")
        def after(session: object) -> None:
            if (walked := _walked.get(None)) is not None:
                self.reached(f"after commit {walked.commits} of {walked.name}")


class Boundaries(Interceptor):
    """Sees the begin and the end of each activity."""

    def __init__(self, death: Death) -> None:
        self.death = death

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Wrap an activity."""
        return _Boundary(next, self.death)


class _Boundary(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, death: Death) -> None:
        super().__init__(next)
        self.death = death

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        kind = activity.info().activity_type
        if kind not in WALKED:
            return await super().execute_activity(input)
        index = getattr(input.args[0], "index", None)
        walked = Walked(kind if index is None else f"{kind} {index}")
        _walked.set(walked)
        self.death.reached(f"before {walked.name}")
        result = await super().execute_activity(input)
        self.death.reached(f"after {walked.name}")
        return result


def work() -> None:
    """Serve as the worker does, until the boundary."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    settings = read_settings()
    set_up_logs(settings.log_format)
    death = Death(settings.home)
    death.await_commits()
    asyncio.run(serve(settings, [Boundaries(death)]))
    sys.stdout.flush()
    os._exit(0)


def main(count: int) -> int:
    """Keep so many workers alive until SIGTERM."""
    term = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, term)
    children = {_forked(term) for _ in range(count)}

    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            os.kill(child, number)

    signal.signal(signal.SIGTERM, pass_on)
    codes = []
    while children:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, term)
        child, status = os.wait()
        signal.pthread_sigmask(signal.SIG_BLOCK, term)
        children.remove(child)
        if os.WIFSIGNALED(status):
            children.add(_forked(term))
        else:
            codes.append(os.waitstatus_to_exitcode(status))
    return max(codes)


def _forked(blocked: set[signal.Signals]) -> int:
    if (child := os.fork()) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, blocked)
        work()
    return child


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
