"""Names that API, workflows and workers agree on."""

RUN_WORKFLOW = "DirectorWorkflow"
SANDBOX_WORKFLOW = "SandboxWorkflow"
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
APPLY_NETWORK = "apply_network"
REMOVE_NETWORK = "remove_network"

CREATE_SANDBOX = "create_sandbox"
SETTLE_SANDBOX = "settle_sandbox"
LET_SANDBOX_GO = "let_sandbox_go"
EXECUTE = "execute"
END_EXECUTION = "end_execution"
STEER_SANDBOX = "steer_sandbox"
MEASURE_SANDBOX = "measure_sandbox"
ENFORCE_POLICY = "enforce_policy"
WRITE_FILES = "write_files"
CAPTURE_FILES = "capture_files"

PAUSE, RESUME, PROGRESS = "pause", "resume", "progress"
GRANTED = "granted"
"""A slot or a place is there for the run that waits for one."""
APPROVE = "approve"
"""An approval is decided; what was decided is in the store."""
END = "end"
"""A sandbox is to end: it is deleted."""
STATE_QUERY = "state"

SEARCH_SESSION = "DirectorSession"
SEARCH_DEPARTMENT = "DirectorDepartment"
SEARCH_KIND = "DirectorKind"
SEARCH_STATE = "DirectorState"
SEARCH_ATTRIBUTES = (SEARCH_SESSION, SEARCH_DEPARTMENT, SEARCH_KIND, SEARCH_STATE)


def host_queue(host_id: str) -> str:
    """The queue of a host's sandboxes."""
    return f"director-host-{host_id}"


def execution_queue(host_id: str) -> str:
    """The queue for commands in sandboxes that people made, which steps of runs cannot block."""
    return f"director-executions-{host_id}"


def control_queue(host_id: str) -> str:
    """The queue for stopping and removing, which full slots cannot block."""
    return f"director-control-{host_id}"
