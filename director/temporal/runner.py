"""Workflow code in Temporal's sandbox, without what the SDK does there for nobody."""

from typing import Any

from temporalio import workflow
from temporalio.converter import SerializationContext, StorageDriverStoreContext
from temporalio.worker import WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

_NOWHERE = StorageDriverStoreContext(target=None)


class DirectorWorkflowRunner(SandboxedWorkflowRunner):
    """The sandbox guards that workflow code is deterministic; our own modules are loaded once, not
    for every run."""

    def __init__(self) -> None:
        passed = SandboxRestrictions.default.with_passthrough_modules("director")
        super().__init__(restrictions=passed)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """A run's workflow in a sandbox of its own."""
        return _Instance(super().create_instance(det))


class _Instance(WorkflowInstance):
    """Enters the sandbox to run workflow code only. The SDK would enter it three times for each
    payload as well, to ask for what our converter, which is the same everywhere and keeps no
    payload elsewhere, does not look at: a third of a worker's work for workflows."""

    def __init__(self, sandboxed: WorkflowInstance) -> None:
        self._sandboxed = sandboxed

    def activate(self, act: Any) -> Any:
        """Run workflow code."""
        return self._sandboxed.activate(act)

    def get_serialization_context(self, command_info: Any) -> SerializationContext | None:
        """None: payloads are converted alike wherever they belong."""
        return None

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:
        """None either: payloads are nowhere but in the history."""
        return _NOWHERE

    def get_info(self) -> workflow.Info:
        """What the SDK knows of the execution."""
        return self._sandboxed.get_info()

    def get_thread_id(self) -> int | None:
        """The thread that runs workflow code now: the SDK looks for one that is stuck."""
        return self._sandboxed.get_thread_id()
