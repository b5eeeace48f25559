"""Security events: from what happened, to whom they are shown, and when somebody is alerted."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlmodel import select

from director.domain.alerts import AlertRule, AlertRules
from director.domain.events import EventType
from director.domain.lifetimes import ExecuteBody, ExecutionStatus
from director.domain.runs import RunStatus
from director.domain.sandboxes import Cause, SandboxInfo
from director.domain.security_events import (
    SecurityEvent,
    SecurityEventsQuery,
    SecurityEventType,
    Severity,
)
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.store import (
    alerts,
    events,
    executions,
    sandboxes,
    security_events,
    users,
)
from director.store.engine import Store
from director.store.tables import RunRow, SecurityEventRow

ANN = Principal(user_id="usr_1", username="ann", role=Role.OPERATOR, login_id="lgn_1")
BEN = Principal(user_id="usr_2", username="ben", role=Role.OPERATOR, login_id="lgn_2")
ADMIN = Principal(user_id="usr_3", username="adm", role=Role.ADMIN, login_id="lgn_3")
INFO = SandboxInfo(id="x", image="i", resolved_image="i@1", created=True)


def found(store: Store, who: Principal = ADMIN, **fields: Any) -> list[SecurityEvent]:
    query = SecurityEventsQuery.model_validate({"limit": 1000, **fields})
    with store.read() as session:
        return security_events.listed(session, who, query)[0]


def note(store: Store, kind: SecurityEventType, subject: str, **fields: Any) -> None:
    given = {"owner_id": ANN.user_id, "rule": "r", "message": "m", **fields}
    with store.write() as session:
        security_events.note(session, kind, subject=subject, **given)


def told(store: Store, rules: AlertRules) -> list[tuple[str, str, int]]:
    """Tell all alerts that are due; gives rule, subject and count of each that is new."""
    with store.read() as session:
        due = alerts.due(session, rules)
    with store.write() as session:
        new = [each for each in due if alerts.tell(session, each, rules)]
    return sorted((each.rule, each.subject, each.times) for each in new)


@pytest.fixture(autouse=True)
def _host(host: Callable[..., str]) -> None:
    host("h", places=16, memory_mib=1 << 20)


def ended(store: Store, sandbox_id: str, cause: Cause, status: ExecutionStatus) -> str:
    with store.write() as session:
        row = sandboxes.execute(session, ANN, sandbox_id, ExecuteBody(command="x"))
        executions.open_one(session, row.id, 1)
        executions.close(session, row.id, 1, status, {"cause": cause, "exitCode": 137})
        return row.id


def test_a_command_that_is_killed_is_an_event_in_the_same_transaction(
    store: Store, running: Callable[..., str]
) -> None:
    id = running()
    oom = ended(store, id, Cause.OOM, ExecutionStatus.COMPLETED)
    ended(store, id, Cause.TIMEOUT, ExecutionStatus.TIMED_OUT)
    ended(store, id, Cause.EXIT, ExecutionStatus.COMPLETED)
    late, memory = found(store, ANN, sandboxId=id)
    assert (memory.type, memory.severity, memory.rule) == ("oom_kill", "medium", "memory")
    assert memory.details == {"executionId": oom}
    assert (late.type, late.rule) == ("timeout_kill", "timeout")
    assert found(store, BEN) == []
    assert len(found(store, ANN, severity="low")) == 1


def test_trying_again_and_again_fills_no_table(store: Store) -> None:
    for _ in range(40):
        with store.write() as session:
            security_events.login_failed(session, None, None)
        with store.write() as session:
            security_events.login_failed(session, "usr_9", "zoe")
    rows = found(store, type="login_failed")
    assert len(rows) <= 4, "one a minute of each"
    assert sum(row.count for row in rows) == 80
    assert {row.message for row in rows} == {
        "a login as 'zoe' failed",
        "a login of somebody unknown failed",
    }
    assert found(store, ANN) == [], "only admins see them"


def test_a_refresh_token_that_is_used_twice_is_an_event_of_its_user(store: Store) -> None:
    now = utc_now()
    with store.write() as session:
        user = users.create_user(session, "zoe", "h", Role.OPERATOR)
        users.open_login(session, user.id, "h", "t1", now)
    for sent, following, at in (("t1", "t2", 0), ("t2", "t3", 1), ("t1", "t2", 2)):
        with store.write() as session:
            outcome = users.rotate(session, sent, following, now + timedelta(seconds=at))
    assert outcome is users.Refusal.REUSED
    zoe = Principal(user_id=user.id, username="zoe", role=Role.OPERATOR, login_id="l")
    (event,) = found(store, zoe)
    assert (event.type, event.severity) == ("token_reused", "high")


def test_filters_combine_and_pages_go_on(store: Store) -> None:
    for number in range(5):
        sandbox_id = f"sbx_{number % 2}"
        kind = SecurityEventType.EXEC_DENIED
        note(store, kind, f"s{number}", sandbox_id=sandbox_id, session_id="ses_1")
    note(store, SecurityEventType.OOM_KILL, "s1", sandbox_id="sbx_1", severity=Severity.HIGH)
    assert len(found(store, sandboxId="sbx_1")) == 3
    assert [one.type for one in found(store, sandboxId="sbx_1", severity="high")] == ["oom_kill"]
    assert found(store, sandboxId="sbx_1", sessionId="ses_1", type="oom_kill") == []
    now = utc_now()
    assert found(store, since=now + timedelta(minutes=2)) == []
    assert found(store, until=now - timedelta(minutes=2)) == []
    assert len(found(store, since=now - timedelta(minutes=2), until=utc_now())) == 6
    with store.read() as session:
        query = SecurityEventsQuery(limit=4)
        first, page = security_events.listed(session, ANN, query)
        query = query.model_copy(update={"cursor": page.next_cursor})
        rest, last = security_events.listed(session, ANN, query)
    assert (page.total, page.has_more, last.has_more) == (6, True, False)
    ids = [one.id for one in (*first, *rest)]
    assert ids == sorted(ids, reverse=True)
    assert len(set(ids)) == 6


def test_the_summary_counts_as_often_as_it_came(store: Store) -> None:
    note(store, SecurityEventType.OOM_KILL, "sbx_1", sandbox_id="sbx_1", times=3)
    note(store, SecurityEventType.TIMEOUT_KILL, "sbx_2", sandbox_id="sbx_2")
    note(store, SecurityEventType.LOGIN_FAILED, "unknown", owner_id="", times=2)
    with store.write() as session:
        (old,) = session.exec(select(SecurityEventRow).where(SecurityEventRow.type == "oom_kill"))
        old.last_at = utc_now() - timedelta(days=2)
        session.add(old)
    with store.read() as session:
        mine = security_events.summary(session, ANN)
        all_of_it = security_events.summary(session, ADMIN)
    assert (mine.last24h.total, mine.last7d.total) == (1, 4)
    assert mine.last7d.by_severity == {"low": 1, "medium": 3, "high": 0, "critical": 0}
    assert mine.last7d.by_type == {"oom_kill": 3, "timeout_kill": 1}
    assert [(one.sandbox_id, one.count) for one in mine.last7d.by_sandbox] == [
        ("sbx_1", 3),
        ("sbx_2", 1),
    ]
    assert all_of_it.last24h.by_type == {"timeout_kill": 1, "login_failed": 2}


def test_what_is_old_goes_in_batches(store: Store) -> None:
    for number in range(5):
        note(store, SecurityEventType.OOM_KILL, f"sbx_{number}")
    with store.write() as session:
        assert security_events.purge(session, utc_now() - timedelta(days=1), 100) == 0
        assert security_events.purge(session, utc_now() + timedelta(minutes=1), 3) == 3
    assert len(found(store)) == 2


def test_a_rule_fires_once_in_its_window_for_each_that_it_is_about(store: Store) -> None:
    rules = AlertRules(failed_logins=5, blocked=20, oom_kills=3)
    kind = SecurityEventType
    note(store, kind.OOM_KILL, "sbx_1", sandbox_id="sbx_1", session_id="ses_1", times=2)
    note(store, kind.INGRESS_BLOCKED, "sbx_1", sandbox_id="sbx_1", times=100)
    assert told(store, rules) == []
    note(store, kind.OOM_KILL, "sbx_1", sandbox_id="sbx_1", session_id="ses_1")
    note(store, kind.EGRESS_BLOCKED, "sbx_2", sandbox_id="sbx_2", times=20)
    note(store, kind.LOGIN_FAILED, "unknown", owner_id="", times=9)
    assert told(store, rules) == [
        (AlertRule.OOM_LOOP, "sbx_1", 3),
        (AlertRule.REPEATED_BLOCKED_EGRESS, "sbx_2", 20),
        (AlertRule.REPEATED_FAILED_LOGINS, "unknown", 9),
    ]
    note(store, kind.OOM_KILL, "sbx_1", sandbox_id="sbx_1", times=50)
    assert told(store, rules) == []
    shown = found(store, ANN, type="alert")
    assert sorted(one.rule for one in shown) == ["OOM_LOOP", "REPEATED_BLOCKED_EGRESS"]
    (loop,) = found(store, ANN, type="alert", sandboxId="sbx_1")
    assert (loop.severity, loop.session_id, loop.details["count"]) == ("high", "ses_1", 3)
    with store.read() as session:
        log = events.after(session, 0, 100)
    assert {event.type for event in log} == {EventType.SECURITY_ALERT}
    frames = {event.data["alert"]["rule"]: event for event in log}
    assert frames["OOM_LOOP"].data["securityEventId"] == loop.id
    assert frames["REPEATED_FAILED_LOGINS"].owner_id == "", "only admins are told"

    with store.write() as session:
        for row in session.exec(select(SecurityEventRow).where(SecurityEventRow.type == "alert")):
            row.last_at, row.bucket = row.last_at - rules.window, None
            session.add(row)
    assert (AlertRule.OOM_LOOP, "sbx_1", 53) in told(store, rules), "again in the next window"


def test_a_rule_that_is_off_is_silent(store: Store) -> None:
    note(store, SecurityEventType.OOM_KILL, "sbx_1", times=1000)
    assert told(store, AlertRules(oom_kills=0)) == []


def test_a_high_error_rate_counts_runs_and_commands_of_an_owner(
    store: Store, running: Callable[..., str], new_run: Callable[[], str]
) -> None:
    rules = AlertRules(error_rate=50, error_least=4)
    id = running()
    ended(store, id, Cause.EXIT, ExecutionStatus.COMPLETED)
    ended(store, id, Cause.EXIT, ExecutionStatus.COMPLETED)
    ended(store, id, Cause.TIMEOUT, ExecutionStatus.TIMED_OUT)
    assert told(store, rules) == []
    run_id = new_run()
    with store.write() as session:
        run = session.get_one(RunRow, run_id)
        run.status, run.completed_at = RunStatus.FAILED, utc_now()
        session.add(run)
    assert told(store, rules) == [(AlertRule.HIGH_ERROR_RATE, ANN.user_id, 2)]
    assert told(store, rules) == []
    (event,) = found(store, ANN, type="alert")
    assert event.message == "Error rate exceeded threshold: 2 of 4 failed"
