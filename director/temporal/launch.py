"""Starting a run's workflow: the one way for the API and for reconcile."""

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
    try:
        handle = await client.start_workflow(
            names.RUN_WORKFLOW,
            run,
            id=run.run_id,
            task_queue=names.WORKFLOW_QUEUE,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            search_attributes=_search_attributes(run),
            static_summary=f"{len(run.plan.steps())} steps of {run.workflow_id}",
            static_details=f"run `{run.run_id}` of workflow `{run.workflow_id}`"
            f" in session `{run.session_id}`",
            memo={"requestId": request_id} if request_id else None,
            priority=Priority(priority_key=run.priority, fairness_key=run.owner_id),
            task_timeout=TASK_TIMEOUT + _REPLAYED * most_attempts(run.plan),
            rpc_timeout=timedelta(seconds=timeout),
        )
    except WorkflowAlreadyStartedError:
        return None
    return handle.first_execution_run_id or handle.result_run_id


def _search_attributes(run: RunInput) -> TypedSearchAttributes:
    values = {
        names.SEARCH_SESSION: run.session_id,
        names.SEARCH_DEPARTMENT: run.department_id,
        names.SEARCH_KIND: "run",
        names.SEARCH_STATE: RunStatus.RUNNING,
    }
    return TypedSearchAttributes(
        [
            SearchAttributePair(SearchAttributeKey.for_keyword(name), value)
            for name, value in values.items()
            if value is not None
        ]
    )
