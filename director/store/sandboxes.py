"""Queries of sandboxes that people make: what is wanted of one, where it stands, and its end."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from sqlalchemy import func
from sqlmodel import Session, col, select

from director.domain import lifetimes as domain
from director.domain.archives import Workspace
from director.domain.base import Json
from director.domain.departments import TicketState
from director.domain.errors import ConflictError, NotFoundError
from director.domain.events import EventType
from director.domain.git import Cloned
from director.domain.ids import RUN, SANDBOX, new_id
from director.domain.lifetimes import OPEN_SANDBOXES, ExecutionStatus, SandboxStatus
from director.domain.pages import PageQuery, Pagination
from director.domain.policies import (
    EffectivePolicy,
    ResourceLimits,
    SecurityPolicy,
    effective,
    held_by_director,
)
from director.domain.sandboxes import SandboxInfo
from director.domain.secrets import masked_variables
from director.domain.states import advance_sandbox
from director.domain.times import from_millis, utc_now
from director.domain.users import Principal
from director.domain.workflows import SandboxConfig, WorkflowConfig
from director.store import (
    archives,
    away,
    events,
    executions,
    hosts,
    locks,
    networks,
    placement,
    security,
    sessions,
    tickets,
)
from director.store.lists import paged
from director.store.ownership import seen_in, visible
from director.store.tables import ExecutionRow, HostRow, RunRow, SandboxRow
from director.store.users import UserRow


class Place(NamedTuple):
    """Whether a sandbox has a place, waits in line for one, is another host's, is made already, is
    not wanted any more, or was lost with its files; `granted` got one on the way, and are to be
    signalled."""

    state: Literal["held", "queued", "elsewhere", "runs", "unwanted", "lost"]
    row: SandboxRow
    granted: list[str] = []


_BEHIND_THE_END_MS = 60_000
"""The first command's own time-out ends it this much later, where nothing of ours can."""

_NOTHING: Json = {"cpu": 0.0, "memory": 0.0}

_KINDS = {
    SandboxStatus.RUNNING: EventType.SANDBOX_STARTED,
    SandboxStatus.PAUSED: EventType.SANDBOX_PAUSED,
    SandboxStatus.STOPPED: EventType.SANDBOX_STOPPED,
    SandboxStatus.EXPIRED: EventType.SANDBOX_EXPIRED,
    SandboxStatus.FAILED: EventType.SANDBOX_FAILED,
    SandboxStatus.DELETED: EventType.SANDBOX_DELETED,
}


def create(
    session: Session,
    principal: Principal,
    body: domain.SandboxCreate,
    disk_mib: int | None = None,
) -> SandboxRow:
    """Add a sandbox that is to be made, with its command as the first execution; its disk has so
    many MiB where nobody bounds it."""
    owner_id = principal.user_id
    if body.session_id is not None:
        owner_id = sessions.usable(session, principal, body.session_id).owner_id
    archives.check_source(session, body.workspace, owner_id)
    policy = _policy(session, principal, body).with_disk(disk_mib)
    row = SandboxRow(
        id=new_id(SANDBOX),
        owner_id=owner_id,
        session_id=body.session_id,
        name=body.name,
        image=body.image,
        environment=body.environment,
        resource_limits=_stated(body.resource_limits),
        security_policy=_stated(body.security_policy),
        security_profile_id=body.security_profile_id,
        network_mode=policy.network_mode,
        network_id=networks.named(session, principal, owner_id, policy.network_mode),
        effective_policy=policy.model_dump(mode="json"),
        workspace=_stated(body.workspace) if body.workspace else None,
        memory_mib=policy.resource_limits.memory or 0,
        lifetime_ms=policy.resource_limits.max_duration or domain.DEFAULT_LIFETIME_MS,
    )
    session.add(row)
    session.flush()
    if body.command is not None:
        command = domain.ExecuteBody(command=body.command)
        executions.add(session, row, command, row.lifetime_ms + _BEHIND_THE_END_MS, main=True)
    tell(session, row, EventType.SANDBOX_CREATED)
    return row


def check_quota(session: Session, owner_id: str, quota: int) -> None:
    """Raise ConflictError where somebody has more sandboxes than that, with those that runs will
    leave to them; nobody adds one of theirs until the transaction ends."""
    locks.get(session, UserRow, owner_id)
    living = (SandboxRow.owner_id == owner_id, col(SandboxRow.status).in_(OPEN_SANDBOXES))
    keeping = (col(RunRow.keep_sandbox).is_(True), col(RunRow.sandbox_id).is_(None))
    kept = (RunRow.owner_id == owner_id, sessions.still_open(), *keeping)
    count = session.exec(select(func.count()).select_from(SandboxRow).where(*living)).one()
    count += session.exec(select(func.count()).select_from(RunRow).where(*kept)).one()
    if count > quota:
        message = f"you have {quota} sandboxes, the most that one user may have at once: delete"
        raise ConflictError(
            f"{message} some, or raise DIRECTOR_SANDBOX_QUOTA", quota="sandboxes", limit=quota
        )


def _policy(session: Session, principal: Principal, body: domain.SandboxCreate) -> EffectivePolicy:
    given = security.policies(session, principal, body.security_profile_id, body.session_id)
    found = effective(
        [*given.limits, body.resource_limits],
        [*given.policies, body.security_policy],
        body.network_mode,
    )
    security.check_network(session, body.session_id, found.network_mode)
    if found.resource_limits.max_duration is not None:
        return found
    bounded = {"max_duration": domain.DEFAULT_LIFETIME_MS}
    limits = found.resource_limits.model_copy(update=bounded)
    return found.model_copy(update={"resource_limits": limits})


def _stated(body: Any) -> Json:
    stated: Json = body.model_dump(mode="json", exclude_none=True)
    return stated


def policy_of(row: SandboxRow) -> EffectivePolicy:
    """What counts for a sandbox."""
    return EffectivePolicy.model_validate(row.effective_policy)


def get(session: Session, principal: Principal, id: str, *, ending: bool = False) -> SandboxRow:
    """The sandbox of that id, if the principal may see it; with `ending` also one that is deleted
    and still waits for its end. Raises NotFoundError."""
    row = session.get(SandboxRow, id)
    if row is None or not visible(principal, row.owner_id):
        raise NotFoundError("sandbox", id)
    if row.deleted_at is not None and (SandboxStatus(row.status).ended or not ending):
        raise NotFoundError("sandbox", id)
    return row


def locked(session: Session, principal: Principal, id: str, *, ending: bool = False) -> SandboxRow:
    """The same, for who is to change it or what is in it."""
    locks.get(session, SandboxRow, id)
    return get(session, principal, id, ending=ending)


def listed(
    session: Session,
    principal: Principal,
    query: PageQuery,
    status: SandboxStatus | None,
    session_id: str | None,
) -> tuple[list[domain.Sandbox], Pagination]:
    """A page of the sandboxes that the principal may see."""
    conditions: list[Any] = [col(SandboxRow.deleted_at).is_(None)]
    conditions += seen_in(session, principal, SandboxRow, session_id)
    if status is not None:
        conditions.append(SandboxRow.status == status)
    rows, pagination = paged(session, SandboxRow, conditions, query)
    return _views(session, rows), pagination


def view(session: Session, row: SandboxRow) -> domain.Sandbox:
    """The sandbox as the API shows it; values of variables with secret-looking names hidden."""
    return _views(session, [row])[0]


def _views(session: Session, rows: list[SandboxRow]) -> list[domain.Sandbox]:
    mains = executions.mains(session, [row.id for row in rows])
    found = hosts.named(session, [row.host_id for row in rows])
    return [_view(row, mains.get(row.id), found.get(row.host_id or "")) for row in rows]


def _view(row: SandboxRow, main: ExecutionRow | None, host: HostRow | None) -> domain.Sandbox:
    process = None
    if main is not None:
        code = (main.result or {}).get("exitCode")
        status = ExecutionStatus(main.status)
        process = domain.MainProcess(execution_id=main.id, status=status, exit_code=code)
    shown = {
        "environment": masked_variables(row.environment),
        "command": main.command["command"] if main else None,
        "main_process": process,
        "host": away.host_of(row, host),
        "workspace": Workspace.of(row.cloned),
    }
    return domain.Sandbox.model_validate({**row.model_dump(), **shown})


def present(session: Session, id: str) -> SandboxStatus:
    """Where a sandbox stands now."""
    statement = select(col(SandboxRow.status)).where(SandboxRow.id == id)
    return SandboxStatus(session.exec(statement).one())


def input_of(row: SandboxRow) -> domain.SandboxInput:
    """What `SandboxWorkflow` gets for a sandbox."""
    return domain.SandboxInput(
        sandbox_id=row.id,
        owner_id=row.owner_id,
        session_id=row.session_id,
        priority=row.priority,
        lifetime_ms=row.lifetime_ms,
    )


def note_started(session: Session, id: str, temporal_run_id: str) -> None:
    """Write which execution of Temporal carries a sandbox, unless that is known."""
    row = locks.get_one(session, SandboxRow, id)
    if row.temporal_run_id is None:
        row.temporal_run_id = temporal_run_id
        session.add(row)


def want_stop(session: Session, row: SandboxRow) -> None:
    """Write the intent to stop; one that is stopped stays so. Raises ConflictError for one that
    is still being made."""
    status = SandboxStatus(row.status)
    if status in (SandboxStatus.STOPPING, SandboxStatus.STOPPED) or status.ended:
        return
    if status.beginning:
        raise _conflict(row, "is still being made; delete it instead")
    row.stop_wanted = True
    _intend(session, row)
    move(session, row, SandboxStatus.STOPPING)


def want_pause(session: Session, row: SandboxRow, pause: bool) -> None:
    """Write the intent to hold all processes, or to let them go on. Raises ConflictError where
    none run."""
    if row.status not in (SandboxStatus.RUNNING, SandboxStatus.PAUSED):
        raise _conflict(row, f"is {row.status}: only one that runs can be paused and resumed")
    if pause and (run_id := used_by(session, row.id)):
        message = f"run {run_id} works in sandbox {row.id}: pause its workflow instead"
        raise ConflictError(message, sandboxId=row.id, runId=run_id)
    if row.pause_wanted != pause:
        row.pause_wanted = pause
        _intend(session, row)


def used_by(session: Session, id: str) -> str | None:
    """A run that works in a sandbox, if one does."""
    statement = select(RunRow.id).where(RunRow.sandbox_id == id, sessions.still_open())
    return session.exec(statement.limit(1)).first()


def joined(session: Session, id: str) -> SandboxRow:
    """The sandbox in which a run is to work, locked. Raises ConflictError where it does not
    run."""
    row = locks.get_one(session, SandboxRow, id)
    if not works(row):
        status = "to be paused" if row.status == SandboxStatus.RUNNING else row.status
        raise _conflict(row, f"is {status}: a run can begin only in one that runs")
    if not executions.takes_commands(row):
        raise _conflict(row, "takes no commands: its policy forbids them (allowExec)")
    return row


def works(row: SandboxRow) -> bool:
    """Whether commands run in a sandbox, and nobody wants it otherwise."""
    wanted = not (row.pause_wanted or row.stop_wanted or row.delete_wanted)
    return row.status == SandboxStatus.RUNNING and wanted


def keep(session: Session, run: RunRow, name: str, config: WorkflowConfig) -> SandboxRow:
    """Let the sandbox of a run that ends be a sandbox like any other. It is `creating` until its
    workflow has found it where it is; its lifetime begins then."""
    stated = config.sandbox or SandboxConfig()
    policy = EffectivePolicy.model_validate(run.effective_policy).with_held(held_by_director())
    lifetime = policy.resource_limits.max_duration or domain.DEFAULT_LIFETIME_MS
    limits = policy.resource_limits.model_copy(update={"max_duration": lifetime})
    policy = policy.model_copy(update={"resource_limits": limits})
    row = SandboxRow(
        id=SANDBOX + run.id.removeprefix(RUN),
        owner_id=run.owner_id,
        session_id=run.session_id,
        name=name,
        image=run.image,
        resolved_image=run.resolved_image,
        cloned=run.cloned,
        resource_limits=_stated(stated.resource_limits or ResourceLimits()),
        security_policy=_stated(stated.security_policy or SecurityPolicy()),
        security_profile_id=config.security_profile_id,
        network_mode=policy.network_mode,
        effective_policy=policy.model_dump(mode="json"),
        priority=run.priority,
        host_id=run.host_id,
        sandbox_epoch=run.sandbox_epoch,
        memory_mib=run.memory_mib or 0,
        lifetime_ms=lifetime,
    )
    session.add(row)
    run.sandbox_id = row.id
    session.add(run)
    session.flush()
    tickets.hand_over(session, run.id, row.id)
    tell(session, row, EventType.SANDBOX_CREATED)
    return row


def want_delete(session: Session, row: SandboxRow) -> None:
    """Take a sandbox out of sight, and write that it is to end."""
    row.delete_wanted, row.deleted_at = True, utc_now()
    row.touch()
    session.add(row)
    session.flush()


def want_delete_all(session: Session, session_id: str) -> list[str]:
    """The same, of all sandboxes of a session that have not ended; gives their ids."""
    left = (SandboxRow.session_id == session_id, col(SandboxRow.status).in_(OPEN_SANDBOXES))
    rows = locks.each(session, SandboxRow, list(session.exec(select(SandboxRow.id).where(*left))))
    for row in rows:
        if not row.delete_wanted:
            want_delete(session, row)
    return [row.id for row in rows]


def _intend(session: Session, row: SandboxRow) -> None:
    row.intents += 1
    row.touch()
    session.add(row)


def execute(
    session: Session, principal: Principal, id: str, body: domain.ExecuteBody
) -> ExecutionRow:
    """Add a command to a sandbox that runs, or is still being made. Raises ConflictError for any
    other."""
    row = locked(session, principal, id)
    executions.check_allowed(row)
    status = SandboxStatus(row.status)
    if not (status.beginning or status is SandboxStatus.RUNNING) or row.pause_wanted:
        raise _conflict(row, f"is {row.status}: commands run only in one that runs")
    away.check(session, row)
    return executions.add(session, row, body, body.timeout)


def check_runs(row: SandboxRow) -> None:
    """Raise ConflictError where the sandbox does not run."""
    if row.status not in (SandboxStatus.RUNNING, SandboxStatus.PAUSED):
        raise _conflict(row, f"is {row.status}: only one that runs can be asked")


def check_has_files(row: SandboxRow) -> None:
    """Raise ConflictError where the sandbox has no files: not yet, or not any more."""
    status = SandboxStatus(row.status)
    if status.beginning or status.ended:
        raise _conflict(row, f"is {row.status}: it has no files now")


def _conflict(row: SandboxRow, why: str) -> ConflictError:
    return ConflictError(f"sandbox {row.id} {why}", sandboxId=row.id, status=row.status)


def is_wanted(row: SandboxRow) -> bool:
    """Whether a sandbox that is being made is to be made to its end."""
    return SandboxStatus(row.status).beginning and not row.delete_wanted and row.closed_as is None


def take_place(session: Session, id: str, host_id: str) -> Place:
    """Take one of the places of all hosts for a sandbox that is to be made on a host, unless that
    is done, or it is not wanted any more."""
    row = locks.get_one(session, SandboxRow, id)
    if not is_wanted(row):
        alive = not SandboxStatus(row.status).ended and row.closed_as is None
        return Place("runs" if alive and not row.delete_wanted else "unwanted", row)
    if row.host_id is not None:
        return Place("held" if row.host_id == host_id else "elsewhere", row)
    if row.resolved_image is not None:
        return Place("lost", row)  # a run has left it behind, on a host that is gone
    taken = tickets.take_place(session, row, hosts.total_places(session))
    return Place("held" if taken.state is TicketState.HELD else "queued", row, taken.granted)


def leave_place(session: Session, id: str) -> list[str]:
    """Give back the place of a sandbox that no host has room for; gives those who get it."""
    locks.get_one(session, SandboxRow, id)
    return tickets.leave_place(session, id, hosts.total_places)


def begin(
    session: Session,
    id: str,
    host_id: str,
    info: SandboxInfo,
    usage: Json | None = None,
    cloned: Cloned | None = None,
) -> bool:
    """Write that a sandbox runs; False where it is not wanted any more, or is another host's."""
    row = locks.get_one(session, SandboxRow, id)
    if row.host_id == host_id and row.status == SandboxStatus.RUNNING:
        return not row.delete_wanted
    if not is_wanted(row) or row.host_id != host_id:
        return False
    now = utc_now()
    row.image, row.resolved_image = info.image, info.resolved_image
    row.cloned = cloned.model_dump(mode="json") if cloned is not None else None
    row.started_at, row.expires_at = now, now + from_millis(row.lifetime_ms)
    row.effective_policy = policy_of(row).with_held(info.held).model_dump(mode="json")
    move(session, row, SandboxStatus.RUNNING, usage)
    return True


def pulling(session: Session, id: str) -> None:
    """Write that the image of a sandbox that is being made is fetched first."""
    move(session, locks.get_one(session, SandboxRow, id), SandboxStatus.PULLING)


def fail(session: Session, id: str, error: Json) -> None:
    """Write why a sandbox could not be made; that it has failed, `settle` writes."""
    row = locks.get_one(session, SandboxRow, id)
    row.error = error
    row.touch()
    session.add(row)


def steer(
    session: Session, id: str, intent: int, status: SandboxStatus, usage: Json | None = None
) -> list[str]:
    """Write what was brought about for an intent; gives who gets the place of one that stopped."""
    row = locks.get_one(session, SandboxRow, id)
    if SandboxStatus(row.status).ended:
        return []
    row.steered = max(row.steered, intent)
    move(session, row, status, usage)
    session.add(row)
    if status is not SandboxStatus.STOPPED:
        return []
    executions.cancel_all(session, id)
    left = tickets.leave_place(session, id, hosts.total_places)
    return [*left, *placement.without_room(session)]


def settle(session: Session, end: domain.SandboxEnd) -> list[str]:
    """Write the end of a sandbox of which nothing is left, once; gives who gets its place."""
    row = locks.get_one(session, SandboxRow, end.sandbox_id)
    if not SandboxStatus(row.status).ended:
        row.ended_at = utc_now()
        row.deleted_at = row.deleted_at or (row.ended_at if row.delete_wanted else None)
        move(session, row, SandboxStatus.DELETED if row.delete_wanted else end.status)
        executions.cancel_all(session, row.id)
    left = tickets.leave_place(session, row.id, hosts.total_places)
    return [*left, *placement.without_room(session)]


def move(
    session: Session, row: SandboxRow, wanted: SandboxStatus, usage: Json | None = None
) -> bool:
    """Advance a sandbox's status, with the event; False where no such move exists."""
    status = advance_sandbox(SandboxStatus(row.status), wanted)
    if status == row.status:
        return False
    resumed = row.status == SandboxStatus.PAUSED and status is SandboxStatus.RUNNING
    row.status = status
    row.touch()
    session.add(row)
    session.flush()
    kind = EventType.SANDBOX_RESUMED if resumed else _KINDS.get(status)
    if kind is not None:
        tell(session, row, kind, usage)
    return True


def tell(
    session: Session, row: SandboxRow, kind: EventType, usage: Json | None = None, **more: Any
) -> None:
    """Append an event of the sandbox to the log; `usage` is what its host has measured."""
    data = {
        "sandboxId": row.id,
        "sessionId": row.session_id,
        "event": kind.partition(".")[2],
        "status": row.status,
        "resourceUsage": usage or (_NOTHING if _is_idle(row) else None),
        **more,
    }
    events.append(
        session, kind, subject=row.id, owner_id=row.owner_id, session_id=row.session_id, data=data
    )


def _is_idle(row: SandboxRow) -> bool:
    """Whether it has no container, or one that is stopped."""
    return row.host_id is None or not SandboxStatus(row.status).placed


def open_ones(session: Session, *, begun: bool, age: timedelta = timedelta(0)) -> list[SandboxRow]:
    """The sandboxes that have not ended and changed so long ago: those whose workflow has begun,
    or those whose workflow has not."""
    known = col(SandboxRow.temporal_run_id).is_not(None)
    old = col(SandboxRow.updated_at) <= utc_now() - age
    statement = select(SandboxRow).where(col(SandboxRow.status).in_(OPEN_SANDBOXES), old)
    return list(session.exec(statement.where(known if begun else ~known)))


def known(session: Session, ids: Iterable[str]) -> dict[str, SandboxStatus]:
    """Those of the ids that are of a sandbox here, and where it stands."""
    columns = select(SandboxRow.id, SandboxRow.status)
    found = session.exec(columns.where(col(SandboxRow.id).in_(list(ids))))
    return {id: SandboxStatus(status) for id, status in found}
