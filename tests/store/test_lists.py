"""A page costs the same few statements however many rows it has, and no results of steps."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlmodel import Session, select

from director.domain.departments import DepartmentCreate
from director.domain.events import EventType, Wanted
from director.domain.pages import PageQuery
from director.domain.runs import RunStatus, RunView, StepStatus
from director.domain.sessions import SessionCreate, SessionStatus
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate, WorkflowUpdate
from director.store import checkpoints, departments, events, runs, sessions, standing, workflows
from director.store.engine import Store
from director.store.tables import RunRow, SessionRow, WorkflowRow

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")
BOB = Principal(user_id="usr_bob", username="bob", role=Role.OPERATOR, login_id="lgn_2")
ADMIN = Principal(user_id="usr_admin", username="admin", role=Role.ADMIN, login_id="lgn_3")
OUTPUT = "x" * 64 * 1024
STEPS = 16


def make_session(session: Session, name: str = "A session") -> SessionRow:
    made = sessions.create(session, ADA, SessionCreate(type="director", name=name))
    return session.get_one(SessionRow, made.id)


def make_workflow(session: Session, parent: SessionRow, steps: int = 1) -> WorkflowRow:
    body = {
        "sessionId": parent.id,
        "name": "A workflow",
        "steps": [{"type": "execute", "command": f"echo {number}"} for number in range(steps)],
    }
    return workflows.create(session, ADA, WorkflowCreate.model_validate(body))


def make_run(session: Session, workflow: WorkflowRow) -> RunRow:
    """A run that has ended, each step with as much output as a result holds."""
    run = runs.create(session, ADA, workflow.id, StartWorkflow())
    for step in standing.steps_of(session, run.id):
        step.status = StepStatus.COMPLETED
        step.result, step.error = {"exitCode": 0, "stdout": OUTPUT}, {"message": OUTPUT}
        session.add(step)
    run.status = RunStatus.COMPLETED
    session.add(run)
    session.flush()
    return run


def expire(session: Session, row: SessionRow) -> None:
    row.expires_at = utc_now() - timedelta(seconds=1)
    session.add(row)
    session.flush()


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """The statements that are sent to the database while the block lasts."""
    with noted(store) as sent:
        statements: list[str] = []
        yield statements
        statements += [statement for statement, _ in sent]


@contextmanager
def noted(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """The same with their parameters."""
    sent: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    yield sent
    event.remove(store.engine, "before_cursor_execute", note)


def cost(store: Store, listed: Callable[[Session, PageQuery], Any], rows: int) -> int:
    """How many statements a page of so many rows takes."""
    with counted(store) as sent, store.read() as session:
        page, _ = listed(session, PageQuery(limit=rows))
    assert len(page) == rows
    assert sent
    return len(sent)


def test_a_list_of_runs_carries_no_output_and_one_run_does(store: Store) -> None:
    with store.write() as session:
        workflow = make_workflow(session, make_session(session), STEPS)
        run = make_run(session, workflow)

    with store.read() as session:
        (listed,), _ = runs.listed(session, ADA, workflow.id, PageQuery())
    with store.read() as session:
        whole = standing.view(session, session.get_one(RunRow, run.id))

    assert len(whole.model_dump_json()) > STEPS * len(OUTPUT)
    assert len(listed.model_dump_json()) < 8192
    assert {(step.result, step.error) for step in listed.steps} == {(None, None)}


def test_a_listed_run_is_the_run_but_for_the_results_of_its_steps(store: Store) -> None:
    def without_results(run: RunView) -> dict[str, Any]:
        shown = run.model_dump(mode="json")
        for step in shown["steps"]:
            step["result"] = step["error"] = None
        return shown

    with store.write() as session:
        workflow = make_workflow(session, make_session(session), 3)
        made = [make_run(session, workflow), make_run(session, workflow)]
        steps = standing.steps_of(session, made[0].id)
        steps[1].status = StepStatus.FAILED
        session.add(steps[1])

    with store.read() as session:
        listed, _ = runs.listed(session, ADA, workflow.id, PageQuery())
    with store.read() as session:
        whole = {run.id: standing.view(session, session.get_one(RunRow, run.id)) for run in made}

    assert {run.run_id for run in listed} == set(whole)
    for run in listed:
        assert run.run_id is not None
        assert run.model_dump(mode="json") == without_results(whole[run.run_id])


def test_a_page_of_runs_takes_as_many_statements_for_one_run_as_for_twenty(store: Store) -> None:
    with store.write() as session:
        workflow = make_workflow(session, make_session(session), 2)
        for _ in range(20):
            make_run(session, workflow)

    def listed(session: Session, query: PageQuery) -> Any:
        return runs.listed(session, ADA, workflow.id, query)

    assert cost(store, listed, 20) == cost(store, listed, 1)


def test_a_page_of_workflows_takes_as_many_statements_for_five_as_for_fifty(store: Store) -> None:
    with store.write() as session:
        parent = make_session(session)
        for _ in range(50):
            make_workflow(session, parent)

    def listed(session: Session, query: PageQuery) -> Any:
        return workflows.listed(session, ADA, query, None, None)

    assert cost(store, listed, 50) == cost(store, listed, 5)


def test_listed_workflows_show_each_its_own_present_version(store: Store) -> None:
    with store.write() as session:
        parent = make_session(session)
        changed, kept = (make_workflow(session, parent) for _ in range(2))
        steps = [{"type": "execute", "command": "make"}]
        update = WorkflowUpdate.model_validate({"steps": steps})
        workflows.update(session, ADA, changed.id, update, None)

    with store.read() as session:
        listed, _ = workflows.listed(session, ADA, PageQuery(), None, None)

    shown = {workflow.id: (workflow.version, workflow.steps[0]["command"]) for workflow in listed}
    assert shown == {changed.id: (2, "make"), kept.id: (1, "echo 0")}


def test_a_page_of_sessions_takes_as_many_statements_for_five_as_for_fifty(store: Store) -> None:
    with store.write() as session:
        for _ in range(50):
            parent = make_session(session)
            runs.create(session, ADA, make_workflow(session, parent).id, StartWorkflow())
            expire(session, parent)

    def listed(session: Session, query: PageQuery) -> Any:
        return sessions.listed(session, ADA, query, None)

    assert cost(store, listed, 50) == cost(store, listed, 5)


def test_listed_sessions_show_each_its_own_status_and_counts(store: Store) -> None:
    with store.write() as session:
        make_session(session, "empty")
        idle, busy = make_session(session, "idle"), make_session(session, "busy")
        department = {"sessionId": busy.id, "name": "Frontend", "domain": "frontend"}
        body = DepartmentCreate.model_validate(department)
        gone = departments.create(session, ADA, body)
        departments.create(session, ADA, body)
        departments.delete(session, ADA, gone.id, None)
        workflow = make_workflow(session, busy)
        make_run(session, workflow)
        runs.create(session, ADA, workflow.id, StartWorkflow())
        expire(session, idle)
        expire(session, busy)

    with store.read() as session:
        listed, _ = sessions.listed(session, ADA, PageQuery(), None)

    counts = {one.name: tuple(one.metrics.model_dump().values()) for one in listed}
    assert counts == {"empty": (0, 0, 0), "idle": (0, 0, 0), "busy": (1, 2, 1)}
    assert {one.name: one.status for one in listed} == {
        "empty": SessionStatus.ACTIVE,
        "idle": SessionStatus.EXPIRED,
        "busy": SessionStatus.ACTIVE,
    }
    with store.read() as session:
        alone = [sessions.view(session, session.get_one(SessionRow, one.id)) for one in listed]
    assert alone == listed


def test_what_is_in_a_session_is_listed_for_its_owner_and_admins_only(store: Store) -> None:
    with store.write() as session:
        parent = make_session(session)
        make_workflow(session, parent)
        make_workflow(session, make_session(session))
        body = {"sessionId": parent.id, "name": "Frontend", "domain": "frontend"}
        departments.create(session, ADA, DepartmentCreate.model_validate(body))

    def totals(principal: Principal, session_id: str) -> tuple[int, int]:
        with store.read() as session:
            _, found = workflows.listed(session, principal, PageQuery(), session_id, None)
            _, pools = departments.listed(session, principal, PageQuery(), session_id, None)
            return found.total, pools.total

    assert totals(ADA, parent.id) == totals(ADMIN, parent.id) == (1, 1)
    assert totals(BOB, parent.id) == totals(ADA, "ses_123") == (0, 0)


def test_a_page_behind_a_cursor_does_not_count_again(store: Store) -> None:
    with store.write() as session:
        parent = make_session(session)
        for _ in range(4):
            make_workflow(session, parent)

    def listed(query: PageQuery) -> tuple[list[str], Any]:
        with store.read() as session:
            found, pagination = workflows.listed(session, ADA, query, None, None)
            return [one.id for one in found], pagination

    first, pagination = listed(PageQuery(limit=2))
    with store.write() as session:
        make_workflow(session, session.get_one(SessionRow, parent.id))
    with counted(store) as sent:
        second, behind = listed(PageQuery(limit=1, cursor=pagination.next_cursor))
    alone, _ = listed(PageQuery(limit=1, cursor=first[-1]))

    assert (pagination.total, behind.total) == (4, 4)
    assert second == alone
    assert not [statement for statement in sent if "count(" in statement]


Listed = Callable[[Session, PageQuery], Any]

LISTS: dict[str, Listed] = {
    f"{name} of {principal.username}": partial(listed, principal=principal)
    for principal in (ADA, ADMIN)
    for name, listed in {
        "sessions": lambda s, q, principal: sessions.listed(s, principal, q, None),
        "active sessions": lambda s, q, principal: sessions.listed(
            s, principal, q, SessionStatus.ACTIVE
        ),
        "departments": lambda s, q, principal: departments.listed(s, principal, q, None, None),
        "departments of a session": lambda s, q, principal: departments.listed(
            s, principal, q, parent_id(s), None
        ),
        "workflows": lambda s, q, principal: workflows.listed(s, principal, q, None, None),
        "running workflows": lambda s, q, principal: workflows.listed(
            s, principal, q, None, RunStatus.RUNNING
        ),
        "workflows of a session": lambda s, q, principal: workflows.listed(
            s, principal, q, parent_id(s), None
        ),
        "running workflows of a session": lambda s, q, principal: workflows.listed(
            s, principal, q, parent_id(s), RunStatus.RUNNING
        ),
        "runs of a workflow": lambda s, q, principal: runs.listed(s, principal, workflow_id(s), q),
        "checkpoints": lambda s, q, principal: checkpoints.listed(s, principal, q, None),
        "checkpoints of a session": lambda s, q, principal: checkpoints.listed(
            s, principal, q, parent_id(s)
        ),
    }.items()
}


def parent_id(session: Session) -> str:
    return session.exec(select(SessionRow.id)).one()


def workflow_id(session: Session) -> str:
    return session.exec(select(WorkflowRow.id)).one()


@pytest.mark.parametrize("listed", LISTS.values(), ids=LISTS)
def test_each_list_is_a_range_of_an_index(store: Store, listed: Listed) -> None:
    """Nothing is sorted, and no table is read from end to end, neither to show nor to count."""
    with store.write() as session:
        make_run(session, make_workflow(session, make_session(session)))
    for cursor in (None, "ses_01m879x682f8fjkxpqa3jx3jgp"):
        with noted(store) as sent, store.read() as session:
            listed(session, PageQuery(cursor=cursor))
        for plan in plans(store, sent):
            assert not re.search(r"TEMP B-TREE|SCAN \w+$|Seq Scan|Sort", plan, re.MULTILINE), plan


@pytest.mark.parametrize("wanted", ["owner_id", "session_id", "workflow_id"])
def test_somebodys_part_of_the_event_log_is_a_range_of_an_index(store: Store, wanted: str) -> None:
    with noted(store) as sent, store.read() as session:
        events.read(session, 0, 10**9, Wanted(**{wanted: "x"}), 100)
        types = frozenset({EventType.STEP_ENDED})
        events.read(session, 0, 10**9, Wanted(**{wanted: "x"}, types=types), 100)
    for plan in plans(store, sent):
        assert re.search(rf"ix_events_{wanted.removesuffix('_id')}\b", plan), plan


def test_a_rare_type_is_looked_for_among_a_bounded_number_of_events_at_once(store: Store) -> None:
    def told(kind: EventType, owner: str, times: int) -> None:
        with store.write() as session:
            for _ in range(times):
                events.append(session, kind, subject="s", owner_id=owner, data={})

    told(EventType.STEP_ENDED, "ada", 5000)
    told(EventType.STEP_ENDED, "bob", 100)
    told(EventType.SESSION_CREATED, "ada", 1)
    wanted = Wanted(owner_id="ada", types=frozenset({EventType.SESSION_CREATED}))
    with store.read() as session:
        first, cursor = events.read(session, 0, 5101, wanted, 10)
        found, end = events.read(session, cursor, 5101, wanted, 10)
    assert (first, cursor) == ([], 5000)
    assert ([event.id for event in found], end) == ([5101], 5101)


def plans(store: Store, sent: list[tuple[str, Any]]) -> list[str]:
    """How the database answers what lists are read with. Postgres is told not to read whole
    tables, which it prefers where they are as small as here."""
    asked = [one for one in sent if "LIMIT" in one[0] or "count(" in one[0]]
    assert asked
    with store.read() as session:
        connection = session.connection()
        explain = "EXPLAIN QUERY PLAN"
        if connection.dialect.name == "postgresql":
            explain = "EXPLAIN (COSTS OFF)"
            for setting in ("enable_seqscan", "enable_bitmapscan", "enable_sort"):
                connection.execute(text(f"SET LOCAL {setting} = off"))
        told = [connection.exec_driver_sql(f"{explain} {one}", given) for one, given in asked]
        return ["\n".join(str(row[-1]) for row in rows) for rows in told]
