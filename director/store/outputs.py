"""What steps wrote: an index over blobs, in the order of the bytes."""

from typing import Any, Literal

from sqlalchemy import func
from sqlmodel import Session, col, select

from director.store import blobs
from director.store.tables import OutputRow

Stream = Literal["stdout", "stderr"]


def recorded(session: Session, run_id: str, step: int, attempt: int, stream: Stream) -> int:
    """How many bytes of a stream are recorded, that is, where the next piece begins."""
    end = select(func.max(OutputRow.offset + OutputRow.size)).where(
        *_of(run_id, step, attempt), OutputRow.stream == stream
    )
    return session.exec(end).one() or 0


def append(session: Session, row: OutputRow) -> None:
    """Add the next piece of a stream."""
    blobs.touch(session, [(row.hash, row.size)])
    session.add(row)
    session.flush()


def forget(session: Session, run_id: str, step: int, attempt: int | None = None) -> None:
    """Drop what an attempt recorded, or all attempts of a step: its command runs again."""
    attempts = [] if attempt is None else [OutputRow.attempt == attempt]
    of_step = (OutputRow.run_id == run_id, OutputRow.step == step, *attempts)
    for row in session.exec(select(OutputRow).where(*of_step)):
        session.delete(row)
    session.flush()


def pieces(
    session: Session,
    run_id: str,
    step: int,
    attempt: int,
    stream: Stream | None = None,
    after: int = 0,
    limit: int = 100,
) -> list[OutputRow]:
    """Pieces behind a piece's id, in the order in which they were recorded."""
    conditions = [*_of(run_id, step, attempt), col(OutputRow.id) > after]
    if stream is not None:
        conditions.append(OutputRow.stream == stream)
    statement = select(OutputRow).where(*conditions).order_by(col(OutputRow.id)).limit(limit)
    return list(session.exec(statement))


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


def _of(run_id: str, step: int, attempt: int) -> list[Any]:
    return [OutputRow.run_id == run_id, OutputRow.step == step, OutputRow.attempt == attempt]
