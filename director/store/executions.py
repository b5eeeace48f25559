"""Queries of commands in sandboxes that people make, fenced so that an old attempt of an activity
never overwrites a newer."""

from dataclasses import dataclass
from datetime import timedelta

from sqlmodel import Session, col, select

from director.domain import lifetimes as domain
from director.domain.base import Json
from director.domain.errors import AuthorizationError, NotFoundError
from director.domain.ids import EXECUTION, new_id
from director.domain.lifetimes import ExecutionStatus, SandboxStatus
from director.domain.pages import PageQuery, Pagination
from director.domain.sandboxes import Cause
from director.domain.security_events import SecurityEventType
from director.domain.times import utc_now
from director.store import locks, security_events
from director.store.lists import paged
from director.store.tables import ExecutionRow, SandboxRow

_OPEN = [status for status in ExecutionStatus if not status.ended]
_KILLED: dict[str | None, SecurityEventType] = {
    Cause.OOM: SecurityEventType.OOM_KILL,
    Cause.TIMEOUT: SecurityEventType.TIMEOUT_KILL,
}
_OVER: Json = {"code": "CANCELLED", "message": "its sandbox was stopped, or has ended"}


class StaleExecutionError(Exception):
    """Another attempt has the execution, or it has ended: this one writes nothing any more."""


def add(
    session: Session,
    sandbox: SandboxRow,
    body: domain.ExecuteBody,
    timeout_ms: int,
    *,
    main: bool = False,
) -> ExecutionRow:
    """Add a command that is to run in a sandbox."""
    row = ExecutionRow(
        id=new_id(EXECUTION),
        sandbox_id=sandbox.id,
        owner_id=sandbox.owner_id,
        main=main,
        command={"command": body.command},
        environment=body.environment,
        stdin=body.input(),
        workdir=body.workdir,
        timeout_ms=timeout_ms,
    )
    session.add(row)
    session.flush()
    return row


def takes_commands(sandbox: SandboxRow) -> bool:
    """Whether the policy of a sandbox lets commands begin in it."""
    return sandbox.effective_policy.get("securityPolicy", {}).get("allowExec") is not False


def check_allowed(sandbox: SandboxRow) -> None:
    """Raise AuthorizationError where the sandbox's policy allows no execute."""
    if not takes_commands(sandbox):
        message = f"the policy of sandbox {sandbox.id} allows no commands beside its own"
        raise AuthorizationError(message, sandboxId=sandbox.id, rule="allowExec")


def get(session: Session, sandbox: SandboxRow, id: str) -> ExecutionRow:
    """An execution of a sandbox. Raises NotFoundError."""
    row = session.get(ExecutionRow, id)
    if row is None or row.sandbox_id != sandbox.id:
        raise NotFoundError("execution", id)
    return row


def listed(
    session: Session, sandbox: SandboxRow, query: PageQuery
) -> tuple[list[ExecutionRow], Pagination]:
    """A page of the executions of a sandbox."""
    return paged(session, ExecutionRow, [ExecutionRow.sandbox_id == sandbox.id], query)


def mains(session: Session, sandbox_ids: list[str]) -> dict[str, ExecutionRow]:
    """The first commands of sandboxes, by sandbox."""
    of_those = (col(ExecutionRow.sandbox_id).in_(sandbox_ids), col(ExecutionRow.main))
    return {row.sandbox_id: row for row in session.exec(select(ExecutionRow).where(*of_those))}


def has_ended(session: Session, id: str) -> bool:
    """Whether nothing follows in an execution."""
    status = session.exec(select(ExecutionRow.status).where(ExecutionRow.id == id)).one()
    return ExecutionStatus(status).ended


def queued(session: Session, sandbox_id: str) -> list[ExecutionRow]:
    """The commands of a sandbox that wait, oldest first."""
    waiting = (ExecutionRow.sandbox_id == sandbox_id, ExecutionRow.status == ExecutionStatus.QUEUED)
    return list(session.exec(select(ExecutionRow).where(*waiting).order_by(col(ExecutionRow.id))))


def open_ones(session: Session, age: timedelta, limit: int) -> list[tuple[ExecutionRow, str]]:
    """Commands of sandboxes that run which have not ended and changed so long ago, the oldest
    first, with the host of each."""
    statement = (
        select(ExecutionRow, col(SandboxRow.host_id))
        .join(SandboxRow, col(SandboxRow.id) == ExecutionRow.sandbox_id)
        .where(
            col(ExecutionRow.status).in_(_OPEN),
            col(ExecutionRow.updated_at) <= utc_now() - age,
            SandboxRow.status == SandboxStatus.RUNNING,
        )
    )
    rows = session.execute(statement.order_by(col(ExecutionRow.updated_at)).limit(limit))
    return [(row, host_id) for row, host_id in rows if host_id is not None]


@dataclass(frozen=True)
class Opened:
    """An execution, its sandbox, and whether there is anything to do."""

    execution: ExecutionRow
    sandbox: SandboxRow
    go: bool


def open_one(session: Session, id: str, attempt: int) -> Opened:
    """Write `running`, unless the execution has ended; one of a sandbox that does not run ends.

    Raises StaleExecutionError where a later attempt has it."""
    row, sandbox = _rows(session, id)
    status = ExecutionStatus(row.status)
    if status.ended:
        return Opened(row, sandbox, go=False)
    if row.activity_attempt > attempt:
        raise StaleExecutionError("a later attempt has this execution")
    row.activity_attempt = attempt
    if sandbox.status not in (SandboxStatus.RUNNING, SandboxStatus.PAUSED):
        _end(session, row, ExecutionStatus.CANCELLED, None, _OVER)
        return Opened(row, sandbox, go=False)
    row.status, row.started_at = ExecutionStatus.RUNNING, row.started_at or utc_now()
    row.touch()
    session.add(row)
    session.flush()
    return Opened(row, sandbox, go=True)


def take_over(session: Session, id: str) -> Opened:
    """Take an execution from whoever performs it, who writes nothing of it any more, to end it."""
    row, sandbox = _rows(session, id)
    if ExecutionStatus(row.status).ended:
        return Opened(row, sandbox, go=False)
    row.status, row.activity_attempt = ExecutionStatus.RUNNING, row.activity_attempt + 1
    session.add(row)
    session.flush()
    return Opened(row, sandbox, go=True)


def require(session: Session, id: str, attempt: int) -> ExecutionRow:
    """The execution, if this attempt has it and it goes on. Raises StaleExecutionError."""
    row = locks.get_one(session, ExecutionRow, id)
    if row.activity_attempt != attempt or row.status != ExecutionStatus.RUNNING:
        raise StaleExecutionError(f"the execution is {row.status}, or another attempt has it")
    return row


def goes_on(session: Session, id: str, attempt: int) -> bool:
    """Whether an execution has not ended; it stays so until the transaction ends. Raises
    StaleExecutionError where another attempt has it."""
    row, _ = _rows(session, id)
    if ExecutionStatus(row.status).ended:
        return False
    require(session, id, attempt)
    return True


def close(
    session: Session,
    id: str,
    attempt: int,
    status: ExecutionStatus,
    result: Json | None,
    error: Json | None = None,
) -> bool:
    """Write the end of an execution; False where it has ended, which counts."""
    if not goes_on(session, id, attempt):
        return False
    row, sandbox = _rows(session, id)
    _end(session, row, status, result, error)
    if (kind := _KILLED.get((result or {}).get("cause"))) is not None:
        security_events.killed(
            session,
            kind,
            owner_id=sandbox.owner_id,
            sandbox_id=sandbox.id,
            session_id=sandbox.session_id,
            executionId=id,
        )
    return True


def cancel_all(session: Session, sandbox_id: str) -> None:
    """End every command of a sandbox of which nothing runs any more."""
    _end_all(session, sandbox_id, ExecutionStatus.CANCELLED, None, _OVER)


def lose_all(session: Session, sandbox_id: str, error: Json) -> None:
    """End every command of a sandbox that is lost: how each of them ended, nobody knows."""
    _end_all(session, sandbox_id, ExecutionStatus.FAILED, {"cause": Cause.LOST}, error)


def _end_all(
    session: Session, sandbox_id: str, status: ExecutionStatus, result: Json | None, error: Json
) -> None:
    going = (ExecutionRow.sandbox_id == sandbox_id, col(ExecutionRow.status).in_(_OPEN))
    ids = list(session.exec(select(ExecutionRow.id).where(*going)))
    for row in locks.each(session, ExecutionRow, ids):
        if not ExecutionStatus(row.status).ended:
            _end(session, row, status, result, error)


def _rows(session: Session, id: str) -> tuple[ExecutionRow, SandboxRow]:
    sandbox_id = session.get_one(ExecutionRow, id).sandbox_id
    sandbox = locks.get_one(session, SandboxRow, sandbox_id)
    return locks.get_one(session, ExecutionRow, id), sandbox


def _end(
    session: Session,
    row: ExecutionRow,
    status: ExecutionStatus,
    result: Json | None,
    error: Json | None,
) -> None:
    row.status, row.result, row.error, row.ended_at = status, result, error, utc_now()
    row.stdin = None
    row.touch()
    session.add(row)
    session.flush()
