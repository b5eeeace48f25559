"""All workflows that a worker serves."""

from director.workflows.reconcile import ReconcileWorkflow
from director.workflows.runs import DirectorWorkflow

WORKFLOWS = (DirectorWorkflow, ReconcileWorkflow)
