"""Alert rules, judged by what is written of the last minutes."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy
from sqlalchemy import func
from sqlmodel import Session, col, select

from director.domain.alerts import AlertRule, AlertRules
from director.domain.base import Json
from director.domain.events import EventType
from director.domain.lifetimes import ExecutionStatus
from director.domain.runs import RunStatus
from director.domain.security_events import SecurityEventType
from director.domain.times import rfc3339, to_millis, utc_now
from director.store import events, security_events
from director.store.inserts import insert_into
from director.store.tables import ExecutionRow, RunRow, SecurityEventRow

_RUNS_FAILED = (RunStatus.FAILED, RunStatus.TIMED_OUT)
_COMMANDS_FAILED = (ExecutionStatus.FAILED, ExecutionStatus.TIMED_OUT)


class Due(NamedTuple):
    """An alert that is to be told."""

    rule: AlertRule
    owner_id: str
    subject: str
    message: str
    sandbox_id: str | None = None
    session_id: str | None = None
    run_id: str | None = None
    times: int = 0

    @property
    def about(self) -> str:
        """What it is told once of in a window."""
        return f"{self.rule} {self.subject}"


def due(session: Session, rules: AlertRules) -> list[Due]:
    """The alerts of now, without those that were told within the window."""
    since = utc_now() - rules.window
    row = SecurityEventRow
    told = select(row.subject).where(row.type == SecurityEventType.ALERT, col(row.last_at) > since)
    known = set(session.exec(told))
    found = [*_repeated(session, rules, since), *_error_rates(session, rules, since)]
    return [each for each in found if each.about not in known]


def tell(session: Session, alert: Due, rules: AlertRules) -> bool:
    """Write an alert, as a security event and in the event log; False where it is told already."""
    row = security_events.new(
        SecurityEventType.ALERT,
        owner_id=alert.owner_id,
        subject=alert.about,
        sandbox_id=alert.sandbox_id,
        session_id=alert.session_id,
        run_id=alert.run_id,
        rule=alert.rule,
        message=alert.message,
        details={"count": alert.times, "windowMs": to_millis(rules.window)},
    )
    begun = row.created_at.timestamp() // rules.window.total_seconds()
    row.bucket = f"{alert.about} {begun:.0f}"
    insert = insert_into(session, SecurityEventRow).values(**row.model_dump())
    new = insert.on_conflict_do_nothing().returning(col(SecurityEventRow.id))
    if session.scalars(new).first() is None:
        return False
    data: Json = {
        "alert": {
            "rule": alert.rule,
            "severity": row.severity,
            "message": alert.message,
            "timestamp": rfc3339(row.created_at),
        },
        "securityEventId": row.id,
        "sandboxId": alert.sandbox_id,
        "sessionId": alert.session_id,
        "count": alert.times,
    }
    events.append(
        session,
        EventType.SECURITY_ALERT,
        subject=alert.sandbox_id or alert.owner_id or "director",
        owner_id=alert.owner_id,
        session_id=alert.session_id,
        data=data,
    )
    return True


def _repeated(session: Session, rules: AlertRules, since: datetime) -> Iterator[Due]:
    row, thresholds = SecurityEventRow, _thresholds(rules)
    whose = (col(row.type), col(row.owner_id), col(row.subject))
    where = (func.max(column) for column in (row.sandbox_id, row.session_id, row.run_id))
    counted = sqlalchemy.select(*whose, func.sum(row.times), *where)
    recent = counted.where(col(row.last_at) > since, col(row.type).in_(thresholds))
    for kind, owner_id, subject, count, *ids in session.execute(recent.group_by(*whose)):
        rule, least, what = thresholds[SecurityEventType(kind)]
        if count >= least:
            message = f"{count} {what} within {rules.window.total_seconds():.0f} s: {subject}"
            yield Due(rule, owner_id, subject, message, *ids)._replace(times=int(count))


def _thresholds(rules: AlertRules) -> dict[SecurityEventType, tuple[AlertRule, int, str]]:
    kind, rule = SecurityEventType, AlertRule
    known = {
        kind.LOGIN_FAILED: (rule.REPEATED_FAILED_LOGINS, rules.failed_logins, "failed logins"),
        kind.EGRESS_BLOCKED: (rule.REPEATED_BLOCKED_EGRESS, rules.blocked, "packets refused"),
        kind.OOM_KILL: (rule.OOM_LOOP, rules.oom_kills, "commands killed for want of memory"),
    }
    return {kind: rule for kind, rule in known.items() if rule[1]}


def _error_rates(session: Session, rules: AlertRules, since: datetime) -> Iterator[Due]:
    ended: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for row, at, failures in (
        (RunRow, RunRow.completed_at, _RUNS_FAILED),
        (ExecutionRow, ExecutionRow.ended_at, _COMMANDS_FAILED),
    ):
        for owner_id, status, count in session.execute(_ended(row, at, since)):
            ended[owner_id] += count
            failed[owner_id] += count if status in failures else 0
    for owner_id, total in sorted(ended.items()):
        if rules.is_high(total, failed[owner_id]):
            message = f"Error rate exceeded threshold: {failed[owner_id]} of {total} failed"
            rule = AlertRule.HIGH_ERROR_RATE
            yield Due(rule, owner_id, owner_id, message, times=failed[owner_id])


def _ended(row: Any, at: Any, since: datetime) -> Any:
    """How many of an owner's ended, by status; what ended just now has its output."""
    kept = col(row.output_dropped).is_(False)
    counted = sqlalchemy.select(row.owner_id, row.status, func.count())
    return counted.where(kept, col(at) > since).group_by(row.owner_id, row.status)
