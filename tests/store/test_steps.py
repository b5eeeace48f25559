"""An attempt that lost its step writes nothing any more, whatever it still believes."""

from datetime import timedelta

import pytest
from sqlmodel import Session

from director.domain.errors import ConflictError
from director.domain.events import EventType
from director.domain.hosts import Capacity
from director.domain.runs import Approval, RunStatus, StepStatus
from director.domain.sessions import SessionCreate
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate
from director.store import approvals, hosts, outputs, runs, sessions, standing, steps, workflows
from director.store.engine import Store
from director.store.steps import StaleAttemptError, StepKey
from director.store.tables import OutputRow, RunRow, StepRow

HOST = "here"
SOMEBODY = Principal(user_id="usr_1", username="a", role=Role.OPERATOR, login_id="lgn_1")


@pytest.fixture
def run_id(store: Store) -> str:
    with store.write() as session:
        hosts.register(session, HOST, Capacity())
        parent = sessions.create(session, SOMEBODY, SessionCreate(type="a", name="s"))
        body = {"sessionId": parent.id, "name": "w", "steps": [{"type": "execute", "command": "x"}]}
        workflow = workflows.create(session, SOMEBODY, WorkflowCreate.model_validate(body))
        return runs.create(session, SOMEBODY, workflow.id, StartWorkflow()).id


def key(run_id: str, activity_attempt: int = 1, attempt: int = 1, temporal: str = "t1") -> StepKey:
    return StepKey(run_id, 0, attempt, temporal, activity_attempt)


def opened(store: Store, wanted: StepKey) -> str:
    with store.write() as session:
        return steps.open_step(session, wanted, HOST).state


def step_of(session: Session, run_id: str) -> StepRow:
    return session.get_one(StepRow, (run_id, 0))


def test_the_first_attempt_begins_the_run(store: Store, run_id: str) -> None:
    assert opened(store, key(run_id)) == "go"

    with store.read() as session:
        assert session.get_one(RunRow, run_id).status == RunStatus.RUNNING
        assert step_of(session, run_id).status == StepStatus.RUNNING


def test_a_retried_activity_finds_the_outcome_instead_of_working_again(
    store: Store, run_id: str
) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        steps.close_step(session, key(run_id), StepStatus.COMPLETED, {"exitCode": 0}, None)

    with store.write() as session:
        again = steps.open_step(session, key(run_id, activity_attempt=2), HOST)

    assert again.state == "outcome"
    assert again.outcome is not None
    assert (again.outcome.status, again.outcome.exit_code) == (StepStatus.COMPLETED, 0)


def test_an_outcome_counts_only_for_the_execution_that_wrote_it(store: Store, run_id: str) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        steps.close_step(session, key(run_id), StepStatus.COMPLETED, None, None)

    with store.write() as session:
        again = steps.open_step(session, key(run_id, temporal="t2"), HOST, quiet=True)
    assert again.state == "go"


def test_before_a_reset_execution_takes_over_what_the_one_before_began_is_to_be_ended(
    store: Store, run_id: str
) -> None:
    opened(store, key(run_id))

    assert opened(store, key(run_id, temporal="t2")) == "superseded"
    with store.read() as session:
        assert session.get_one(RunRow, run_id).temporal_run_id == "t1", "nothing was written"


def test_a_step_of_a_sandbox_on_another_host_is_told_where_to_go(store: Store, run_id: str) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        run = session.get_one(RunRow, run_id)
        run.host_id = "there"
        session.add(run)

    with store.write() as session:
        routed = steps.open_step(session, key(run_id, activity_attempt=2), HOST)

    assert routed.outcome is not None
    assert (routed.outcome.status, routed.outcome.host_id) == (StepStatus.PENDING, "there")
    with store.read() as session:
        assert step_of(session, run_id).activity_attempt == 1, "nothing was written"


def test_only_a_run_whose_approval_is_decided_is_to_be_told_so(store: Store, run_id: str) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        steps.await_approval(session, key(run_id))
        assert approvals.decided(session) == []

        approval = Approval(approved=True, by="ada")
        approvals.decide(session, session.get_one(RunRow, run_id), approval)
        assert approvals.decided(session) == [run_id]


def test_an_approval_is_decided_once_and_only_while_a_step_waits_for_it(
    store: Store, run_id: str
) -> None:
    approval = Approval(approved=True, by="ada")
    opened(store, key(run_id))
    with store.write() as session, pytest.raises(ConflictError, match="does not wait"):
        approvals.decide(session, session.get_one(RunRow, run_id), approval)

    with store.write() as session:
        waiting = steps.await_approval(session, key(run_id)).outcome
    with store.write() as session:
        approvals.decide(session, session.get_one(RunRow, run_id), approval)

    assert waiting.status is StepStatus.WAITING
    with store.write() as session:
        assert session.get_one(RunRow, run_id).status == RunStatus.WAITING
        with pytest.raises(ConflictError, match="decided already, by ada"):
            approvals.decide(session, session.get_one(RunRow, run_id), approval)


def test_the_attempt_after_a_wait_is_the_same_attempt_and_its_time_goes_on(
    store: Store, run_id: str
) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        began = step_of(session, run_id).started_at
        steps.await_approval(session, key(run_id))

    assert opened(store, key(run_id, activity_attempt=1)) == "go"

    with store.read() as session:
        step = step_of(session, run_id)
        assert (step.started_at, step.status) == (began, StepStatus.RUNNING)
        assert session.get_one(RunRow, run_id).status == RunStatus.RUNNING


@pytest.mark.parametrize("older", [{"activity_attempt": 1}, {"attempt": 1, "activity_attempt": 9}])
def test_an_older_attempt_neither_opens_nor_records_nor_closes(
    store: Store, run_id: str, older: dict[str, int]
) -> None:
    opened(store, key(run_id, attempt=1))
    opened(store, key(run_id, attempt=2, activity_attempt=2))
    old = key(run_id, **({"attempt": 2} | older))

    assert opened(store, old) == "stale"
    with store.write() as session, pytest.raises(StaleAttemptError):
        steps.require(session, old)
    with store.write() as session, pytest.raises(StaleAttemptError):
        steps.close_step(session, old, StepStatus.FAILED, None, None)
    with store.read() as session:
        assert step_of(session, run_id).status == StepStatus.RUNNING


def test_an_execution_that_lost_its_step_to_another_does_not_take_its_status_for_an_outcome(
    store: Store, run_id: str
) -> None:
    mine = key(run_id, temporal="t2")
    with store.write() as session:
        steps.open_step(session, mine, HOST)
    with store.write() as session:
        steps.open_step(session, key(run_id, temporal="t1"), HOST, quiet=True)

    with store.write() as session, pytest.raises(StaleAttemptError):
        steps.close_step(session, mine, StepStatus.COMPLETED, None, None)


def test_a_run_that_is_being_cancelled_starts_nothing_more(store: Store, run_id: str) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        runs.want_cancel(session, session.get_one(RunRow, run_id))

    with store.write() as session:
        steps.require(session, key(run_id))
        with pytest.raises(StaleAttemptError, match="cancelling"):
            steps.repeat_step(session, key(run_id))


def test_a_repeated_command_begins_with_no_output(store: Store, run_id: str) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        piece = {"run_id": run_id, "step": 0, "attempt": 1, "stream": "stdout"}
        outputs.append(session, OutputRow(**piece, offset=0, size=5, hash="h"))

    with store.write() as session:
        assert steps.repeat_step(session, key(run_id)) == 1

    with store.read() as session:
        assert outputs.recorded(session, run_id, 0, 1, "stdout") == 0


def test_a_step_that_is_reset_shows_nothing_of_what_its_execution_before_wrote(
    store: Store, run_id: str
) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        piece = {"run_id": run_id, "step": 0, "attempt": 1, "stream": "stdout"}
        outputs.append(session, OutputRow(**piece, offset=0, size=5, hash="h"))

    with store.write() as session:
        again = steps.open_step(session, key(run_id, temporal="t2"), HOST, quiet=True)
    assert again.state == "go"

    with store.read() as session:
        assert outputs.recorded(session, run_id, 0, 1, "stdout") == 0


def test_a_failure_before_the_last_attempt_shows_as_retrying_and_is_an_outcome(
    store: Store, run_id: str
) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        error = {"code": "TIMEOUT", "message": "too slow"}
        steps.close_step(session, key(run_id), StepStatus.RETRYING, None, error)
        outcome = steps.outcome_of(step_of(session, run_id), "host")

    assert outcome.status is StepStatus.TIMED_OUT


def test_nothing_is_written_into_a_run_that_has_ended(store: Store, run_id: str) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        run = session.get_one(RunRow, run_id)
        standing.move(session, run, RunStatus.FAILED, EventType.WORKFLOW_FAILED)

    assert opened(store, key(run_id, activity_attempt=2)) == "over"
    with store.write() as session, pytest.raises(StaleAttemptError):
        steps.close_step(session, key(run_id), StepStatus.COMPLETED, None, None)
    with store.read() as session:
        assert step_of(session, run_id).status == StepStatus.RUNNING


def test_the_time_in_which_a_step_waits_for_room_is_none_of_its_own(
    store: Store, run_id: str
) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        step = step_of(session, run_id)
        step.started_at = utc_now() - timedelta(hours=1)
        session.add(step)
    with store.write() as session:
        steps.requeue(session, key(run_id))

    assert opened(store, key(run_id, activity_attempt=2)) == "go"
    with store.read() as session:
        began = step_of(session, run_id).started_at
    assert began is not None
    assert utc_now() - began < timedelta(minutes=1)


def test_an_execution_that_a_reset_replaced_does_not_take_its_run_back(
    store: Store, run_id: str
) -> None:
    opened(store, key(run_id))
    with store.write() as session:
        steps.open_step(session, key(run_id, temporal="t2"), HOST, quiet=True)

    assert opened(store, key(run_id, activity_attempt=9)) == "stale"


def test_a_run_that_is_to_hold_begins_no_step_and_goes_on_with_one_that_has_begun(
    store: Store, run_id: str
) -> None:
    def wish(pause: bool) -> None:
        with store.write() as session:
            runs.want_pause(session, session.get_one(RunRow, run_id), pause=pause)

    wish(True)
    assert opened(store, key(run_id)) == "outcome"
    with store.read() as session:
        assert step_of(session, run_id).status == StepStatus.PENDING

    wish(False)
    assert opened(store, key(run_id)) == "go"
    wish(True)
    assert opened(store, key(run_id, activity_attempt=2)) == "go"
