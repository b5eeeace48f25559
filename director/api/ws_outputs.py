"""Outputs that are followed through a WebSocket, beside the events of its connection."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Literal

import structlog
from pydantic import Field
from sqlmodel import Session

from director.api.listeners import SlowError
from director.api.output_messages import Kind, messages
from director.api.outputs import (
    Asked,
    OutputReader,
    Parts,
    begin,
    check_kept,
    step_of,
)
from director.domain.base import Body, Int, Json, Shape
from director.domain.errors import (
    BrokenOffError,
    ConflictError,
    DirectorError,
    NotFoundError,
    refused,
)
from director.domain.outputs import Stream
from director.domain.runs import StepStatus
from director.domain.users import Principal
from director.store import runs
from director.store.tables import RunRow, StepRow

log = structlog.get_logger()

MOST = 16
"""Outputs that one connection follows at once."""

_Id = Annotated[str, Field(max_length=64)]
_Key = tuple[str, int]


class SubscribeOutputFrame(Body):
    """Follows what a step writes: of a run, or of the latest run of a workflow. A later one for the
    same step takes its place."""

    type: Literal["subscribe_output"]
    run_id: _Id | None = None
    workflow_id: _Id | None = None
    step: Annotated[str, Field(max_length=200)] | Int = Field(
        description="The step's id, or its number from 1."
    )
    attempt: Annotated[Int, Field(ge=1)] | None = Field(
        default=None, description="Only this one; absent: the present one and those after it."
    )
    stream: Stream | None = Field(default=None, description="Only this one; absent: both.")
    cursor: Annotated[str, Field(max_length=100)] | None = Field(
        default=None, description="The `cursor` of the last frame; absent: from the beginning."
    )


class UnsubscribeOutputFrame(Body):
    """Follows a step no longer; without a step, none of the run, and without a run, none at all."""

    type: Literal["unsubscribe_output"]
    run_id: _Id | None = None
    step: Annotated[str, Field(max_length=200)] | Int | None = None


OutputFrame = SubscribeOutputFrame | UnsubscribeOutputFrame


class OutputOf(Shape):
    """Whose output it is, and where to go on behind the frame."""

    workflow_id: str
    run_id: str
    step: int = Field(description="Its number from 1.")
    step_id: str
    attempt: int
    cursor: str


class OutputData(OutputOf):
    """Bytes of a stream: either `text`, or `data` in base64."""

    stream: Stream
    offset: int = Field(description="Bytes of the stream before these.")
    text: str | None = None
    data: str | None = None
    encoding: Literal["base64"] | None = None


class Written(Shape):
    """Bytes that the command wrote to each stream; null where that is not known."""

    stdout: int | None
    stderr: int | None


class OutputEnd(OutputOf):
    """How the attempt ended; null where that is not known."""

    status: StepStatus | None
    exit_code: int | None
    truncated: bool | None
    bytes: Written


class StepOutputFrame(Shape):
    """A piece of output."""

    type: Literal["step_output"]
    data: OutputData


class StepOutputRestartFrame(Shape):
    """The output that was sent of the step counts no more: its command runs again."""

    type: Literal["step_output_restart"]
    data: OutputOf


class StepOutputAttemptFrame(Shape):
    """The attempt failed; what follows is of the next one."""

    type: Literal["step_output_attempt"]
    data: OutputOf


class StepOutputEndFrame(Shape):
    """Nothing follows; the subscription is over."""

    type: Literal["step_output_end"]
    data: OutputEnd


OUTPUT_FRAMES: list[type[Shape]] = [
    SubscribeOutputFrame,
    UnsubscribeOutputFrame,
    StepOutputFrame,
    StepOutputRestartFrame,
    StepOutputAttemptFrame,
    StepOutputEndFrame,
]

_TYPES: dict[Kind, str] = {
    "output": "step_output",
    "restart": "step_output_restart",
    "attempt": "step_output_attempt",
    "end": "step_output_end",
}


class OutputSubscriptions:
    """The outputs that one connection follows. Each is read as fast as the client takes it, one
    frame of all of them at a time, so that events have their turn."""

    def __init__(
        self,
        parts: Parts,
        kept: timedelta | None,
        send: Callable[[str, Json], Awaitable[None]],
        send_seconds: float,
        fail: Callable[[Exception], None],
    ) -> None:
        self._parts, self._kept = parts, kept
        self._send, self._send_seconds, self._fail = send, send_seconds, fail
        self._followed: dict[_Key, asyncio.Task[None]] = {}
        self._names: dict[_Key, str] = {}
        self._turn = asyncio.Lock()

    async def take(self, frame: OutputFrame, principal: Principal) -> None:
        """Begin or end to follow an output; what was wrong with the wish is told."""
        if isinstance(frame, UnsubscribeOutputFrame):
            await self._end(frame)
            return
        try:
            await self._begin(frame, principal)
        except DirectorError as error:
            await self._send("error", {"message": error.message, "details": error.details})

    async def close(self) -> None:
        """Follow nothing any more."""
        await self._cancel(list(self._followed))

    async def _begin(self, frame: SubscribeOutputFrame, principal: Principal) -> None:
        run, row = await self._parts.store.fetch(lambda s: self._found(s, frame, principal))
        key = (run.id, row.index)
        cursor = begin(row, frame.attempt, frame.cursor)
        if key not in self._followed and len(self._followed) >= MOST:
            message = f"a connection follows {MOST} outputs at most: end one with"
            raise ConflictError(f"{message} unsubscribe_output, or open another", most=MOST)
        await self._cancel([key])
        asked = Asked(run.id, row.index, frame.stream, onward=frame.attempt is None)
        reader = OutputReader(self._parts, asked, cursor)
        beside = {
            "workflowId": run.workflow_id,
            "runId": run.id,
            "step": row.index + 1,
            "stepId": row.id,
        }
        self._names[key] = row.id
        self._followed[key] = asyncio.create_task(self._follow(key, reader, beside))

    def _found(
        self, session: Session, frame: SubscribeOutputFrame, principal: Principal
    ) -> tuple[RunRow, StepRow]:
        run = _run(session, frame, principal)
        row = step_of(session, run, str(frame.step))
        check_kept(run, self._kept)
        return run, row

    async def _follow(self, key: _Key, reader: OutputReader, beside: Json) -> None:
        try:
            async for message in messages(reader):
                if message is not None:
                    data = {**beside, **message.data, "cursor": str(message.cursor)}
                    await self._told(_TYPES[message.kind], data)
        except BrokenOffError as error:
            await self._told("error", {"message": f"output: {error}", "details": beside})
        except TimeoutError:
            self._fail(SlowError())
        except Exception as error:
            self._fail(error)
        finally:
            if self._followed.get(key) is asyncio.current_task():
                self._forget(key)

    async def _told(self, kind: str, data: Json) -> None:
        async with self._turn, asyncio.timeout(self._send_seconds):
            await self._send(kind, data)

    async def _end(self, frame: UnsubscribeOutputFrame) -> None:
        named = None if frame.step is None else str(frame.step)
        await self._cancel(
            [
                (run_id, index)
                for run_id, index in self._followed
                if frame.run_id in (None, run_id)
                and named in (None, str(index + 1), self._names[run_id, index])
            ]
        )

    async def _cancel(self, keys: list[_Key]) -> None:
        tasks = [self._forget(key) for key in keys if key in self._followed]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, key: _Key) -> asyncio.Task[None]:
        del self._names[key]
        return self._followed.pop(key)


def _run(session: Session, frame: SubscribeOutputFrame, principal: Principal) -> RunRow:
    """The run that is meant, where the principal may see it."""
    if frame.run_id is None:
        if frame.workflow_id is None:
            raise refused("runId", "is required, or workflowId for the workflow's latest run")
        return runs.latest(session, principal, frame.workflow_id)
    found = session.get(RunRow, frame.run_id)
    workflow_id = frame.workflow_id or (found.workflow_id if found else "")
    try:
        return runs.get(session, principal, workflow_id, frame.run_id)
    except NotFoundError:
        raise NotFoundError("run", frame.run_id) from None
