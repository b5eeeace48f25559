"""Slots of departments: never over the limit, none lost, and in the order that is promised."""

import itertools
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlmodel import Session, select

from director.domain.departments import (
    DepartmentCreate,
    DepartmentStatus,
    DepartmentUpdate,
    TicketState,
)
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import RunStatus, StepStatus
from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate
from director.store import departments, runs, sessions, tickets, workflows
from director.store.engine import Store
from director.store.tables import RunRow, StepRow, TicketRow
from director.store.tickets import Taken

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")
HELD, WAITING = TicketState.HELD, TicketState.WAITING
_NUMBERS = itertools.count(1)


class Office:
    """A session with departments and runs of one step each, in one transaction after another."""

    def __init__(self, store: Store) -> None:
        self.store = store
        with store.write() as session:
            self.session_id = sessions.create(session, ADA, SessionCreate(type="a", name="s")).id
            self.workflow_id = self._workflow(session)

    def _workflow(self, session: Session) -> str:
        steps = [{"type": "execute", "command": "x"}]
        body = {"sessionId": self.session_id, "name": "w", "steps": steps}
        return workflows.create(session, ADA, WorkflowCreate.model_validate(body)).id

    def department(
        self, limit: int | None = None, domain: str = "code", can: tuple[str, ...] = ()
    ) -> str:
        body = {
            "sessionId": self.session_id,
            "name": "A department",
            "domain": domain,
            "config": {"maxConcurrentTasks": limit},
            "capabilities": list(can),
        }
        with self.store.write() as session:
            return departments.create(session, ADA, DepartmentCreate.model_validate(body)).id

    def change(self, id: str, **fields: Any) -> list[str]:
        body = DepartmentUpdate.model_validate(fields)
        with self.store.write() as session:
            departments.update(session, ADA, id, body, None)
            return tickets.grant(session, id)

    def limit(self, id: str, limit: int | None) -> list[str]:
        return self.change(id, config={"maxConcurrentTasks": limit})

    def run(
        self, department: str | None = None, *, owner: str = "ada", priority: int = 3, **wish: Any
    ) -> str:
        """A run that begins its step; ids go up, so that they sort as the runs were made."""
        id = f"run_{next(_NUMBERS):06}"
        with self.store.write() as session:
            session.add(
                RunRow(
                    id=id,
                    workflow_id=self.workflow_id,
                    version=1,
                    session_id=self.session_id,
                    owner_id=owner,
                    priority=priority,
                    total_steps=1,
                    status=RunStatus.RUNNING,
                )
            )
            session.flush()
            step = {"department_id": department, "status": StepStatus.QUEUED, **wish}
            session.add(StepRow(run_id=id, index=0, id="step-1", type="execute", **step))
        return id

    def runs(self, number: int, *args: Any, **fields: Any) -> list[str]:
        return [self.run(*args, **fields) for _ in range(number)]

    def set(self, run_id: str, **fields: Any) -> None:
        with self.store.write() as session:
            run = session.get_one(RunRow, run_id)
            for name, value in fields.items():
                setattr(run, name, value)
            session.add(run)

    def take(self, run_id: str) -> Taken:
        """Ask for a slot, and begin where there is one."""
        with self.store.write() as session:
            step = session.get_one(StepRow, (run_id, 0))
            taken = tickets.take(session, session.get_one(RunRow, run_id), step)
            if taken.state is HELD:
                step.status = StepStatus.RUNNING
            return taken

    def taken(self, *run_ids: str) -> list[TicketState]:
        return [self.take(run_id).state for run_id in run_ids]

    def release(self, run_id: str) -> list[str]:
        with self.store.write() as session:
            session.get_one(StepRow, (run_id, 0)).status = StepStatus.QUEUED
            return tickets.release(session, run_id, 0)

    def release_run(self, run_id: str, places: int) -> list[str]:
        with self.store.write() as session:
            return tickets.release_run(session, run_id, lambda _: places)

    def take_place(self, run_id: str, limit: int) -> TicketState:
        with self.store.write() as session:
            return tickets.take_place(session, session.get_one(RunRow, run_id), limit).state

    def all(self) -> dict[tuple[str, str], str]:
        """Every ticket: its state by pool and run."""
        with self.store.read() as session:
            return {(one.pool, one.run_id): one.state for one in session.exec(select(TicketRow))}

    def department_of(self, run_id: str) -> str | None:
        with self.store.read() as session:
            return session.get_one(StepRow, (run_id, 0)).department_id


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


def drained(office: Office, holder: str) -> list[str]:
    """Who gets the slot one after another, when each gives it back."""
    order = []
    while granted := office.release(holder):
        (holder,) = granted
        order.append(holder)
    return order


def test_runs_that_were_asked_for_first_are_served_first_also_where_they_come_late(
    office: Office,
) -> None:
    pool = office.department(1)
    first, second, third = office.runs(3, pool)
    assert office.taken(first, third, second) == [HELD, WAITING, WAITING]

    assert office.release(first) == [second]


def test_the_later_steps_of_a_run_stand_in_line_since_they_came(office: Office) -> None:
    pool = office.department(1)
    old, first, second = office.runs(3, pool)
    office.set(old, host_id="here")
    assert office.taken(first, second, old) == [HELD, WAITING, WAITING]

    assert office.release(first) == [second]


def test_a_step_without_a_department_needs_no_ticket(office: Office) -> None:
    assert office.take(office.run()) == Taken(HELD)
    assert office.all() == {}


def test_no_more_than_the_limit_hold_a_slot_and_a_release_grants_the_next(office: Office) -> None:
    code = office.department(limit=2)
    first, second, third, fourth = office.runs(4, code)

    assert office.taken(first, second, third, fourth) == [HELD, HELD, WAITING, WAITING]
    assert office.release(second) == [third]
    assert office.take(third) == Taken(HELD, code)
    assert office.release(fourth) == [], "leaving the line frees no slot"
    assert office.release(first) == []
    assert office.all() == {(code, third): HELD}


def test_a_ticket_is_found_again_and_never_taken_twice(office: Office) -> None:
    code = office.department(limit=1)
    first, second, third = office.runs(3, code)
    office.taken(first, second, third)

    assert office.taken(third, second, first, second) == [WAITING, WAITING, HELD, WAITING]
    assert drained(office, first) == [second, third], "asking again changes no place in the line"


def test_the_line_is_in_the_order_of_priority_then_of_time(office: Office) -> None:
    code = office.department(limit=1)
    holder = office.run(code)
    waiting = [office.run(code, priority=priority) for priority in (3, 5, 1, 3, 1)]
    office.taken(holder, *waiting)

    middle, least, urgent, middle_2, urgent_2 = waiting
    assert drained(office, holder) == [urgent, urgent_2, middle, middle_2, least]


def test_the_owner_with_the_fewest_slots_is_next(office: Office) -> None:
    code = office.department(limit=3)
    holders = [*office.runs(2, code, owner="ada"), office.run(code, owner="bob")]
    ada, bob, eve = (office.run(code, owner=owner) for owner in ("ada", "bob", "eve"))
    office.taken(*holders, ada, bob, eve)

    assert office.release(holders[0]) == [eve], "eve has none; ada and bob have one each"
    assert office.release(holders[1]) == [ada], "bob and eve have one each, ada has none"
    assert office.release(holders[2]) == [bob]


def test_priority_comes_before_fairness(office: Office) -> None:
    code = office.department(limit=2)
    first, second = office.runs(2, code, owner="ada")
    urgent = office.run(code, owner="ada", priority=2)
    other = office.run(code, owner="bob")
    office.taken(first, second, other, urgent)

    assert office.release(first) == [urgent]


def test_a_limit_that_is_set_later_counts_those_that_run(office: Office) -> None:
    code = office.department()
    running = office.runs(3, code)
    assert office.taken(*running) == [HELD] * 3

    office.limit(code, 2)
    late = office.run(code)
    assert office.taken(late) == [WAITING]
    assert [office.release(run) for run in running] == [[], [late], []]


def test_a_raised_limit_grants_at_once(office: Office) -> None:
    code = office.department(limit=1)
    first, second, third, fourth = office.runs(4, code)
    office.taken(first, second, third, fourth)

    assert office.limit(code, 3) == [second, third]
    assert office.limit(code, None) == [fourth]


def test_a_paused_department_grants_nothing_and_lets_what_runs_go_on(office: Office) -> None:
    code = office.department(limit=2)
    first, second, third = office.runs(3, code)
    office.taken(first)
    assert office.change(code, status="paused") == []

    assert office.taken(first, second, third) == [HELD, WAITING, WAITING]
    assert office.release(first) == []
    assert office.change(code, status="active") == [second, third]


def test_a_draining_department_goes_on_with_what_is_under_way(office: Office) -> None:
    code = office.department(limit=1)
    first, second, third = office.runs(3, code)
    office.taken(first, second)
    office.change(code, status="draining")

    assert office.taken(third) == [WAITING]
    assert drained(office, first) == [second, third]


@pytest.mark.parametrize(
    "held_back",
    [
        {"pause_wanted": True},
        {"cancel_wanted": True},
        {"status": RunStatus.CANCELLING},
        {"status": RunStatus.FAILED},
    ],
)
def test_a_run_that_does_not_go_on_is_passed_over_and_keeps_its_place(
    office: Office, held_back: dict[str, Any]
) -> None:
    code = office.department(limit=1)
    first, second, third, fourth = office.runs(4, code)
    office.taken(first, second, third, fourth)
    office.set(second, **held_back)

    assert office.release(first) == [third]
    assert office.all()[code, second] == WAITING
    office.set(second, pause_wanted=False, cancel_wanted=False, status=RunStatus.RUNNING)
    assert office.release(third) == [second]


def test_a_run_that_is_paused_begins_nothing_though_slots_are_free(office: Office) -> None:
    code = office.department(limit=2)
    paused, other = office.runs(2, code)
    office.set(paused, pause_wanted=True)

    assert office.taken(paused, other) == [WAITING, HELD]
    office.set(paused, pause_wanted=False)
    assert office.taken(paused) == [HELD]


def test_a_newcomer_does_not_overtake_those_who_wait(office: Office) -> None:
    code = office.department(limit=1)
    waiting, newcomer = office.run(code, priority=5), office.run(code, priority=1)
    office.set(waiting, pause_wanted=True)
    office.taken(waiting)
    office.set(waiting, pause_wanted=False)

    taken = office.take(newcomer)

    assert (taken.state, taken.granted) == (WAITING, [waiting])


def test_reconcile_grants_what_is_free_beside_a_run_that_goes_on_again(office: Office) -> None:
    code = office.department(limit=1)
    paused = office.run(code)
    office.set(paused, pause_wanted=True)
    office.taken(paused)
    office.set(paused, pause_wanted=False)

    with office.store.write() as session:
        assert tickets.grant_all(session) == [paused]
    with office.store.write() as session:
        assert tickets.grant_all(session) == []


def test_a_run_that_holds_gives_back_what_it_has_not_begun(office: Office) -> None:
    code = office.department(limit=2)
    begun, granted, behind = office.runs(3, code)
    office.taken(begun, granted, behind)
    for run_id in (begun, granted):
        office.set(run_id, pause_wanted=True)
    with office.store.write() as session:
        session.get_one(StepRow, (granted, 0)).status = StepStatus.QUEUED

    with office.store.write() as session:
        assert tickets.put_back(session, begun) == []
        assert tickets.put_back(session, granted) == [behind]

    office.set(granted, pause_wanted=False)
    later = office.run(code)
    office.taken(later)
    assert drained(office, behind) == [granted, later], "it stands where it stood"


def test_a_department_that_is_paused_takes_back_what_has_not_begun(office: Office) -> None:
    code = office.department(limit=1)
    begun, granted, behind = office.runs(3, code)
    office.taken(begun, granted, behind)
    with office.store.write() as session:
        session.get_one(StepRow, (begun, 0)).status = StepStatus.RUNNING
    office.release(begun)

    assert office.change(code, status="paused") == []
    assert office.taken(granted, behind) == [WAITING, WAITING], "it begins nothing"
    assert office.change(code, status="active") == [granted], "it stands where it stood"


def test_a_run_that_ends_gives_back_all_that_it_has(office: Office) -> None:
    code = office.department(limit=1)
    first, second = office.runs(2, code)
    office.take_place(first, 1)
    office.take_place(second, 1)
    office.taken(first, second)

    assert office.release_run(first, places=1) == [second]
    assert office.all() == {(code, second): HELD, (tickets.PLACES, second): HELD}


def test_a_lost_signal_is_noticed_until_the_step_begins(office: Office) -> None:
    code = office.department(limit=1)
    first, second, third = office.runs(3, code)
    office.taken(first, second, third)
    with office.store.write() as session:
        session.get_one(StepRow, (first, 0)).status = StepStatus.RUNNING

    def unheard(older_than: timedelta = timedelta(0)) -> list[str]:
        with office.store.read() as session:
            return tickets.unheard(session, older_than)

    assert unheard() == []
    office.release(first)
    assert unheard() == [second]
    assert unheard(timedelta(minutes=1)) == []
    office.take_place(second, 0)
    assert unheard() == [], "it waits for something else now"
    with office.store.write() as session:
        tickets.grant_places(session, 1)
        session.get_one(StepRow, (second, 0)).status = StepStatus.RUNNING
    assert unheard() == []


def test_a_step_takes_the_matching_department_with_most_free_slots(office: Office) -> None:
    office.department(limit=9, domain="design", can=("react",))
    office.department(limit=9, can=("vue",))
    small = office.department(limit=2, can=("react", "vue"))
    large = office.department(limit=3, can=("react",))
    wish = {"domain": "code", "requires": ["react"]}

    picked = [office.take(run).department_id for run in office.runs(5, **wish)]

    assert picked == [large, small, large, small, large]
    assert office.taken(office.run(**wish)) == [WAITING]


def test_a_department_without_a_limit_has_the_most_free_slots(office: Office) -> None:
    office.department(limit=10_000)
    one, other = office.department(), office.department()

    picked = [office.take(run).department_id for run in office.runs(3, domain="code")]

    assert picked == [one, other, one]


def test_a_step_waits_in_every_matching_department_and_takes_the_first_that_frees(
    office: Office,
) -> None:
    one, other = office.department(limit=1), office.department(limit=1)
    paused = office.department()
    office.change(paused, status="paused")
    in_one, in_other = office.run(one), office.run(other)
    office.taken(in_one, in_other)
    wishing = office.run(domain="code")

    assert office.taken(wishing) == [WAITING]
    assert {pool for pool, run in office.all() if run == wishing} == {one, other, paused}
    assert office.department_of(wishing) is None
    assert office.release(in_other) == [wishing]

    assert office.all() == {(one, in_one): HELD, (other, wishing): HELD}
    assert office.department_of(wishing) == other
    assert office.take(wishing) == Taken(HELD, other)
    assert office.release(in_one) == []


def test_a_step_that_waits_keeps_its_place_in_departments_that_match_later(office: Office) -> None:
    one = office.department(limit=1)
    holder, wishing, behind = office.run(one), *office.runs(2, domain="code")
    office.taken(holder, wishing, behind)
    other = office.department(limit=1)
    blocker = office.run(other)
    office.taken(blocker, behind, wishing)
    office.change(one, domain="gone")

    assert office.taken(wishing) == [WAITING]
    assert office.release(blocker) == [wishing]


def test_a_second_attempt_stays_with_its_department(office: Office) -> None:
    one, other = office.department(limit=1), office.department(limit=2)
    wishing = office.run(domain="code")
    assert office.take(wishing).department_id == other
    office.release(wishing)
    office.limit(one, 9)

    assert office.take(wishing).department_id == other


def test_draining_departments_take_steps_only_where_no_other_matches(office: Office) -> None:
    draining, full = office.department(), office.department(limit=1)
    office.change(draining, status="draining")
    office.taken(office.run(full))
    first, second = office.runs(2, domain="code")

    assert office.taken(first) == [WAITING]
    assert {pool for pool, run in office.all() if run == first} == {full}
    office.change(full, domain="other")
    assert office.take(second) == Taken(HELD, draining)


def test_a_step_that_nothing_matches_any_more_fails_and_says_what_there_is(office: Office) -> None:
    vue = office.department(domain="web", can=("vue",))
    with pytest.raises(StepFailure) as failure:
        office.take(office.run(domain="web", requires=["react"]))

    assert failure.value.code is FailureCode.NO_DEPARTMENT
    assert "domain 'web' and capabilities react" in failure.value.message
    assert f"{vue} (active, domain 'web', capabilities vue)" in failure.value.message


def test_a_step_of_a_deleted_department_fails_and_a_wish_finds_another(office: Office) -> None:
    gone = office.department()
    named, wishing = office.run(gone), office.run(domain="code")
    assert office.take(wishing).department_id == gone
    office.release(wishing)
    with office.store.write() as session:
        departments.delete(session, ADA, gone, None)
    other = office.department()

    with pytest.raises(StepFailure, match=f"{gone}.*was deleted"):
        office.take(named)
    assert office.take(wishing).department_id == other


def test_departments_that_a_step_may_get_count_for_the_sandbox(office: Office) -> None:
    named, matching = office.department(domain="a"), office.department()
    office.department(domain="z")
    with office.store.write() as session:
        steps = [
            {"type": "execute", "command": "x", "departmentId": named},
            {"type": "execute", "command": "x", "domain": "code"},
        ]
        body = {"sessionId": office.session_id, "name": "w", "steps": steps}
        workflow = workflows.create(session, ADA, WorkflowCreate.model_validate(body))
        run = runs.create(session, ADA, workflow.id, StartWorkflow())

        assert runs.departments_of(session, run.id) == sorted([named, matching])


def test_places_have_the_same_order_and_outlive_steps(office: Office) -> None:
    holder = office.run(owner="ada")
    ada, bob, urgent = (
        office.run(owner="ada"),
        office.run(owner="bob"),
        office.run(owner="ada", priority=1),
    )
    states = [office.take_place(run, 2) for run in (holder, ada, bob, urgent)]
    assert states == [HELD, HELD, WAITING, WAITING]
    assert office.take_place(bob, 2) == WAITING

    with office.store.write() as session:
        assert tickets.release(session, holder, 0) == []
        assert tickets.release(session, holder) == []
    assert office.take_place(holder, 2) == HELD, "a step's end frees no place"
    assert office.release_run(ada, places=1) == [], "a host is gone, and its place with it"
    with office.store.write() as session:
        assert tickets.grant_places(session, 3) == [urgent, bob]


def test_a_crowded_line_costs_no_more_than_it_grants(office: Office) -> None:
    code = office.department(limit=1)
    holder = office.run(code)
    office.taken(holder)
    with office.store.write() as session:
        base = {"workflow_id": office.workflow_id, "version": 1, "session_id": office.session_id}
        for number in range(2_000):
            id, owner = f"run_x{number:05}", f"usr_{number % 7}"
            session.add(RunRow(**base, id=id, owner_id=owner, total_steps=1))
        session.flush()
        for number in range(2_000):
            id, owner = f"run_x{number:05}", f"usr_{number % 7}"
            session.add(StepRow(run_id=id, index=0, id="s", type="execute", department_id=code))
            session.add(TicketRow(pool=code, run_id=id, step=0, priority=3, owner_id=owner))

    with loaded(office.store) as rows:
        assert office.release(holder) == ["run_x00000"]
    assert len(rows) <= 3, "only the tickets that change are loaded"

    with loaded(office.store) as rows:
        assert len(office.limit(code, 101)) == 100
    assert len(rows) <= 300
    with office.store.read() as session:
        held = session.exec(select(TicketRow.owner_id).where(TicketRow.state == HELD)).all()
    assert {held.count(owner) for owner in set(held)} == {14, 15}


@contextmanager
def loaded(store: Store) -> Iterator[list[Any]]:
    """The tickets and steps that are read from the database while the block lasts."""
    rows: list[Any] = []

    def note(target: Any, _: Any) -> None:
        rows.append(target)

    for kind in (TicketRow, StepRow):
        event.listen(kind, "load", note)
    yield rows
    for kind in (TicketRow, StepRow):
        event.remove(kind, "load", note)


def test_writers_of_several_processes_never_exceed_the_limit(office: Office, url: str) -> None:
    code, limit, workers = office.department(limit=3), 3, 4
    shares = [office.runs(12, code, owner=f"usr_{worker}") for worker in range(workers)]
    all_have_asked = threading.Barrier(workers)
    inside, most, lock = set[str](), 0, threading.Lock()
    faults: list[BaseException] = []

    def enter(mine: Office, run_id: str) -> bool:
        nonlocal most
        if mine.take(run_id).state is WAITING:
            return False
        with lock:
            inside.add(run_id)
            most = max(most, len(inside))
        return True

    def work(share: list[str]) -> None:
        mine = Office.__new__(Office)
        mine.store = Store(url)
        going = list(share)
        try:
            enter(mine, going[0])
            all_have_asked.wait(60)
            while going:
                for run_id in list(going):
                    if enter(mine, run_id):
                        with lock:
                            inside.remove(run_id)
                        mine.release(run_id)
                        going.remove(run_id)
        except BaseException as fault:
            faults.append(fault)
            all_have_asked.abort()
        finally:
            mine.store.close()

    threads = [threading.Thread(target=work, args=(share,)) for share in shares]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert faults == []
    assert most == limit
    assert office.all() == {}


class Model:
    """The promises once more, as plainly as possible, to compare with."""

    def __init__(self) -> None:
        self.limits: dict[str, int | None] = {}
        self.statuses: dict[str, str] = {}
        self.going: dict[str, bool] = {}
        self.owners: dict[str, tuple[str, int]] = {}
        self.pools: dict[str, list[str]] = {}
        self.wishing: set[str] = set()
        self.held: dict[str, str] = {}
        self.begun: set[str] = set()
        self.line: dict[str, int] = {}
        self.asked: dict[str, int] = {}
        """When each run that no host has was asked for, before everything else."""
        self._came: dict[str, int] = {}
        self._clock = itertools.count(1000)

    def room(self, pool: str) -> float:
        if self.statuses[pool] == DepartmentStatus.PAUSED:
            return 0
        limit = self.limits[pool]
        return (10**6 if limit is None else limit) - list(self.held.values()).count(pool)

    def grant(self, pool: str) -> list[str]:
        granted = []
        while self.room(pool) > 0 and (line := self._line(pool)):
            self._hold(line[0], pool)
            granted.append(line[0])
        return granted

    def _line(self, pool: str) -> list[str]:
        def rank(run: str) -> tuple[Any, ...]:
            owner, priority = self.owners[run]
            has = sum(self.owners[at][0] == owner and self.held[at] == pool for at in self.held)
            return priority, has, self.line[run]

        waiting = [run for run in self.line if pool in self.pools[run] and self.going[run]]
        return sorted(waiting, key=rank)

    def _hold(self, run: str, pool: str) -> None:
        self._came[run] = self.line.pop(run, self.asked.get(run, next(self._clock)))
        self.held[run], self.pools[run] = pool, [pool]
        self.wishing.discard(run)

    def change(self, pool: str, limit: int | None, status: str) -> None:
        self.limits[pool], self.statuses[pool] = limit, status
        if status == DepartmentStatus.PAUSED:
            self._put_back(pool)

    def _put_back(self, pool: str) -> None:
        for run in [at for at in self.held if self.held[at] == pool and at not in self.begun]:
            del self.held[run]
            self.line[run] = self._came[run]

    def take(self, run: str) -> None:
        self._take(run)
        if run in self.held:
            self.begun.add(run)

    def _take(self, run: str) -> None:
        if run in self.held:
            return
        if run in self.wishing:
            staying = [at for at in self.limits if self.statuses[at] != DepartmentStatus.DRAINING]
            self.pools[run] = staying or list(self.limits)
        by_room = sorted(self.pools[run], key=self._roominess)
        for pool in by_room:
            self.grant(pool)
        if run in self.held or run in self.line:
            return
        best = min(self.pools[run], key=self._roominess)
        if self.room(best) > 0 and self.going[run]:
            self._hold(run, best)
        else:
            self.line[run] = self.asked.get(run, next(self._clock))

    def _roominess(self, pool: str) -> tuple[Any, ...]:
        return -self.room(pool), list(self.held.values()).count(pool), pool

    def release(self, run: str) -> list[str]:
        pools = [self.held.pop(run)] if run in self.held else list(self.pools[run])
        self.line.pop(run, None)
        self.begun.discard(run)
        return [granted for pool in sorted(pools) for granted in self.grant(pool)]

    def tickets(self) -> dict[tuple[str, str], str]:
        waiting = {(pool, run): WAITING for run in self.line for pool in self.pools[run]}
        return {(pool, run): HELD for run, pool in self.held.items()} | waiting


@pytest.mark.parametrize("seed", range(4))
def test_a_random_walk_holds_every_promise_at_every_step(office: Office, seed: int) -> None:
    dice, model = random.Random(seed), Model()
    names = [office.department(limit=limit) for limit in (1, 2, 3)]
    model.limits = dict(zip(names, (1, 2, 3), strict=True))
    model.statuses = dict.fromkeys(names, DepartmentStatus.ACTIVE)
    for number in range(30):
        owner, priority = dice.choice("abc"), dice.choice((2, 3, 3, 4))
        named = dice.choice([*names, None])
        wish = {"domain": "code"} if named is None else {}
        run = office.run(named, owner=owner, priority=priority, **wish)
        model.owners[run], model.going[run] = (owner, priority), True
        model.pools[run] = [named] if named else []
        model.wishing |= set() if named else {run}
        if dice.random() < 0.5:
            model.asked[run] = number
        else:
            office.set(run, host_id="here")

    def take() -> None:
        run = dice.choice(list(model.owners))
        model.take(run)
        assert office.take(run).state == (HELD if run in model.held else WAITING)

    def release() -> None:
        run = dice.choice(list(model.held) or list(model.owners))
        if run in model.held or run in model.line:
            assert office.release(run) == model.release(run)

    def hold_back() -> None:
        run = dice.choice(list(model.owners))
        model.going[run] = not model.going[run]
        office.set(run, pause_wanted=not model.going[run])

    def change() -> None:
        pool = dice.choice(names)
        model.change(pool, dice.choice([1, 2, 3, 5, None]), dice.choice(list(DepartmentStatus)))
        before = model.room(pool) > 0
        granted = office.change(
            pool,
            status=model.statuses[pool],
            config={"maxConcurrentTasks": model.limits[pool]},
        )
        assert granted == model.grant(pool)
        assert before or not granted

    for _ in range(250):
        held = [list(model.held.values()).count(pool) for pool in names]
        dice.choices([take, release, hold_back, change], weights=[8, 5, 2, 1])[0]()
        present = office.all()
        assert present == model.tickets()
        for pool, were in zip(names, held, strict=True):
            now = sum(at == pool and state == HELD for (at, _), state in present.items())
            assert now <= max(were, model.limits[pool] or 10**6), "over the limit only by lowering"
