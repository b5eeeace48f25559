"""`/workflows`: definitions. Starting and steering their runs is in `runs`."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from director.api.answers import created, versioned
from director.api.envelope import Answer, Deleted, ListAnswer, answer, page
from director.api.errors import documented
from director.api.idempotency import OnceDep
from director.api.principals import EditorDep, PrincipalDep
from director.api.requests import StrictRoute
from director.api.state import MatchDep, PageDep, StoreDep, TermsDep
from director.domain.criteria import patterns
from director.domain.errors import ConflictError, NotFoundError, PreconditionError, refused
from director.domain.lifetimes import Terms
from director.domain.runs import RunStatus
from director.domain.steps import Step, VerifyStep
from director.domain.workflows import SandboxConfig, Workflow, WorkflowCreate, WorkflowUpdate
from director.store import workflows
from director.verify.patterns import Pattern, PatternError

router = APIRouter(prefix="/workflows", tags=["workflows"], route_class=StrictRoute)


@router.post(
    "",
    status_code=201,
    response_model=Answer[Workflow],
    operation_id="workflows.create",
    responses=documented(NotFoundError, ConflictError),
)
async def create(
    body: WorkflowCreate, principal: EditorDep, once: OnceDep, terms: TermsDep
) -> Response:
    """Create a workflow: a list of `execute`, `verify` and `checkpoint` steps."""
    _check_patterns(body.steps)
    _check_image(body.config.sandbox, terms)
    terms.check_workspace(body.workspace)
    return await once.write(
        lambda s: created("workflows", workflows.view(s, workflows.create(s, principal, body)))
    )


@router.get("", operation_id="workflows.list", responses=documented())
async def list_(
    principal: PrincipalDep,
    store: StoreDep,
    query: PageDep,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
    status: RunStatus | None = None,
) -> ListAnswer[Workflow]:
    """List workflows, newest first; `status` is that of the latest run."""
    return page(
        *await store.fetch(lambda s: workflows.listed(s, principal, query, session_id, status))
    )


@router.get("/{workflow_id}", operation_id="workflows.get", responses=documented(NotFoundError))
async def get(
    workflow_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[Workflow]:
    """Get a workflow with its definition."""
    view = await store.fetch(lambda s: workflows.view(s, workflows.get(s, principal, workflow_id)))
    versioned(response, view)
    return answer(view)


@router.put(
    "/{workflow_id}",
    operation_id="workflows.update",
    responses=documented(NotFoundError, ConflictError, PreconditionError),
)
@router.patch(
    "/{workflow_id}",
    operation_id="workflows.patch",
    responses=documented(NotFoundError, ConflictError, PreconditionError),
)
async def update(
    workflow_id: str,
    body: WorkflowUpdate,
    principal: EditorDep,
    store: StoreDep,
    response: Response,
    terms: TermsDep,
    match: MatchDep = None,
) -> Answer[Workflow]:
    """Change a workflow; a changed definition is a new version, and running runs keep theirs."""
    _check_patterns(body.steps or [])
    _check_image(body.config.sandbox if body.config else None, terms)
    terms.check_workspace(body.workspace)
    view = await store.run(
        lambda s: workflows.view(s, workflows.update(s, principal, workflow_id, body, match))
    )
    versioned(response, view)
    return answer(view)


@router.delete(
    "/{workflow_id}",
    operation_id="workflows.delete",
    responses=documented(NotFoundError, ConflictError, PreconditionError),
)
async def delete(
    workflow_id: str, principal: EditorDep, store: StoreDep, match: MatchDep = None
) -> Answer[Deleted]:
    """Delete a workflow that is not running."""
    await store.run(lambda s: workflows.delete(s, principal, workflow_id, match))
    return answer(Deleted(id=workflow_id))


def _check_image(sandbox: SandboxConfig | None, terms: Terms) -> None:
    terms.check_image(sandbox.image if sandbox else None, "config.sandbox.image")


def _check_patterns(steps: list[Step]) -> None:
    """Refuse a regular expression that RE2 does not take before a run meets it."""
    for number, step in enumerate(steps):
        if not isinstance(step, VerifyStep):
            continue
        for pattern in patterns(step.criterion()):
            try:
                Pattern(pattern)
            except PatternError as error:
                raise refused(f"steps.{number}.criteria", str(error), pattern) from None
