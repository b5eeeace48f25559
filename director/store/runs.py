"""Queries of runs: start, look, intend; what steps write is in `steps`."""

from functools import cache

from sqlalchemy import Executable, bindparam, func, literal_column
from sqlmodel import Session, col, select

from director.domain import runs as domain
from director.domain.base import Json
from director.domain.departments import Ceiling, DepartmentConfig, Wish
from director.domain.errors import ConflictError, NotFoundError, ValidationError
from director.domain.events import EventType
from director.domain.ids import RUN, new_id
from director.domain.pages import PageQuery, Pagination
from director.domain.plans import plan_of
from director.domain.runs import RunStatus
from director.domain.steps import step_ids
from director.domain.users import Principal
from director.domain.workflows import Definition, StartWorkflow
from director.store import locks, sandboxes, sessions, standing, workflows
from director.store.lists import paged
from director.store.matching import check_startable, matching
from director.store.tables import DepartmentRow, RunRow, SandboxRow, SessionRow, StepRow
from director.store.users import UserRow

MAX_SIGNALS = 2000
"""Signals and pauses that one run takes; Temporal bounds its history, and a run must always be able
to end."""


def create(session: Session, principal: Principal, workflow_id: str, body: StartWorkflow) -> RunRow:
    """Add a run, queued. Raises ConflictError while another run of the workflow is on."""
    workflow = workflows.locked(session, principal, workflow_id)
    parent = sessions.usable(session, principal, workflow.session_id)
    if going := _open_run(session, workflow_id):
        raise ConflictError(f"workflow {workflow_id} is running already", runId=going)
    definition = workflows.definition(session, workflow_id, workflow.version)
    _check_startable(session, parent, definition)
    wanted = definition.config
    run = RunRow(
        id=new_id(RUN),
        workflow_id=workflow.id,
        version=workflow.version,
        session_id=workflow.session_id,
        owner_id=workflow.owner_id,
        environment=body.environment,
        context=body.context,
        priority=body.priority or definition.priority,
        total_steps=len(definition.steps),
        image=wanted.sandbox.image if wanted.sandbox else None,
        keep_sandbox=bool(wanted.keep_sandbox),
    )
    sandbox = _join(session, run, wanted.sandbox_id) if wanted.sandbox_id else None
    session.add(run)
    session.flush()
    _add_steps(session, run, definition)
    if sandbox is not None:
        _check_ceilings(session, run, sandbox)
    workflow.latest_run_id, workflow.status = run.id, run.status
    workflow.touch()
    session.add(workflow)
    standing.tell(session, run, EventType.WORKFLOW_QUEUED)
    sessions.tell(session, parent, EventType.SESSION_METRICS)
    return run


def check_quota(session: Session, owner_id: str, quota: int) -> None:
    """Raise ConflictError where more runs of somebody than that are queued; nobody adds one of
    theirs until the transaction ends."""
    locks.get(session, UserRow, owner_id)
    if session.execute(_queued(), {"owner_id": owner_id}).scalar_one() > quota:
        message = f"{quota} of your runs are queued, the most that one user may have: wait for some"
        raise ConflictError(
            f"{message} to start, or raise DIRECTOR_RUN_QUOTA", quota="runs", limit=quota
        )


@cache
def _queued() -> Executable:
    queued = col(RunRow.status) == literal_column(f"'{RunStatus.QUEUED}'")
    counted = select(func.count()).select_from(RunRow)
    return counted.where(col(RunRow.owner_id) == bindparam("owner_id"), queued)


def get(session: Session, principal: Principal, workflow_id: str, run_id: str) -> RunRow:
    """A run of a workflow, if the principal may see it. Raises NotFoundError."""
    workflows.get(session, principal, workflow_id)
    row = session.get(RunRow, run_id)
    if row is None or row.workflow_id != workflow_id:
        raise NotFoundError("run", run_id)
    return row


def latest(session: Session, principal: Principal, workflow_id: str) -> RunRow:
    """The latest run of a workflow. Raises ConflictError where it was never started."""
    workflow = workflows.get(session, principal, workflow_id)
    if workflow.latest_run_id is None:
        raise ConflictError(f"workflow {workflow_id} was never started", status=workflow.status)
    return session.get_one(RunRow, workflow.latest_run_id)


def latest_locked(session: Session, principal: Principal, workflow_id: str) -> RunRow:
    """The same, for who is to change it."""
    return locks.get_one(session, RunRow, latest(session, principal, workflow_id).id)


def status(session: Session, principal: Principal, workflow_id: str) -> domain.RunView:
    """The latest run of a workflow; of one that was never started, what a run would be."""
    workflow = workflows.get(session, principal, workflow_id)
    if workflow.latest_run_id is not None:
        return standing.view(session, session.get_one(RunRow, workflow.latest_run_id))
    definition = workflows.definition(session, workflow_id, workflow.version)
    return domain.RunView(
        workflow_id=workflow.id,
        session_id=workflow.session_id,
        status=RunStatus.CREATED,
        total_steps=len(definition.steps),
        definition_version=workflow.version,
        priority=definition.priority,
        created_at=workflow.created_at,
    )


def listed(
    session: Session, principal: Principal, workflow_id: str, query: PageQuery
) -> tuple[list[domain.RunView], Pagination]:
    """A page of the runs of a workflow; their steps without results, which may be large."""
    workflows.get(session, principal, workflow_id)
    rows, pagination = paged(session, RunRow, [RunRow.workflow_id == workflow_id], query)
    return standing.page_of_views(session, rows), pagination


def input_of(session: Session, run: RunRow) -> domain.RunInput:
    """What `DirectorWorkflow` gets for a run."""
    definition = workflows.definition(session, run.workflow_id, run.version)
    return domain.RunInput(
        run_id=run.id,
        workflow_id=run.workflow_id,
        session_id=run.session_id,
        owner_id=run.owner_id,
        department_id=definition.department_id,
        priority=run.priority,
        timeout_ms=definition.config.run_timeout,
        paused=run.pause_wanted,
        on_sandbox_lost=definition.config.on_sandbox_lost or domain.OnSandboxLost.REPEAT,
        plan=plan_of(definition),
    )


def note_started(session: Session, run_id: str, temporal_run_id: str) -> None:
    """Write which execution of Temporal carries a run, unless its first step has done so."""
    run = locks.get_one(session, RunRow, run_id)
    if run.temporal_run_id is None:
        run.temporal_run_id = temporal_run_id
        session.add(run)


def want_cancel(session: Session, run: RunRow) -> None:
    """Write the intent to cancel. Raises ConflictError where the run has ended."""
    _check_open(run)
    run.cancel_wanted = True
    standing.move(session, run, RunStatus.CANCELLING, EventType.WORKFLOW_CANCELLING)


def present(session: Session, run_id: str) -> RunStatus:
    """The status of a run now, and no more of it: whoever waits asks again and again."""
    return RunStatus(session.execute(_status(), {"run_id": run_id}).scalar_one())


@cache
def _status() -> Executable:
    return select(col(RunRow.status)).where(col(RunRow.id) == bindparam("run_id"))


def is_wanted(session: Session, run_id: str) -> bool:
    """Whether a run that is on is to go on: nobody cancelled it, and it has not ended."""
    status = present(session, run_id)
    return not status.ended and status is not RunStatus.CANCELLING


def stop(session: Session, run_id: str) -> None:
    """Let no activity begin anything more in a run whose execution has ended."""
    standing.move(
        session,
        locks.get_one(session, RunRow, run_id),
        RunStatus.CANCELLING,
        EventType.WORKFLOW_CANCELLING,
    )


def cancel_all(session: Session, run_ids: list[str]) -> None:
    """Write the intent to cancel several runs."""
    for run in locks.each(session, RunRow, run_ids):
        want_cancel(session, run)


def want_pause(session: Session, run: RunRow, pause: bool) -> None:
    """Write the intent to pause or resume. Raises ConflictError where the run has ended."""
    _check_open(run)
    if run.status == RunStatus.CANCELLING:
        raise ConflictError(f"run {run.id} is being cancelled", runId=run.id, status=run.status)
    if run.pause_wanted != pause:
        if pause:
            _count_signal(run)
        run.pause_wanted = pause
        run.touch()
        session.add(run)


def count_signal(session: Session, run: RunRow, name: str, data: Json | None) -> None:
    """Record a signal from outside. Raises ConflictError where the run takes none any more."""
    _check_open(run)
    _count_signal(run)
    session.add(run)
    if data is not None:
        standing.tell(
            session, run, EventType.WORKFLOW_SIGNALLED, {"signal": {"name": name, "data": data}}
        )


def _count_signal(run: RunRow) -> None:
    if run.signal_count >= MAX_SIGNALS:
        message = f"run {run.id} has had {MAX_SIGNALS} signals, the most that it takes"
        raise ConflictError(message, runId=run.id, limit=MAX_SIGNALS)
    run.signal_count += 1


def last_execute(session: Session, run_id: str, before: int) -> StepRow | None:
    """The execute step that a verify at index `before` judges."""
    earlier = (StepRow.run_id == run_id, StepRow.type == "execute", col(StepRow.index) < before)
    return session.exec(
        select(StepRow).where(*earlier).order_by(col(StepRow.index).desc()).limit(1)
    ).first()


def departments_of(session: Session, run_id: str) -> list[str]:
    """The departments that have a step in a run, or can get one that is in none yet."""
    columns = select(col(StepRow.department_id), col(StepRow.domain), col(StepRow.requires))
    found = session.exec(columns.where(StepRow.run_id == run_id)).all()
    wishes = {Wish(id, domain, tuple(requires)) for id, domain, requires in found}
    session_id = session.get_one(RunRow, run_id).session_id
    ids = {wish.department_id for wish in wishes if wish.department_id is not None}
    for wish in wishes:
        if wish.department_id is None and wish.is_open:
            ids |= {row.id for row in matching(session, session_id, wish)}
    return sorted(ids)


def ceilings(session: Session, run_id: str) -> list[Ceiling]:
    """The limits of every department that has, or can get, a step of a run."""
    rows = [session.get_one(DepartmentRow, id) for id in departments_of(session, run_id)]
    configs = [DepartmentConfig.model_validate(row.config) for row in rows]
    return [config.resource_limits for config in configs if config.resource_limits]


def _add_steps(session: Session, run: RunRow, definition: Definition) -> None:
    ids = step_ids(definition.steps)
    for index, step in enumerate(definition.steps):
        wish = definition.wish(step)
        session.add(
            StepRow(
                run_id=run.id,
                index=index,
                id=ids[index],
                type=step.type,
                department_id=wish.department_id,
                domain=wish.domain,
                requires=list(wish.requires),
            )
        )
    session.flush()


def _check_startable(session: Session, parent: SessionRow, definition: Definition) -> None:
    """What a definition named when it was written may be gone. Raises ConflictError."""
    try:
        workflows.check_references(session, parent, definition)
    except ValidationError as error:
        message = f"the workflow cannot run as it is written: {error.details['field']} "
        message += f"{error.details['issue']} any more; change the workflow first"
        raise ConflictError(message, **error.details) from None
    for wish in dict.fromkeys(definition.wish(step) for step in definition.steps):
        check_startable(session, parent.id, wish)


def _join(session: Session, run: RunRow, sandbox_id: str) -> SandboxRow:
    """Let a run work in a living sandbox. Raises ConflictError where that does not run."""
    row = sandboxes.joined(session, sandbox_id)
    run.sandbox_id, run.host_id = row.id, row.host_id
    run.image, run.resolved_image = row.image, row.resolved_image
    run.effective_policy = row.effective_policy
    return row


def _check_ceilings(session: Session, run: RunRow, sandbox: SandboxRow) -> None:
    has = sandboxes.policy_of(sandbox).resource_limits
    for most in ceilings(session, run.id):
        compared = (("memory", has.memory, most.memory), ("cpu", has.cpu, most.cpu))
        for what, much, allowed in compared:
            if allowed is not None and (much is None or much > allowed):
                message = f"sandbox {sandbox.id} has {what} {much}, and a department of the"
                message += f" workflow allows {allowed}: use a smaller one, or raise that limit"
                raise ConflictError(message, sandboxId=sandbox.id, limit=what)


def _open_run(session: Session, workflow_id: str) -> str | None:
    going = select(RunRow.id).where(RunRow.workflow_id == workflow_id, sessions.still_open())
    return session.exec(going).first()


def _check_open(run: RunRow) -> None:
    if RunStatus(run.status).ended:
        message = f"run {run.id} has ended: {run.status}"
        raise ConflictError(message, runId=run.id, status=run.status)
