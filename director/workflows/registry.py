"""All workflows that a worker serves."""

from director.workflows.reconcile import ReconcileWorkflow
from director.workflows.runs import DirectorWorkflow
from director.workflows.sandboxes import SandboxWorkflow

WORKFLOWS = (DirectorWorkflow, SandboxWorkflow, ReconcileWorkflow)
