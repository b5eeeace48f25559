"""What two do at once comes out as if one had come after the other, on both databases.

The second begins when the first has done its work and has not committed yet."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, TypeVar

import pytest
from sqlalchemy.exc import InternalError
from sqlmodel import Session, col, select

from director.domain.departments import DepartmentCreate, DepartmentUpdate, TicketState
from director.domain.errors import ConflictError, NotFoundError
from director.domain.hosts import Capacity
from director.domain.runs import Approval, RunStatus, SettleInput, StepStatus
from director.domain.sessions import SessionCreate, SessionStatus, SessionUpdate
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate, WorkflowUpdate
from director.store import (
    approvals,
    blobs,
    departments,
    hosts,
    idempotency,
    locks,
    placement,
    runs,
    sessions,
    settling,
    steps,
    tickets,
    users,
    workflows,
)
from director.store.engine import Store
from director.store.idempotency import Use
from director.store.placement import Decision
from director.store.steps import StaleAttemptError, StepKey
from director.store.tables import DefinitionRow, RunRow, SessionRow, StepRow
from director.store.users import Refusal, Rotated

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")
HOST, NOW = "here", datetime(2030, 1, 1, tzinfo=UTC)
LET = 0.15
"""Seconds that the second has for getting ahead of the first, which it must not."""

T = TypeVar("T")
Write = Callable[[Session], Any]


class Office:
    """A session with a workflow of one step, and two processes that write."""

    def __init__(self, one: Store, other: Store) -> None:
        self.one, self.other = one, other
        with one.write() as session:
            hosts.register(session, HOST, Capacity())
            body = SessionCreate(type="a", name="s")
            self.session_id = sessions.create(session, ADA, body).id
        self.workflow_id = self.workflow()

    def workflow(self, **step: Any) -> str:
        command = {"type": "execute", "command": "x", **step}
        body = {"sessionId": self.session_id, "name": "w", "steps": [command]}
        with self.one.write() as session:
            return workflows.create(session, ADA, WorkflowCreate.model_validate(body)).id

    def department(self, limit: int) -> str:
        body = {"sessionId": self.session_id, "name": "d", "domain": "code"}
        body["config"] = {"maxConcurrentTasks": limit}
        with self.one.write() as session:
            return departments.create(session, ADA, DepartmentCreate.model_validate(body)).id

    def run(self, **step: Any) -> str:
        workflow_id = self.workflow(**step)
        with self.one.write() as session:
            return runs.create(session, ADA, workflow_id, StartWorkflow()).id

    def do(self, work: Callable[[Session], T]) -> T:
        with self.one.write() as session:
            return work(session)

    def after(self, first: Write, second: Write) -> tuple[Any, Any]:
        """What both gave; an exception of the second is given as well."""

        def tried() -> Any:
            try:
                with self.other.write() as session:
                    return second(session)
            except Exception as error:
                return error

        with ThreadPoolExecutor(1) as pool:
            with self.one.write() as session:
                one = first(session)
                session.flush()
                later = pool.submit(tried)
                wait([later], LET)
            return one, later.result(30)


@pytest.fixture
def office(store: Store, url: str) -> Iterator[Office]:
    other = Store(url)
    yield Office(store, other)
    other.close()


def start(workflow_id: str) -> Write:
    return lambda session: runs.create(session, ADA, workflow_id, StartWorkflow())


def key(run_id: str, activity_attempt: int = 1, temporal: str = "t1") -> StepKey:
    return StepKey(run_id, 0, 1, temporal, activity_attempt)


def opens(run_id: str, activity_attempt: int = 1) -> Write:
    return lambda session: steps.open_step(session, key(run_id, activity_attempt), HOST)


def run_of(session: Session, run_id: str) -> RunRow:
    return locks.get_one(session, RunRow, run_id)


def cancels(run_id: str) -> Write:
    return lambda session: runs.want_cancel(session, run_of(session, run_id))


def test_a_workflow_that_is_started_twice_has_one_run(office: Office) -> None:
    run, refused = office.after(start(office.workflow_id), start(office.workflow_id))

    assert isinstance(refused, ConflictError)
    assert refused.details["runId"] == run.id


@pytest.mark.parametrize("force", [False, True])
def test_a_session_that_is_deleted_takes_no_run_that_comes_after(
    office: Office, force: bool
) -> None:
    def delete(session: Session) -> list[str]:
        return sessions.delete(session, ADA, office.session_id, None, force=force)

    running, refused = office.after(delete, start(office.workflow_id))

    assert running == []
    assert isinstance(refused, NotFoundError)


def test_a_session_is_not_deleted_under_a_run_that_came_before(office: Office) -> None:
    run, refused = office.after(
        start(office.workflow_id),
        lambda session: sessions.delete(session, ADA, office.session_id, None, force=False),
    )
    assert isinstance(refused, ConflictError)
    assert refused.details["runIds"] == [run.id]


def test_a_workflow_is_not_deleted_under_a_run_that_came_before(office: Office) -> None:
    run, refused = office.after(
        start(office.workflow_id),
        lambda session: workflows.delete(session, ADA, office.workflow_id, None),
    )
    assert isinstance(refused, ConflictError)
    assert refused.details["runId"] == run.id


def test_two_changes_of_a_session_are_both_kept(office: Office) -> None:
    def change(**config: int) -> Write:
        body = SessionUpdate.model_validate({"config": config})
        return lambda session: sessions.update(session, ADA, office.session_id, body, None)

    office.after(change(timeout=60_000), change(maxDepartments=3))

    config = office.do(lambda session: session.get_one(SessionRow, office.session_id).config)
    assert (config["timeout"], config["maxDepartments"]) == (60_000, 3)


def test_two_changes_of_a_department_are_both_kept(office: Office) -> None:
    id = office.department(limit=1)

    def change(**config: Any) -> Write:
        body = DepartmentUpdate.model_validate({"config": config})
        return lambda session: departments.update(session, ADA, id, body, None)

    _, row = office.after(
        change(maxConcurrentTasks=7), change(resourceLimits={"memory": 64, "cpu": 1})
    )
    assert row.config["maxConcurrentTasks"] == 7
    assert row.config["resourceLimits"] == {"memory": 64, "cpu": 1}


def test_two_changes_of_a_workflow_are_two_versions(office: Office) -> None:
    def change(command: str) -> Write:
        body = WorkflowUpdate.model_validate({"steps": [{"type": "execute", "command": command}]})
        return lambda session: workflows.update(session, ADA, office.workflow_id, body, None)

    office.after(change("one"), change("two"))

    versions = select(DefinitionRow.version).where(DefinitionRow.workflow_id == office.workflow_id)
    assert sorted(office.do(lambda session: session.exec(versions).all())) == [1, 2, 3]
    kept = office.do(lambda session: workflows.definition(session, office.workflow_id, 3))
    assert kept.model_dump()["steps"][0]["command"] == "two"


def test_a_session_has_no_more_departments_than_it_allows(office: Office) -> None:
    body = SessionUpdate.model_validate({"config": {"maxDepartments": 1}})
    office.do(lambda session: sessions.update(session, ADA, office.session_id, body, None))
    new = {"sessionId": office.session_id, "name": "d", "domain": "code"}
    create = partial(departments.create, principal=ADA, body=DepartmentCreate.model_validate(new))

    _, refused = office.after(create, create)

    assert isinstance(refused, ConflictError)
    assert refused.details["limit"] == "maxDepartments"


def test_a_session_that_is_used_again_meanwhile_does_not_expire(office: Office) -> None:
    def over(session: Session) -> None:
        row = session.get_one(SessionRow, office.session_id)
        row.config, row.expires_at = {"timeout": 1000}, NOW - timedelta(days=3650)

    run_id = office.run()
    office.do(over)
    office.do(lambda session: settling.settle(session, SettleInput(run_id=run_id, status="failed")))
    office.do(over)

    def use(session: Session) -> None:
        sessions.get(session, ADA, office.session_id)
        body = SessionUpdate(status="active")
        sessions.update(session, ADA, office.session_id, body, None)

    office.after(use, sessions.expire)

    row = office.do(lambda session: session.get_one(SessionRow, office.session_id))
    assert row.status == SessionStatus.ACTIVE


def test_one_admin_is_left_where_two_disable_each_other(office: Office) -> None:
    ids = [
        office.do(lambda s, name=name: users.create_user(s, name, "h", Role.ADMIN)).id
        for name in ("one", "two")
    ]

    def disable(id: str) -> Write:
        return lambda session: users.update_user(session, id, disabled=True)

    row, refused = office.after(disable(ids[1]), disable(ids[0]))

    assert row.disabled
    assert isinstance(refused, ConflictError)


def logged_in(office: Office) -> None:
    def login(session: Session) -> None:
        user = users.create_user(session, "one", "hash", Role.OPERATOR)
        users.open_login(session, user.id, "hash", "first", NOW)

    office.do(login)


def test_a_refresh_token_that_two_tabs_send_has_one_successor(office: Office) -> None:
    logged_in(office)
    rotate = partial(users.rotate, token_hash="first", next_hash="second", now=NOW)

    assert [type(one) for one in office.after(rotate, rotate)] == [Rotated, Rotated]


def test_a_refresh_token_has_no_second_successor(office: Office) -> None:
    logged_in(office)
    one, other = (
        partial(users.rotate, token_hash="first", next_hash=following, now=NOW)
        for following in ("second", "another")
    )
    assert office.after(one, other)[1] is Refusal.REUSED


def test_a_password_that_is_changed_opens_no_login(office: Office) -> None:
    id = office.do(lambda session: users.create_user(session, "one", "old", Role.OPERATOR)).id

    _, login = office.after(
        lambda session: users.update_user(session, id, password_hash="new"),
        lambda session: users.open_login(session, id, "old", "token", NOW),
    )
    assert login is None


def test_a_key_is_claimed_once_and_found_by_the_other(office: Office) -> None:
    use = Use("usr_1", "sessions.create", "k")

    def claim(session: Session) -> Any:
        row = idempotency.find(session, use, lock=True)
        assert row is None
        claimed = idempotency.claim(session, use, "f")
        return claimed or idempotency.find(session, use, lock=True)

    first, second = office.after(claim, claim)

    if isinstance(second, AssertionError):  # SQLite lets it look only afterwards
        assert office.one.engine.dialect.name == "sqlite"
    else:
        assert second.id == first.id


def test_a_request_that_died_is_taken_up_by_one(office: Office) -> None:
    use = Use("usr_1", "sessions.create", "k")
    id = office.do(lambda session: idempotency.claim(session, use, "f")).id
    office.do(lambda session: idempotency.release(session, [id]))

    def take_up(session: Session) -> bool:
        row = idempotency.find(session, use, lock=True)
        if row.leased:
            return False
        idempotency.renew(session, row)
        return True

    assert office.after(take_up, take_up) == (True, False)


def test_two_workers_of_a_new_host_register_it_once(office: Office) -> None:
    register = partial(hosts.register, host_id="new", capacity=Capacity())

    one, other = office.after(register, register)

    assert (one.epoch, other.epoch) == (1, 1)


def lost_run(office: Office) -> str:
    """A run whose host has let its lease run out, beside one that lives."""
    office.do(lambda session: hosts.register(session, "gone", Capacity(), timedelta(seconds=-1)))
    run_id = office.run()

    def place(session: Session) -> None:
        row = run_of(session, run_id)
        row.host_id, row.memory_mib = "gone", 64
        hosts.register(session, "gone", Capacity(), timedelta(seconds=-1))

    office.do(place)
    return run_id


def test_a_host_that_returns_while_it_is_given_up_sees_that_it_was(office: Office) -> None:
    run_id = lost_run(office)

    def sweep(session: Session) -> bool:
        hosts.register(session, "gone", Capacity())
        return placement.is_displaced(session.get_one(RunRow, run_id), "gone", 0)

    decided, displaced = office.after(
        lambda session: placement.decide(session, run_of(session, run_id)), sweep
    )
    assert (decided, displaced) == (Decision.LOST, True)


def test_a_host_that_has_returned_keeps_its_runs(office: Office) -> None:
    run_id = lost_run(office)

    _, decided = office.after(
        partial(hosts.register, host_id="gone", capacity=Capacity()),
        lambda session: placement.decide(session, run_of(session, run_id)),
    )
    assert decided is Decision.WAIT


def test_one_place_is_given_to_one_run(office: Office) -> None:
    one, other = office.run(), office.run()

    def take(run_id: str) -> Write:
        return lambda session: tickets.take_place(session, run_of(session, run_id), 1).state

    assert office.after(take(one), take(other)) == (TicketState.HELD, TicketState.WAITING)


def test_one_slot_is_given_to_one_step(office: Office) -> None:
    department = office.department(limit=1)
    one, other = office.run(departmentId=department), office.run(departmentId=department)

    opened, waits = office.after(opens(one), opens(other))

    assert opened.state == "go"
    assert waits.outcome.status == StepStatus.QUEUED


def test_a_slot_that_is_given_back_goes_to_the_one_that_comes_meanwhile(office: Office) -> None:
    department = office.department(limit=1)
    one, other = office.run(departmentId=department), office.run(departmentId=department)
    office.do(opens(one))

    _, opened = office.after(
        lambda session: steps.close_step(session, key(one), StepStatus.COMPLETED, {}, None),
        opens(other),
    )
    assert opened.state == "go"


def test_a_department_of_which_the_limit_falls_gives_no_slot_by_the_old_one(
    office: Office,
) -> None:
    department = office.department(limit=2)
    one, other = office.run(departmentId=department), office.run(departmentId=department)
    office.do(opens(one))
    body = DepartmentUpdate.model_validate({"config": {"maxConcurrentTasks": 1}})

    def lower(session: Session) -> None:
        departments.update(session, ADA, department, body, None)
        tickets.grant(session, department)

    _, waits = office.after(lower, opens(other))
    assert waits.outcome.status == StepStatus.QUEUED


def test_a_department_with_a_step_at_work_is_not_deleted(office: Office) -> None:
    department = office.department(limit=1)
    run_id = office.run(departmentId=department)

    _, refused = office.after(
        opens(run_id), lambda session: departments.delete(session, ADA, department, None)
    )
    assert isinstance(refused, ConflictError)


def test_a_step_of_a_run_that_is_cancelled_does_not_begin(office: Office) -> None:
    run_id = office.run()

    _, opened = office.after(cancels(run_id), opens(run_id))

    assert opened.outcome.status == StepStatus.CANCELLED


def test_a_step_of_a_run_that_is_to_hold_does_not_begin(office: Office) -> None:
    run_id = office.run()

    _, opened = office.after(
        lambda session: runs.want_pause(session, run_of(session, run_id), True), opens(run_id)
    )
    assert opened.outcome.status == StepStatus.QUEUED


def test_an_attempt_that_is_superseded_while_it_ends_writes_nothing(office: Office) -> None:
    run_id = office.run()
    office.do(opens(run_id))

    def close(session: Session) -> Any:
        return steps.close_step(session, key(run_id), StepStatus.COMPLETED, {}, None)

    opened, stale = office.after(opens(run_id, 2), close)

    assert opened.state == "go"
    assert isinstance(stale, StaleAttemptError)
    row = office.do(lambda session: session.get_one(StepRow, (run_id, 0)))
    assert row.status == StepStatus.RUNNING


def test_a_cancel_that_comes_with_the_end_is_refused(office: Office) -> None:
    run_id = office.run()
    end = SettleInput(run_id=run_id, status=RunStatus.COMPLETED)

    _, refused = office.after(lambda session: settling.settle(session, end), cancels(run_id))

    assert isinstance(refused, ConflictError)
    assert office.do(lambda session: run_of(session, run_id).status) == RunStatus.COMPLETED


def test_a_run_is_settled_once(office: Office) -> None:
    run_id = office.run()
    ends = [
        lambda session, status=status: settling.settle(
            session, SettleInput(run_id=run_id, status=status)
        )
        for status in (RunStatus.FAILED, RunStatus.CANCELLED)
    ]
    office.after(*ends)

    assert office.do(lambda session: run_of(session, run_id).status) == RunStatus.FAILED


def test_signals_at_once_are_all_counted(office: Office) -> None:
    run_id = office.run()

    def signal(session: Session) -> None:
        runs.count_signal(session, run_of(session, run_id), "hello", {})

    office.after(signal, signal)

    assert office.do(lambda session: run_of(session, run_id).signal_count) == 2


def test_an_approval_is_decided_once(office: Office) -> None:
    run_id = office.run()
    office.do(opens(run_id))
    office.do(lambda session: steps.await_approval(session, key(run_id)))

    def decide(approved: bool) -> Write:
        approval = Approval(approved=approved, by="ada")
        return lambda session: approvals.decide(session, run_of(session, run_id), approval)

    _, refused = office.after(decide(True), decide(False))

    assert isinstance(refused, ConflictError)
    row = office.do(lambda session: session.get_one(StepRow, (run_id, 0)))
    assert row.approval["approved"] is True


def test_many_that_touch_the_same_blobs_do_not_block_each_other(office: Office) -> None:
    hashes = [(f"{number:064}", 1) for number in range(300)]

    def touch(number: int) -> None:
        ordered = hashes if number % 2 else hashes[::-1]
        with (office.one, office.other)[number % 2].write() as session:
            blobs.touch(session, ordered)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(touch, range(40)))


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_of_two_that_wait_for_each_other_one_is_repeated(office: Office) -> None:
    one, other = office.run(), office.run()
    both_have_one, tries = threading.Barrier(2), count(1)

    def signal(first: str, second: str) -> Write:
        met = False

        def work(session: Session) -> None:
            nonlocal met
            next(tries)
            runs.count_signal(session, run_of(session, first), "hello", {})
            session.flush()
            if not met:
                met = True
                both_have_one.wait(20)
            runs.count_signal(session, run_of(session, second), "hello", {})

        return work

    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(store.transact, signal(*ids))
            for store, ids in ((office.one, (one, other)), (office.other, (other, one)))
        ]
        for each in done:
            each.result(30)

    assert next(tries) == 4, "two began, and one of them again"
    counted = select(RunRow.signal_count).where(col(RunRow.id).in_([one, other]))
    assert office.do(lambda session: session.exec(counted).all()) == [2, 2]


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_who_only_reads_can_write_nothing(store: Store) -> None:
    body = SessionCreate(type="a", name="s")
    with store.read() as session, pytest.raises(InternalError, match="read-only transaction"):
        sessions.create(session, ADA, body)
