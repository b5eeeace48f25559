"""The one activity of a step: open it, perform it, write its outcome."""

from dataclasses import dataclass, field
from functools import partial

import structlog
from sqlalchemy.exc import OperationalError
from sqlmodel import Session
from temporalio import activity
from temporalio.exceptions import ApplicationError

from director.activities.checkpoints import Checkpoints
from director.activities.executes import Executes
from director.activities.heartbeat import Beat, StepCancelledError, detached, heartbeating
from director.activities.jobs import Definitions, StepDone, StepJob, load_job
from director.activities.pulse import Pulse
from director.activities.sandboxes import NotPlacedError, Sandboxes
from director.activities.telling import Signals
from director.activities.verifies import Verifies
from director.domain import names
from director.domain.errors import DirectorError, UnavailableError
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import StepInput, StepOutcome, StepStatus
from director.domain.steps import CheckpointStep, ExecuteStep, VerifyStep
from director.sandbox.runtime import SandboxError
from director.store import runs, steps
from director.store.engine import Store
from director.store.steps import Closed, Opened, StaleAttemptError, StepKey

log = structlog.get_logger()

_TRIES = 100_000
"""More tries than Temporal makes of one activity in a week. A step that was set down, to stand in
line or to be approved, is taken up by another activity, whose tries count from 1 again."""

_PASSING = (SandboxError, OperationalError, OSError, ApplicationError)
"""What may be over at the next attempt: Temporal tries the activity again, without end."""


@dataclass(frozen=True)
class StepActivities:
    """Performs steps on this host."""

    sandboxes: Sandboxes
    executes: Executes
    verifies: Verifies
    checkpoints: Checkpoints
    signals: Signals
    definitions: Definitions = field(default_factory=Definitions)

    @property
    def store(self) -> Store:
        """Where steps are written."""
        return self.sandboxes.store

    @activity.defn(name=names.RUN_STEP, no_thread_cancel_exception=True)
    def run_step(self, step: StepInput) -> StepOutcome:
        """Perform one attempt of a step; a retry of this activity gives the recorded outcome."""
        key = _key(step)
        bound = structlog.contextvars.bound_contextvars
        with (
            bound(run_id=step.run_id, step=step.index, attempt=step.attempt),
            heartbeating(partial(self._wanted, step.run_id)) as beat,
        ):
            opened, job = self._open(key, beat)
            if job is None:
                assert opened.outcome is not None  # noqa: S101 - what is no job has its outcome
                return opened.outcome
            with bound(session_id=job.run.session_id):
                return self._close(job, self._perform(job), step.last_attempt)

    def _wanted(self, run_id: str) -> bool:
        try:
            with self.store.read() as session:
                return runs.is_wanted(session, run_id)
        except OperationalError:
            log.warning("whether the run is still wanted could not be read", exc_info=True)
            return True

    def _open(self, key: StepKey, beat: Beat) -> tuple[Opened, StepJob | None]:
        opened, job = self._opened(key, beat)
        if opened.state == "superseded":
            log.info("the run was reset in Temporal; what it began before is ended")
            self.sandboxes.quiet(key.run_id)
            opened, job = self._opened(key, beat, quiet=True)
        if opened.state == "over":
            message = "the run has ended: start a new one instead of a reset"
            raise ApplicationError(message, type=FailureCode.RUN_ENDED, non_retryable=True)
        if opened.state == "stale":
            raise ApplicationError("a later attempt has this step", non_retryable=True)
        return opened, job

    def _opened(
        self, key: StepKey, beat: Beat, *, quiet: bool = False
    ) -> tuple[Opened, StepJob | None]:
        def opened(session: Session) -> tuple[Opened, StepJob | None]:
            opened = steps.open_step(session, key, self.sandboxes.host_id, quiet=quiet)
            if opened.state != "go":
                return opened, None
            return opened, load_job(session, key, beat, self.definitions, fresh=opened.fresh)

        found, job = self.store.transact(opened)
        self.signals.granted(found.granted)
        return found, job

    def _perform(self, job: StepJob) -> StepDone:
        log.info("step started", type=job.step.type)
        pulse = Pulse(job, self.signals.progress)
        job.beat.each = pulse.beat
        try:
            return self._dispatched(job, pulse)
        except Exception as error:
            return _ended_by(job, error)

    def _dispatched(self, job: StepJob, pulse: Pulse) -> StepDone:
        match job.step:
            case ExecuteStep() as step:
                return self.executes.perform(job, step, pulse)
            case VerifyStep() as step:
                return self.verifies.perform(job, step)
            case CheckpointStep() as step:
                return self.checkpoints.perform(job, step)

    def _close(self, job: StepJob, done: StepDone, last_attempt: bool) -> StepOutcome:
        try:
            closed = self.store.transact(lambda s: _written(s, job.key, done, last_attempt))
        except StaleAttemptError as error:
            raise detached(str(error)) from error
        if job.is_last and closed.outcome.status is StepStatus.COMPLETED:
            self.sandboxes.retire(job)
        self.signals.granted(closed.granted)
        log.info("step ended", status=closed.outcome.status, code=closed.outcome.code)
        return closed.outcome


def _written(session: Session, key: StepKey, done: StepDone, last_attempt: bool) -> Closed:
    if done.status is StepStatus.WAITING:
        return steps.await_approval(session, key)
    if done.status is StepStatus.QUEUED:
        return steps.requeue(session, key)
    if done.status is StepStatus.PENDING:
        return Closed(StepOutcome(status=StepStatus.PENDING, host_id=done.host_id))
    done.also(session)
    failed = done.status in (StepStatus.FAILED, StepStatus.TIMED_OUT)
    status = StepStatus.RETRYING if failed and not last_attempt else done.status
    return steps.close_step(session, key, status, done.result, done.error)


def _ended_by(job: StepJob, error: Exception) -> StepDone:
    """What an error means for the step. Raises where another attempt of the activity may do."""
    match error:
        case StepCancelledError():
            return StepDone(StepStatus.CANCELLED)
        case StepFailure():
            return _failed(job, error)
        case StaleAttemptError():
            raise detached(str(error)) from error
        case NotPlacedError(retryable=True, host_id=host_id):
            return StepDone(StepStatus.PENDING if host_id else StepStatus.QUEUED, host_id=host_id)
        case SandboxError(retryable=False):
            return _failed(job, StepFailure(FailureCode.SANDBOX_FAILED, error.message))
        case UnavailableError():
            raise error  # the blobs' store is away: the step waits for it, as for a database
        case DirectorError():
            return _failed(job, StepFailure(FailureCode.INTERNAL_ERROR, error.message))
    if isinstance(error, _PASSING):
        raise error
    log.error("a step could not be performed", exc_info=error)
    message = "a fault of Director, not of the step; the worker's log tells more"
    return _failed(job, StepFailure(FailureCode.INTERNAL_ERROR, message))


def _failed(job: StepJob, failure: StepFailure) -> StepDone:
    timed_out = failure.code is FailureCode.TIMEOUT
    status = StepStatus.TIMED_OUT if timed_out else StepStatus.FAILED
    return StepDone(status, {"attempt": job.key.attempt}, failure.error)


def _key(step: StepInput) -> StepKey:
    info = activity.info()
    return StepKey(
        run_id=step.run_id,
        index=step.index,
        attempt=step.attempt,
        temporal_run_id=info.workflow_run_id or "",
        activity_attempt=int(info.activity_id) * _TRIES + info.attempt,
    )
