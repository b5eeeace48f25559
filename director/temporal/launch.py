"""Starting workflows, once each: the one way for the API, for workers and for reconcile."""

from collections.abc import Mapping
from datetime import timedelta

from temporalio.client import Client
from temporalio.common import (
    Priority,
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError

from director.domain import names
from director.domain.base import Shape
from director.domain.plans import most_attempts
from director.domain.runs import RunInput, RunStatus

TASK_TIMEOUT = timedelta(seconds=4)
"""How long a workflow stands still when its worker dies in the middle of a workflow task, which
lasts milliseconds; Temporal's default is 10 s."""

_REPLAYED = timedelta(milliseconds=10)
"""For each attempt that a run may come to: the next worker replays the whole history within one
workflow task. An attempt is 18 events at most, and some 2000 a second were measured under load."""


async def start_run(
    client: Client, run: RunInput, *, request_id: str | None = None, timeout: float = 10
) -> str | None:
    """Start the workflow of a run, or find the one that is on; gives Temporal's run id.

    None means that an execution of this run has ended already; nothing is started again."""
    return await start_once(
        client,
        names.RUN_WORKFLOW,
        run,
        id=run.run_id,
        search_attributes={
            names.SEARCH_SESSION: run.session_id,
            names.SEARCH_DEPARTMENT: run.department_id,
            names.SEARCH_KIND: "run",
            names.SEARCH_STATE: RunStatus.RUNNING,
        },
        summary=f"{len(run.plan.steps())} steps of {run.workflow_id}",
        details=f"run `{run.run_id}` of workflow `{run.workflow_id}` in session `{run.session_id}`",
        priority=Priority(priority_key=run.priority, fairness_key=run.owner_id),
        task_timeout=TASK_TIMEOUT + _REPLAYED * most_attempts(run.plan),
        request_id=request_id,
        timeout=timeout,
    )


async def start_once(
    client: Client,
    name: str,
    given: Shape,
    *,
    id: str,
    search_attributes: Mapping[str, str | None],
    summary: str,
    details: str,
    priority: Priority,
    task_timeout: timedelta = TASK_TIMEOUT,
    request_id: str | None = None,
    timeout: float = 10,
) -> str | None:
    """Start a workflow of ours, or find the one that is on; gives Temporal's run id. None means
    that it has ended already; nothing is started again."""
    try:
        handle = await client.start_workflow(
            name,
            given,
            id=id,
            task_queue=names.WORKFLOW_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=_typed(search_attributes),
            static_summary=summary,
            static_details=details,
            memo={"requestId": request_id} if request_id else None,
            priority=priority,
            task_timeout=task_timeout,
            rpc_timeout=timedelta(seconds=timeout),
        )
    except WorkflowAlreadyStartedError:
        return None
    return handle.first_execution_run_id or handle.result_run_id


def _typed(values: Mapping[str, str | None]) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in values.items()
            if value is not None
        ]
    )
