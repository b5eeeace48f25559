"""What steps wrote is found by any cursor, and goes in batches when its time is over."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import func
from sqlmodel import Session, col, select

from director.domain.outputs import OutputCursor, Stream
from director.domain.runs import RunStatus
from director.domain.times import utc_now
from director.store import idempotency, outputs
from director.store.engine import Store
from director.store.tables import IdempotencyRow, OutputRow, RunRow, StepRow

OLD = timedelta(days=31)


def write(session: Session, run_id: str, stream: Stream, size: int = 3, attempt: int = 1) -> None:
    offset = outputs.recorded(session, run_id, 0, attempt, stream)
    of = {"run_id": run_id, "step": 0, "attempt": attempt, "stream": stream, "offset": offset}
    outputs.append(session, OutputRow(**of, size=size, content=b"x" * size))


def end(session: Session, run_id: str, age: timedelta = OLD) -> datetime:
    run = session.get_one(RunRow, run_id)
    run.status, run.completed_at = RunStatus.COMPLETED, utc_now() - age
    session.add(run)
    return run.completed_at


def pieces(session: Session) -> int:
    return session.exec(select(func.count()).select_from(OutputRow)).one()


def dropped(session: Session, run_id: str) -> bool:
    return session.get_one(RunRow, run_id).output_dropped


def test_two_streams_come_in_the_order_in_which_they_were_recorded_from_any_cursor(
    store: Store, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    order: list[Stream] = ["stdout", "stderr", "stderr", "stdout", "stdout", "stderr"]
    with store.write() as session:
        for stream in order:
            write(session, run_id, stream)

    for taken in range(len(order) + 1):
        cursor = OutputCursor(0, 1)
        for stream in order[:taken]:
            cursor = cursor.moved(stream, cursor.at(stream) + 3)
        with store.read() as session:
            found = outputs.look(session, run_id, 0, cursor, limit=2).pieces
        assert [piece.stream for piece in found] == order[taken : taken + 2]


def test_a_cursor_inside_of_a_piece_finds_that_piece(
    store: Store, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    with store.write() as session:
        for _ in range(3):
            write(session, run_id, "stdout")
    with store.read() as session:
        found = outputs.look(session, run_id, 0, OutputCursor(0, 1, stdout=4)).pieces
    assert [piece.offset for piece in found] == [3, 6]


def test_what_is_forgotten_raises_the_epoch_and_older_cursors_find_nothing(
    store: Store, new_run: Callable[[], str]
) -> None:
    run_id = new_run()
    with store.write() as session:
        outputs.forget(session, run_id, 0)
        assert session.get_one(StepRow, (run_id, 0)).output_epoch == 0, "there was nothing"
        write(session, run_id, "stdout")
        outputs.forget(session, run_id, 0)
        write(session, run_id, "stdout")
    with store.read() as session:
        assert outputs.look(session, run_id, 0, OutputCursor(0, 1)).pieces == []
        assert len(outputs.look(session, run_id, 0, OutputCursor(1, 1)).pieces) == 1


def test_outputs_go_in_batches_and_only_of_runs_that_ended_long_ago(
    store: Store, new_run: Callable[[], str]
) -> None:
    old, older, young, going = (new_run() for _ in range(4))
    with store.write() as session:
        for run_id in (old, older, young, going):
            for _ in range(25):
                write(session, run_id, "stdout")
        end(session, old)
        end(session, older, OLD * 2)
        end(session, young, timedelta(days=1))
    before = utc_now() - timedelta(days=30)

    counts, left = [], 100
    while True:
        with store.write() as session:
            count = outputs.drop(session, before, 10)
            assert left - pieces(session) <= 10
            left = pieces(session)
        if not count:
            break
        counts.append(count)
    with store.read() as session:
        marks = [dropped(session, run_id) for run_id in (old, older, young, going)]
    assert (left, marks) == (50, [True, True, False, False])
    assert counts == [10, 10, 10, 10, 10, 2]


def test_the_begin_of_a_stream_goes_before_its_end(
    store: Store, new_run: Callable[[], str]
) -> None:
    """So that whoever still reads it sees that it is no longer whole."""
    run_id = new_run()
    with store.write() as session:
        for _ in range(6):
            write(session, run_id, "stdout")
        end(session, run_id)
        outputs.drop(session, utc_now(), 2)
        found = outputs.look(session, run_id, 0, OutputCursor(0, 1)).pieces
    assert [piece.offset for piece in found] == [6, 9, 12, 15]


def test_runs_without_output_are_looked_at_once(store: Store, new_run: Callable[[], str]) -> None:
    first = new_run()
    with store.write() as session:
        model = session.get_one(RunRow, first).model_dump() | {"completed_at": utc_now() - OLD}
        for number in range(250):
            session.add(RunRow.model_validate(model | {"id": f"run_{number}"}))
    counts = []
    for _ in range(3):
        with store.write() as session:
            counts.append(outputs.drop(session, utc_now() - OLD / 2, 1000))
    assert counts == [200, 50, 0]


def test_expired_answers_go_in_batches_and_others_stay(store: Store) -> None:
    now = utc_now()
    with store.write() as session:
        for number in range(25):
            of = {"id": f"idm_{number}", "principal_id": "usr_1", "route": "r", "key": str(number)}
            ages = timedelta(hours=number - 20)
            session.add(IdempotencyRow(**of, fingerprint="f", expires_at=now + ages))
    counts = []
    for _ in range(4):
        with store.write() as session:
            counts.append(idempotency.purge(session, 9))
    assert counts == [9, 9, 3, 0]
    with store.read() as session:
        kept = session.exec(select(IdempotencyRow.id).order_by(col(IdempotencyRow.expires_at)))
        assert kept.all() == ["idm_21", "idm_22", "idm_23", "idm_24"]
