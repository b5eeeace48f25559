"""Security events: written in the transaction of what happened, counted, and forgotten."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func
from sqlmodel import Session, col, select

from director.domain import security_events as domain
from director.domain.base import Json
from director.domain.ids import EVENT, new_id
from director.domain.pages import Pagination
from director.domain.security_events import SEVERITIES, SecurityEventType, Severity
from director.domain.times import utc_now
from director.domain.users import Principal
from director.store.inserts import insert_into
from director.store.lists import paged
from director.store.ownership import owned
from director.store.tables import (
    NetworkRow,
    ProfileRow,
    SandboxRow,
    SecurityEventRow,
    SessionRow,
)

INSTALLATION = ""
"""The owner of what only admins see."""

_SHOWN = 20
_DAY = timedelta(days=1)


def new(kind: SecurityEventType, **fields: Any) -> SecurityEventRow:
    """A security event of this moment, which is not written yet."""
    now, fields = utc_now(), {"severity": SEVERITIES[kind], **fields}
    return SecurityEventRow(id=new_id(EVENT), type=kind, created_at=now, last_at=now, **fields)


def note(
    session: Session,
    kind: SecurityEventType,
    *,
    owner_id: str,
    subject: str,
    rule: str,
    message: str,
    severity: Severity | None = None,
    sandbox_id: str | None = None,
    session_id: str | None = None,
    run_id: str | None = None,
    details: Json | None = None,
    times: int = 1,
    merged: bool = True,
) -> None:
    """Write what has happened. `merged`: what comes again in a minute, of the same type, severity
    and subject, is counted in one row, so that nobody can fill the table by trying."""
    level = severity or SEVERITIES[kind]
    row = new(
        kind,
        owner_id=owner_id,
        severity=level,
        subject=subject,
        sandbox_id=sandbox_id,
        session_id=session_id,
        run_id=run_id,
        rule=rule,
        message=message,
        details=details or {},
        times=times,
    )
    if merged:
        row.bucket = f"{kind} {level} {subject} {row.created_at:%Y-%m-%dT%H:%M}"
    insert = insert_into(session, SecurityEventRow).values(**row.model_dump())
    newest = {name: insert.excluded[name] for name in ("last_at", "message", "details")}
    counted = col(SecurityEventRow.times) + insert.excluded["times"]
    session.exec(
        insert.on_conflict_do_update(index_elements=["bucket"], set_={**newest, "times": counted})
    )


def killed(
    session: Session,
    kind: SecurityEventType,
    *,
    owner_id: str,
    sandbox_id: str,
    session_id: str | None,
    run_id: str | None = None,
    **details: Any,
) -> None:
    """Write that a command was killed, for want of memory or of time."""
    memory = kind is SecurityEventType.OOM_KILL
    why = "ran out of memory" if memory else "ran longer than it was given"
    note(
        session,
        kind,
        owner_id=owner_id,
        subject=sandbox_id,
        sandbox_id=sandbox_id,
        session_id=session_id,
        run_id=run_id,
        rule="memory" if memory else "timeout",
        message=f"a command in sandbox {sandbox_id} {why} and was killed",
        details=details,
    )


def exec_denied(session: Session, sandbox_id: str) -> None:
    """Write that a command was refused, since the policy of the sandbox allows none."""
    row = session.get_one(SandboxRow, sandbox_id)
    note(
        session,
        SecurityEventType.EXEC_DENIED,
        owner_id=row.owner_id,
        subject=row.id,
        sandbox_id=row.id,
        session_id=row.session_id,
        rule="allowExec",
        message=f"a command was refused: the policy of sandbox {row.id} allows none",
    )


def login_failed(session: Session, user_id: str | None, username: str | None) -> None:
    """Write that somebody did not get in. A name that is no user's is not kept: it may be a
    password in the wrong field."""
    note(
        session,
        SecurityEventType.LOGIN_FAILED,
        owner_id=INSTALLATION,
        subject=user_id or "unknown",
        rule="login",
        message=f"a login {f'as {username!r}' if username else 'of somebody unknown'} failed",
        details={"userId": user_id, "username": username},
    )


def changed(
    session: Session,
    row: ProfileRow | NetworkRow | SessionRow,
    message: str,
    **details: Any,
) -> None:
    """Write that somebody has changed what is allowed."""
    note(
        session,
        SecurityEventType.POLICY_CHANGED,
        owner_id=row.owner_id,
        subject=row.id,
        session_id=_session_of(row),
        rule=row.id,
        message=message,
        details=details,
        merged=False,
    )


def _session_of(row: ProfileRow | NetworkRow | SessionRow) -> str | None:
    if isinstance(row, ProfileRow):
        return None
    return row.id if isinstance(row, SessionRow) else row.session_id


def listed(
    session: Session, principal: Principal, query: domain.SecurityEventsQuery
) -> tuple[list[domain.SecurityEvent], Pagination]:
    """A page of the security events that the principal may see."""
    row = SecurityEventRow
    conditions: list[Any] = [*owned(principal, row)]
    for name in ("severity", "type", "sandbox_id", "session_id", "run_id"):
        if (value := getattr(query, name)) is not None:
            conditions.append(col(getattr(row, name)) == value)
    if query.since is not None:
        conditions.append(col(row.last_at) >= query.since)
    if query.until is not None:
        conditions.append(col(row.created_at) <= query.until)
    rows, pagination = paged(session, row, conditions, query)
    return [view(each) for each in rows], pagination


def view(row: SecurityEventRow) -> domain.SecurityEvent:
    """The event as the API shows it."""
    shown = {**row.model_dump(), "timestamp": row.created_at, "count": row.times}
    return domain.SecurityEvent.model_validate(shown)


def summary(session: Session, principal: Principal) -> domain.SecuritySummary:
    """How many security events the principal may see, by severity, type and sandbox."""
    now = utc_now()
    return domain.SecuritySummary(
        last24h=_counts(session, principal, now - _DAY),
        last7d=_counts(session, principal, now - 7 * _DAY),
        generated_at=now,
    )


def _counts(session: Session, principal: Principal, since: datetime) -> domain.Counts:
    row = SecurityEventRow
    seen = [col(row.last_at) >= since, *owned(principal, row)]
    times = func.sum(col(row.times))

    def by(column: Any, *conditions: Any) -> dict[str, int]:
        grouped = select(column, times).where(*seen, *conditions).group_by(column)
        most = grouped.order_by(times.desc(), column).limit(_SHOWN)
        return {key: int(count) for key, count in session.exec(most)}

    severities = by(col(row.severity))
    sandboxes = by(col(row.sandbox_id), col(row.sandbox_id).is_not(None))
    return domain.Counts(
        total=sum(severities.values()),
        by_severity={level: severities.get(level, 0) for level in Severity},
        by_type={SecurityEventType(kind): count for kind, count in by(col(row.type)).items()},
        by_sandbox=[
            domain.SandboxCount(sandbox_id=id, count=count) for id, count in sandboxes.items()
        ],
    )


def purge(session: Session, before: datetime, limit: int) -> int:
    """Forget at most `limit` of the events that were last seen before a moment; gives how many."""
    old = col(SecurityEventRow.last_at) < before
    oldest = select(SecurityEventRow.id).where(old).order_by(col(SecurityEventRow.last_at))
    ids = list(session.exec(oldest.limit(limit)))
    gone = delete(SecurityEventRow).where(col(SecurityEventRow.id).in_(ids))
    return session.exec(gone).rowcount
