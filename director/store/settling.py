"""The end of a run: what no step's activity has written, its result and its error."""

from sqlmodel import Session

from director.domain.base import Json
from director.domain.errors import DirectorError
from director.domain.events import EventType
from director.domain.failures import FailureCode
from director.domain.runs import RunStatus, SettleInput, StepStatus
from director.domain.states import advance_step
from director.domain.times import utc_now
from director.store import hosts, locks, placement, sandboxes, standing, tickets, workflows
from director.store.tables import RunRow, SessionRow, StepRow, WorkflowRow

_EVENTS = {
    RunStatus.COMPLETED: EventType.WORKFLOW_COMPLETED,
    RunStatus.FAILED: EventType.WORKFLOW_FAILED,
    RunStatus.CANCELLED: EventType.WORKFLOW_CANCELLED,
    RunStatus.TIMED_OUT: EventType.WORKFLOW_TIMED_OUT,
}
_OPEN_STEP_ENDS = {
    RunStatus.COMPLETED: StepStatus.COMPLETED,
    RunStatus.FAILED: StepStatus.FAILED,
    RunStatus.CANCELLED: StepStatus.CANCELLED,
    RunStatus.TIMED_OUT: StepStatus.TIMED_OUT,
}


def settle(session: Session, end: SettleInput, *, keep: bool = False) -> list[str]:
    """Write the end of a run, once, and give back its slots and its place; gives the runs that
    get them, or may find memory now. A run that has ended keeps the end that it has. `keep` lets
    its sandbox be one like any other from the same moment on."""
    run = locks.get_one(session, RunRow, end.run_id)
    parent = locks.get_one(session, SessionRow, run.session_id)
    locks.hold(session, locks.Name.PLACES)
    if not RunStatus(run.status).ended:
        if keep and run.host_id is not None and parent.deleted_at is None:
            _keep_sandbox(session, run)
        _end(session, run, end)
    granted = tickets.release_run(session, run.id, hosts.total_places)
    return [*granted, *placement.without_room(session)]


def _keep_sandbox(session: Session, run: RunRow) -> None:
    name = session.get_one(WorkflowRow, run.workflow_id).name
    config = workflows.definition(session, run.workflow_id, run.version).config
    sandboxes.keep(session, run, name, config)


def _end(session: Session, run: RunRow, end: SettleInput) -> None:
    steps = standing.steps_of(session, run.id)
    for step in steps:
        _end_step(session, step, end)
    run.result = _result(steps, end.status)
    run.error = _error(run, steps, end)
    # not the output: commands print secrets, and the event log must hold none
    more: Json = {"result": {key: run.result[key] for key in ("success", "checkpointIds")}}
    if run.error is not None:
        more["error"] = {key: run.error[key] for key in ("code", "step") if key in run.error}
    stand = standing.Stand(sum(step.status == StepStatus.COMPLETED for step in steps))
    standing.move(session, run, end.status, _EVENTS[end.status], more, stand)


def _end_step(session: Session, step: StepRow, end: SettleInput) -> None:
    stopped = end.status is RunStatus.TIMED_OUT and step.index == end.failed_step
    status = StepStatus(step.status)
    if status is StepStatus.PENDING:
        step.status = advance_step(status, StepStatus.SKIPPED)
    elif stopped and status is StepStatus.CANCELLED:
        step.status = advance_step(status, StepStatus.TIMED_OUT)
    elif not status.ended:
        step.status = advance_step(status, _OPEN_STEP_ENDS[end.status])
        step.ended_at = step.ended_at or utc_now()
    session.add(step)


def _result(steps: list[StepRow], status: RunStatus) -> Json:
    """`success`: the run completed and every verify passed; `output`: the last verify's message,
    else what the last execute wrote."""
    verifies = [step for step in steps if step.type == "verify"]
    passed = all(step.status == StepStatus.COMPLETED for step in verifies)
    return {
        "success": status is RunStatus.COMPLETED and passed,
        "output": _output(steps),
        "checkpointIds": [
            step.result["checkpointId"]
            for step in steps
            if step.result and "checkpointId" in step.result
        ],
    }


def _output(steps: list[StepRow]) -> str | None:
    for kind, field in (("verify", "message"), ("execute", "stdout")):
        results = [step.result for step in steps if step.type == kind and step.result]
        if results and field in results[-1]:
            return str(results[-1][field]).strip()
    return None


def _error(run: RunRow, steps: list[StepRow], end: SettleInput) -> Json | None:
    if end.status is RunStatus.COMPLETED:
        return None
    step = next((step for step in steps if step.index == end.failed_step), None)
    where = {"step": step.id} if step is not None else {}
    if end.status is RunStatus.CANCELLED:
        message = "the run was cancelled" if run.cancel_wanted else "the run was ended in Temporal"
        code = end.code or FailureCode.CANCELLED
        return {"code": code, "message": message, **where}
    if end.status is RunStatus.TIMED_OUT:
        message = "the run took longer than config.timeout, or maxDuration of its sandbox, allows"
        return {"code": FailureCode.TIMEOUT, "message": message, **where}
    if end.code == FailureCode.SANDBOX_LOST:
        message = "the sandbox was lost with its host, and config.onSandboxLost is fail"
        return {"code": end.code, "message": message, **where}
    known = step.error if step is not None and step.error else None
    unknown = {"code": end.code or DirectorError.code, "message": "the step could not be performed"}
    return {**(known or unknown), **where}
