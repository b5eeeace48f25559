"""Names that API, workflows and workers agree on."""

RUN_WORKFLOW = "DirectorWorkflow"
RECONCILE_WORKFLOW = "ReconcileWorkflow"
RECONCILE_ID = "director-reconcile"

WORKFLOW_QUEUE = "director"
"""Workflows and the short activities that only write rows."""
SANDBOX_QUEUE = "director-sandboxes"
"""First steps: every worker that has a place for a sandbox polls it."""

RUN_STEP = "run_step"
SETTLE = "settle"
RECORD_STATUS = "record_status"
RECORD_PROGRESS = "record_progress"
PLACE = "place"
RECONCILE = "reconcile"

PAUSE, RESUME, PROGRESS = "pause", "resume", "progress"
GRANTED = "granted"
"""A slot or a place is there for the run that waits for one."""
APPROVE = "approve"
"""An approval is decided; what was decided is in the store."""
STATE_QUERY = "state"

SEARCH_SESSION = "DirectorSession"
SEARCH_DEPARTMENT = "DirectorDepartment"
SEARCH_KIND = "DirectorKind"
SEARCH_STATE = "DirectorState"
SEARCH_ATTRIBUTES = (SEARCH_SESSION, SEARCH_DEPARTMENT, SEARCH_KIND, SEARCH_STATE)


def host_queue(host_id: str) -> str:
    """The queue of a host's sandboxes."""
    return f"director-host-{host_id}"


def control_queue(host_id: str) -> str:
    """The queue for stopping and removing, which full slots cannot block."""
    return f"director-control-{host_id}"
