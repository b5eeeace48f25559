"""Queries of workflows and their versions."""

from typing import Any

from sqlalchemy import and_
from sqlmodel import Session, col, select

from director.domain import workflows as domain
from director.domain.base import Body
from director.domain.errors import ConflictError, NotFoundError, ValidationError
from director.domain.ids import WORKFLOW, new_id
from director.domain.lifetimes import SandboxStatus
from director.domain.pages import PageQuery, Pagination
from director.domain.plans import MAX_ATTEMPTS, most_attempts, plan_of
from director.domain.runs import RunStatus
from director.domain.secrets import masked
from director.domain.sessions import merged
from director.domain.steps import Step
from director.domain.times import utc_now
from director.domain.users import Principal
from director.store import archives, executions, sessions
from director.store.lists import paged
from director.store.ownership import seen_in, visible
from director.store.preconditions import check_match
from director.store.tables import (
    DefinitionRow,
    DepartmentRow,
    ProfileRow,
    RunRow,
    SandboxRow,
    SessionRow,
    WorkflowRow,
)

_PARTS = set(domain.Definition.model_fields)


def create(session: Session, principal: Principal, body: domain.WorkflowCreate) -> WorkflowRow:
    """Add a workflow with its first version."""
    parent = sessions.usable(session, principal, body.session_id)
    definition = domain.Definition.model_validate(body.model_dump(include=_PARTS))
    row = WorkflowRow(
        id=new_id(WORKFLOW),
        session_id=parent.id,
        owner_id=parent.owner_id,
        name=body.name,
        description=body.description,
    )
    check_references(session, parent, definition)
    session.add(row)
    session.flush()
    _add_version(session, row, definition)
    return row


def get(session: Session, principal: Principal, id: str) -> WorkflowRow:
    """The workflow of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(WorkflowRow, id)
    if row is None or row.deleted_at is not None or not visible(principal, row.owner_id):
        raise NotFoundError("workflow", id)
    return row


def locked(session: Session, principal: Principal, id: str) -> WorkflowRow:
    """The same, for who is to change it or to start it."""
    sessions.lock_with(session, get(session, principal, id))
    return get(session, principal, id)


def definition(session: Session, workflow_id: str, version: int) -> domain.Definition:
    """One version of a workflow's definition."""
    row = session.get_one(DefinitionRow, (workflow_id, version))
    return domain.Definition.model_validate(row.definition)


def listed(
    session: Session,
    principal: Principal,
    query: PageQuery,
    session_id: str | None,
    status: RunStatus | None,
) -> tuple[list[domain.Workflow], Pagination]:
    """A page of the workflows that the principal may see; `status` is the latest run's."""
    conditions: list[Any] = [col(WorkflowRow.deleted_at).is_(None)]
    conditions += seen_in(session, principal, WorkflowRow, session_id)
    if status is not None:
        conditions.append(WorkflowRow.status == status)
    rows, pagination = paged(session, WorkflowRow, conditions, query)
    present = _present_definitions(session, [row.id for row in rows])
    return [_view(row, present[row.id]) for row in rows], pagination


def update(
    session: Session,
    principal: Principal,
    id: str,
    body: domain.WorkflowUpdate,
    match: str | None,
) -> WorkflowRow:
    """Change a workflow. What changes the definition makes a new version; runs keep theirs."""
    row = locked(session, principal, id)
    check_match(row, match)
    for field in {"name", "description"} & body.model_fields_set:
        setattr(row, field, getattr(body, field))
    if _PARTS & body.model_fields_set:
        parent = sessions.usable(session, principal, row.session_id)
        new = _changed(definition(session, row.id, row.version), body)
        check_references(session, parent, new)
        row.version += 1
        _add_version(session, row, new)
    sessions.used(session, row.session_id)
    row.touch()
    session.add(row)
    session.flush()
    return row


def delete(session: Session, principal: Principal, id: str, match: str | None) -> None:
    """Remove a workflow. Raises ConflictError while a run of it is on."""
    row = locked(session, principal, id)
    check_match(row, match)
    running = select(RunRow.id).where(RunRow.workflow_id == id, sessions.still_open())
    if run_id := session.exec(running).first():
        raise ConflictError(f"workflow {id} is running; cancel {run_id} first", runId=run_id)
    row.deleted_at = utc_now()
    row.touch()
    session.add(row)
    sessions.used(session, row.session_id)


def view(session: Session, row: WorkflowRow) -> domain.Workflow:
    """The workflow as the API shows it; values of variables with secret-looking names hidden."""
    return _view(row, definition(session, row.id, row.version))


def _view(row: WorkflowRow, present: domain.Definition) -> domain.Workflow:
    shown = masked(present.model_dump(mode="json", exclude_none=True))
    unset = {"workspace": None, "departmentId": None, "domain": None, "requires": None}
    return domain.Workflow.model_validate({**row.model_dump(), **unset, **shown})


def _present_definitions(session: Session, ids: list[str]) -> dict[str, domain.Definition]:
    """The present versions of several workflows."""
    at_present = and_(
        col(DefinitionRow.workflow_id) == col(WorkflowRow.id),
        col(DefinitionRow.version) == col(WorkflowRow.version),
    )
    statement = select(DefinitionRow).join(WorkflowRow, at_present)
    rows = session.exec(statement.where(col(WorkflowRow.id).in_(ids)))
    return {row.workflow_id: domain.Definition.model_validate(row.definition) for row in rows}


def _changed(present: domain.Definition, body: domain.WorkflowUpdate) -> domain.Definition:
    values = present.model_dump(mode="json", by_alias=False)
    for part in _PARTS & body.model_fields_set:
        value = getattr(body, part)
        if value is None:
            del values[part]
        elif part == "config":
            values[part] = merged(present.config.model_dump(mode="json"), value)
        else:
            values[part] = value.model_dump() if isinstance(value, Body) else value
    return domain.Definition.model_validate(values)


def _add_version(session: Session, row: WorkflowRow, new: domain.Definition) -> None:
    stored = new.model_dump(mode="json")
    session.add(DefinitionRow(workflow_id=row.id, version=row.version, definition=stored))
    session.flush()


def check_references(session: Session, parent: SessionRow, new: domain.Definition) -> None:
    """Raise ValidationError where a definition names what is not there for this session, or
    would come to more attempts than a run can have."""
    if (attempts := most_attempts(plan_of(new))) > MAX_ATTEMPTS:
        issue = f"come to {attempts} attempts with all their retries; at most {MAX_ATTEMPTS}"
        raise _refused("steps", None, issue)
    _check_department(session, parent, new, "")
    for number, step in enumerate(new.steps):
        _check_department(session, parent, step, f"steps.{number}.")
    _check_profile(session, parent, new.config.security_profile_id)
    _check_sandbox(session, parent, new.config)
    archives.check_source(session, new.workspace, parent.owner_id)


def _check_profile(session: Session, parent: SessionRow, id: str | None) -> None:
    row = None if id is None else session.get(ProfileRow, id)
    if id is not None and (row is None or row.owner_id != parent.owner_id):
        raise _refused("config.securityProfileId", id, "names no security profile of yours")


def _check_sandbox(session: Session, parent: SessionRow, config: domain.WorkflowConfig) -> None:
    if (id := config.sandbox_id) is None:
        return
    beside = {
        "sandbox": config.sandbox,
        "securityProfileId": config.security_profile_id,
        "keepSandbox": config.keep_sandbox,
    }
    for name, given in beside.items():
        if given:
            issue = "cannot stand beside sandboxId: that sandbox is as it is, and stays"
            raise _refused(f"config.{name}", None, issue)
    row = session.get(SandboxRow, id)
    if row is None or row.deleted_at is not None or row.owner_id != parent.owner_id:
        raise _refused("config.sandboxId", id, "names no sandbox of yours")
    if SandboxStatus(row.status).ended:
        raise _refused("config.sandboxId", id, "names no sandbox that lives")
    if not executions.takes_commands(row):
        raise _refused("config.sandboxId", id, "names no sandbox whose policy allows commands")


def _check_department(
    session: Session, parent: SessionRow, named: domain.Definition | Step, prefix: str
) -> None:
    id = named.department_id
    if id is None:
        return
    row = session.get(DepartmentRow, id)
    if row is None or row.deleted_at is not None or row.session_id != parent.id:
        raise _refused(f"{prefix}departmentId", id, f"names no department of session {parent.id}")
    for wish, value in (("domain", named.domain), ("requires", named.requires)):
        if value is not None:
            issue = f"cannot stand beside {wish}: name a department, or say what it must be like"
            raise _refused(f"{prefix}departmentId", id, issue)


def _refused(field: str, value: str | None, issue: str) -> ValidationError:
    detail = {"field": field, "issue": issue} | ({"value": value[:80]} if value else {})
    return ValidationError(f"Invalid input data: {field} {issue}", **detail, errors=[detail])
