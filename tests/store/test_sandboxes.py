"""Sandboxes that people make, in the store: who sees them, what is wanted, and what they hold."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from director.domain.departments import TicketState
from director.domain.errors import AuthorizationError, ConflictError, NotFoundError
from director.domain.lifetimes import (
    ExecuteBody,
    ExecutionStatus,
    SandboxEnd,
    SandboxStatus,
)
from director.domain.pages import PageQuery
from director.domain.sandboxes import SandboxInfo
from director.domain.users import Principal, Role
from director.store import events, executions, hosts, sandboxes, tickets
from director.store.engine import Store
from director.store.executions import StaleExecutionError
from director.store.tables import ExecutionRow, RunRow, SandboxRow

ANN = Principal(user_id="usr_1", username="ann", role=Role.OPERATOR, login_id="lgn_1")
BEN = Principal(user_id="usr_2", username="ben", role=Role.OPERATOR, login_id="lgn_2")
INFO = SandboxInfo(id="x", image="i", resolved_image="i@1", created=True)


def test_a_making_that_is_done_is_not_undone_by_its_retry(
    store: Store, host: Callable[..., str], running: Callable[..., str]
) -> None:
    host("h")
    id = running()
    with store.write() as session:
        assert sandboxes.take_place(session, id, "h").state == "runs"
    with store.write() as session:
        sandboxes.want_delete(session, session.get_one(SandboxRow, id))
    with store.write() as session:
        assert sandboxes.take_place(session, id, "h").state == "unwanted"


def told(store: Store, id: str) -> list[str]:
    with store.read() as session:
        return [one.type for one in events.after(session, 0, 100) if one.subject == id]


def test_a_sandbox_is_its_owner_s_and_shows_no_secret(
    store: Store, made: Callable[..., str]
) -> None:
    id = made(name="one", command=["node", "app.js"], environment={"A": "1", "API_KEY": "secret"})
    with store.read() as session:
        shown = sandboxes.view(session, sandboxes.get(session, ANN, id))
        with pytest.raises(NotFoundError):
            sandboxes.get(session, BEN, id)
        mine, _ = sandboxes.listed(session, ANN, PageQuery(), SandboxStatus.CREATING, None)
        theirs, page = sandboxes.listed(session, BEN, PageQuery(), None, None)
    assert shown.environment == {"A": "1", "API_KEY": "***"}
    assert (shown.command, shown.status) == (["node", "app.js"], SandboxStatus.CREATING)
    assert shown.main_process is not None
    assert shown.main_process.status is ExecutionStatus.QUEUED
    assert shown.effective_policy.resource_limits.max_duration == 3_600_000
    assert [one.id for one in mine] == [id]
    assert (theirs, page.total) == ([], 0)
    assert told(store, id) == ["sandbox.created"]


def test_sandboxes_and_runs_share_the_places_and_the_memory_of_a_host(
    store: Store,
    host: Callable[..., str],
    new_run: Callable[[], str],
    running: Callable[..., str],
    made: Callable[..., str],
) -> None:
    host("h", places=1, memory_mib=4096)
    id, second = running(), made()
    run_id = new_run()
    with store.write() as session:
        assert hosts.reserved(session, "h") == (1, 2048)
        run = session.get_one(RunRow, run_id)
        taken = tickets.take_place(session, run, hosts.total_places(session))
        assert taken.state is TicketState.WAITING
        assert sandboxes.take_place(session, second, "h").state == "queued"
    with store.write() as session:
        end = SandboxEnd(sandbox_id=id, status=SandboxStatus.EXPIRED)
        assert sandboxes.settle(session, end) == [second], "it was asked for before the run"
        assert hosts.reserved(session, "h") == (0, 0)
    with store.write() as session:
        assert sandboxes.take_place(session, second, "h").state == "held"
        end = SandboxEnd(sandbox_id=second, status=SandboxStatus.FAILED)
        assert sandboxes.settle(session, end) == [run_id]


def test_a_sandbox_that_is_deleted_while_it_waits_gets_no_place(
    store: Store, host: Callable[..., str], running: Callable[..., str], made: Callable[..., str]
) -> None:
    host("h", places=1)
    first, second = running(), made()
    with store.write() as session:
        assert sandboxes.take_place(session, second, "h").state == "queued"
        sandboxes.want_delete(session, sandboxes.locked(session, ANN, second))
        end = SandboxEnd(sandbox_id=first, status=SandboxStatus.EXPIRED)
        assert sandboxes.settle(session, end) == []
    with store.write() as session:
        assert sandboxes.take_place(session, second, "h").state == "unwanted"
        sandboxes.settle(session, SandboxEnd(sandbox_id=second, status=SandboxStatus.FAILED))
        assert session.get_one(SandboxRow, second).status == SandboxStatus.DELETED
        with pytest.raises(NotFoundError):
            sandboxes.get(session, ANN, second)
    assert told(store, second) == ["sandbox.created", "sandbox.deleted"]


def test_a_sandbox_whose_maker_was_killed_before_it_could_say_so_lives_on(
    store: Store, host: Callable[..., str], running: Callable[..., str]
) -> None:
    host("h")
    id = running()
    with store.write() as session:
        again = sandboxes.take_place(session, id, "h")
        assert (again.state, again.row.host_id) == ("runs", "h")
        assert again.row.expires_at is not None
        sandboxes.want_delete(session, sandboxes.locked(session, ANN, id))
    with store.write() as session:
        assert sandboxes.take_place(session, id, "h").state == "unwanted"


def test_what_is_stopped_gives_its_place_back_and_keeps_its_end(
    store: Store, host: Callable[..., str], running: Callable[..., str]
) -> None:
    host("h")
    id = running(command="serve")
    with store.write() as session:
        sandboxes.want_stop(session, sandboxes.locked(session, ANN, id))
        sandboxes.want_stop(session, sandboxes.locked(session, ANN, id))
        row = session.get_one(SandboxRow, id)
        assert (row.intents, row.status) == (1, SandboxStatus.STOPPING)
        sandboxes.steer(session, id, row.intents, SandboxStatus.STOPPED)
        assert hosts.reserved(session, "h") == (0, 0)
        shown = sandboxes.view(session, row)
        assert shown.main_process is not None
        assert shown.main_process.status is ExecutionStatus.CANCELLED
        with pytest.raises(ConflictError, match="is stopped"):
            sandboxes.execute(session, ANN, id, ExecuteBody(command="x"))
        with pytest.raises(ConflictError, match="is stopped"):
            sandboxes.want_pause(session, row, True)
        sandboxes.settle(session, SandboxEnd(sandbox_id=id, status=SandboxStatus.EXPIRED))
        sandboxes.settle(session, SandboxEnd(sandbox_id=id, status=SandboxStatus.FAILED))
        assert row.status == SandboxStatus.EXPIRED
    kinds = ["created", "started", "stopped", "expired"]
    assert told(store, id) == [f"sandbox.{kind}" for kind in kinds]


def test_commands_are_taken_while_it_is_made_and_where_the_policy_allows_them(
    store: Store, made: Callable[..., str]
) -> None:
    id, closed = made(), made(securityPolicy={"allowExec": False})
    with store.write() as session:
        row = sandboxes.execute(session, ANN, id, ExecuteBody(command=["a", "b"], timeout=5))
        assert [one.id for one in executions.queued(session, id)] == [row.id]
        with pytest.raises(AuthorizationError):
            sandboxes.execute(session, ANN, closed, ExecuteBody(command="x"))
        with pytest.raises(NotFoundError):
            sandboxes.execute(session, BEN, id, ExecuteBody(command="x"))
        with pytest.raises(NotFoundError):
            executions.get(session, session.get_one(SandboxRow, closed), row.id)


def test_of_two_attempts_the_later_one_writes_the_end_once(
    store: Store, host: Callable[..., str], running: Callable[..., str]
) -> None:
    host("h")
    id = running()
    with store.write() as session:
        execution = sandboxes.execute(session, ANN, id, ExecuteBody(command="x")).id
    with store.write() as session:
        assert executions.open_one(session, execution, 1).go
    with store.write() as session:
        assert executions.open_one(session, execution, 2).go
        with pytest.raises(StaleExecutionError):
            executions.require(session, execution, 1)
        with pytest.raises(StaleExecutionError):
            executions.open_one(session, execution, 1)
        result = {"exitCode": 3}
        executions.close(session, execution, 2, ExecutionStatus.COMPLETED, result)
        executions.close(session, execution, 2, ExecutionStatus.TIMED_OUT, None)
        assert not executions.open_one(session, execution, 3).go
        row = session.get_one(ExecutionRow, execution)
        assert (row.status, row.result) == (ExecutionStatus.COMPLETED, result)


def test_reconcile_finds_what_has_not_begun_and_what_has_not_ended(
    store: Store, host: Callable[..., str], running: Callable[..., str]
) -> None:
    host("h")
    id = running(command="serve")
    with store.write() as session:
        assert [row.id for row in sandboxes.open_ones(session, begun=False)] == [id]
        sandboxes.note_started(session, id, "1")
        assert [row.id for row in sandboxes.open_ones(session, begun=True)] == [id]
        assert sandboxes.open_ones(session, begun=True, age=timedelta(minutes=1)) == []
        ((row, where),) = executions.open_ones(session, timedelta(0), 10)
        assert (row.main, where) == (True, "h")
        assert sandboxes.known(session, [id, "sbx_other"]) == {id: "running"}
