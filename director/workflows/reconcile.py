"""The one workflow that brings rows and executions together again, every five seconds."""

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from director.domain import names
    from director.workflows import policies

_ROUNDS = 200
"""Rounds before the history begins anew."""


@workflow.defn(name=names.RECONCILE_WORKFLOW)
class ReconcileWorkflow:
    """A loop instead of a Temporal schedule: a schedule would add an execution to the list of
    the UI every five seconds, and hide the runs in it."""

    @workflow.run
    async def run(self) -> None:
        """Reconcile for ever."""
        for _ in range(_ROUNDS):
            try:
                await workflow.execute_local_activity(
                    names.RECONCILE,
                    start_to_close_timeout=policies.RECONCILE_TIMEOUT,
                    retry_policy=policies.FEW,
                )
            except FailureError:  # that of a local activity comes in no ActivityError
                workflow.logger.warning("a round of reconcile failed", exc_info=True)
            await workflow.sleep(policies.RECONCILE_PERIOD)
        workflow.continue_as_new()
