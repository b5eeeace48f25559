"""What steps, and commands in sandboxes, wrote: an index over the bytes, in their order. Small
pieces are in the index itself, so that one that comes alone costs one commit and no file."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, delete, select, update

from director.domain.ids import EXECUTION, is_id
from director.domain.lifetimes import ExecutionStatus
from director.domain.outputs import STREAMS, OutputCursor, Stream
from director.domain.runs import RunStatus
from director.store import blobs
from director.store.tables import ExecutionRow, OutputRow, RunRow, StepRow

INLINE = 4 * 1024
"""Bytes of a piece up to which it is kept in its row."""

_RUNS_AT_ONCE = 200


class Look(NamedTuple):
    """A step, or a command in a sandbox, and what is recorded behind a cursor, seen at one
    moment."""

    step: StepRow | ExecutionRow
    run_ended: bool
    pieces: list[OutputRow]


def recorded(session: Session, run_id: str, step: int, attempt: int, stream: Stream) -> int:
    """How many bytes of a stream are recorded, that is, where the next piece begins."""
    end = select(func.max(OutputRow.offset + OutputRow.size)).where(
        *_of(run_id, step, attempt), OutputRow.stream == stream
    )
    return session.exec(end).one() or 0


def append(session: Session, row: OutputRow) -> None:
    """Add the next piece of a stream."""
    if row.content is None:
        blobs.touch(session, [(row.hash, row.size)])
    session.add(row)
    session.flush()


def forget(session: Session, run_id: str, step: int, attempt: int | None = None) -> None:
    """Drop what an attempt recorded, or all attempts of a step: its command runs again. Whoever
    follows sees it by the raised `output_epoch`."""
    attempts = [] if attempt is None else [col(OutputRow.attempt) == attempt]
    of_step = (col(OutputRow.run_id) == run_id, col(OutputRow.step) == step, *attempts)
    if session.exec(delete(OutputRow).where(*of_step)).rowcount:
        row = session.get_one(StepRow, (run_id, step))
        row.output_epoch += 1
        session.add(row)
    session.flush()


def look(
    session: Session,
    run_id: str,
    step: int,
    cursor: OutputCursor,
    stream: Stream | None = None,
    limit: int = 32,
) -> Look:
    """The step as it stands, and the next pieces behind a cursor in the order in which they were
    recorded: the first may begin before the cursor. None where the cursor is of another epoch."""
    row, over = _writer(session, run_id, step)
    pieces: list[OutputRow] = []
    if row.output_epoch == cursor.epoch:
        for name in STREAMS if stream is None else (stream,):
            pieces += _behind(session, run_id, step, cursor, name, limit)
    pieces.sort(key=lambda piece: piece.id or 0)
    return Look(row, over, pieces[:limit])


def _writer(session: Session, id: str, step: int) -> tuple[StepRow | ExecutionRow, bool]:
    """Who writes, and whether nothing more can come of it."""
    if is_id(EXECUTION, id):
        execution = session.get_one(ExecutionRow, id)
        return execution, ExecutionStatus(execution.status).ended
    run = session.get_one(RunRow, id)
    return session.get_one(StepRow, (id, step)), RunStatus(run.status).ended


def _behind(
    session: Session, run_id: str, step: int, cursor: OutputCursor, stream: Stream, limit: int
) -> list[OutputRow]:
    """The next pieces of one stream, found by the index alone however much is recorded."""
    of_stream = [*_of(run_id, step, cursor.attempt), col(OutputRow.stream) == stream]
    at = cursor.at(stream)
    begun = select(func.max(OutputRow.offset)).where(*of_stream, col(OutputRow.offset) <= at)
    first = session.exec(begun).one() or 0
    inside = (col(OutputRow.offset) >= first, OutputRow.offset + OutputRow.size > at)
    statement = select(OutputRow).where(*of_stream, *inside)
    return list(session.exec(statement.order_by(col(OutputRow.offset)).limit(limit)))


def span(
    session: Session, run_id: str, step: int, attempt: int, stream: Stream, start: int, end: int
) -> list[OutputRow]:
    """The pieces that hold the bytes from `start` to `end` of a stream, in order."""
    inside = (
        OutputRow.stream == stream,
        OutputRow.offset < end,
        OutputRow.offset + OutputRow.size > start,
    )
    statement = select(OutputRow).where(*_of(run_id, step, attempt), *inside)
    return list(session.exec(statement.order_by(col(OutputRow.offset))))


def drop(session: Session, before: datetime, limit: int) -> int:
    """Drop at most so many pieces of runs, else of commands in sandboxes, that ended before a time,
    the earliest first, and note which have none left; gives how many of all that were. 0: nothing
    is due."""
    dropped = _drop_of(session, RunRow, RunRow.completed_at, before, limit)
    return dropped or _drop_of(session, ExecutionRow, ExecutionRow.ended_at, before, limit)


def _drop_of(
    session: Session,
    kind: type[RunRow] | type[ExecutionRow],
    end: Any,
    before: datetime,
    limit: int,
) -> int:
    ended = (col(kind.output_dropped).is_(False), col(end) < before)
    due = select(kind.id).where(*ended).order_by(col(end))
    run_ids = session.exec(due.limit(_RUNS_AT_ONCE)).all()
    # in the order of the index; so the bytes that go first are those at the begin of a stream
    order: list[Any] = [col(OutputRow.run_id), col(OutputRow.step), col(OutputRow.attempt)]
    order += [col(OutputRow.stream), col(OutputRow.offset)]
    of_runs = select(OutputRow.id).where(col(OutputRow.run_id).in_(run_ids))
    first = session.exec(of_runs.order_by(*order).limit(limit)).all()
    session.exec(delete(OutputRow).where(col(OutputRow.id).in_(first)))
    if len(first) == limit:
        return limit  # there may be more
    session.exec(update(kind).where(col(kind.id).in_(run_ids)).values(output_dropped=True))
    return len(first) + len(run_ids)


def _of(run_id: str, step: int, attempt: int) -> list[Any]:
    return [OutputRow.run_id == run_id, OutputRow.step == step, OutputRow.attempt == attempt]
