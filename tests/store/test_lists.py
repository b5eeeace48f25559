"""A page costs the same few statements however many rows it has, and no results of steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import event
from sqlmodel import Session

from director.domain.departments import DepartmentCreate
from director.domain.pages import PageQuery
from director.domain.runs import RunStatus, RunView, StepStatus
from director.domain.sessions import SessionCreate, SessionStatus
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate, WorkflowUpdate
from director.store import departments, runs, sessions, standing, workflows
from director.store.engine import Store
from director.store.tables import RunRow, SessionRow, WorkflowRow

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")
OUTPUT = "x" * 64 * 1024
STEPS = 16


def make_session(session: Session, name: str = "A session") -> SessionRow:
    return sessions.create(session, ADA, SessionCreate(type="director", name=name))


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
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

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
