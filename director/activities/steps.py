"""The one activity of a step: open it, perform it, write its outcome."""

from dataclasses import dataclass

import structlog
from sqlalchemy.exc import OperationalError
from temporalio import activity
from temporalio.exceptions import ApplicationError

from director.activities.checkpoints import Checkpoints
from director.activities.executes import Executes
from director.activities.heartbeat import Beat, StepCancelledError, detached, heartbeating
from director.activities.jobs import StepDone, StepJob, load_job
from director.activities.pulse import Pulse, Tell
from director.activities.verifies import Verifies
from director.domain import names
from director.domain.errors import DirectorError
from director.domain.failures import FailureCode, StepFailure
from director.domain.runs import StepInput, StepOutcome, StepStatus
from director.domain.steps import CheckpointStep, ExecuteStep, VerifyStep
from director.sandbox.runtime import SandboxError
from director.store import steps
from director.store.engine import Store
from director.store.steps import Opened, StaleAttemptError, StepKey
from director.store.tables import RunRow, StepRow

log = structlog.get_logger()

_PASSING = (OperationalError, OSError, ApplicationError)
"""What may be over at the next attempt: Temporal tries the activity again, without end."""


@dataclass(frozen=True)
class StepActivities:
    """Performs steps on this host."""

    store: Store
    executes: Executes
    verifies: Verifies
    checkpoints: Checkpoints
    tell: Tell

    @activity.defn(name=names.RUN_STEP, no_thread_cancel_exception=True)
    def run_step(self, step: StepInput) -> StepOutcome:
        """Perform one attempt of a step; a retry of this activity gives the recorded outcome."""
        key = _key(step)
        bound = structlog.contextvars.bound_contextvars
        with (
            bound(run_id=step.run_id, step=step.index, attempt=step.attempt),
            heartbeating() as beat,
        ):
            opened = self._open(key)
            if opened.outcome is not None:
                return opened.outcome
            job = self._job(key, beat)
            with bound(session_id=job.run.session_id):
                return self._close(job, self._perform(job), step.last_attempt)

    def _open(self, key: StepKey) -> Opened:
        with self.store.write() as session:
            opened = steps.open_step(session, key)
        if opened.state == "stale":
            raise ApplicationError(
                "the run has ended, or a later attempt has this step", non_retryable=True
            )
        return opened

    def _job(self, key: StepKey, beat: Beat) -> StepJob:
        with self.store.read() as session:
            return load_job(session, key, beat)

    def _perform(self, job: StepJob) -> StepDone:
        log.info("step started", type=job.step.type)
        pulse = Pulse(job, self.tell)
        job.beat.each = pulse.beat
        try:
            return self._dispatched(job, pulse)
        except StepCancelledError:
            return StepDone(StepStatus.CANCELLED)
        except StaleAttemptError as error:
            raise detached(str(error)) from error
        except StepFailure as failure:
            return _failed(job, failure)
        except SandboxError as error:
            if error.retryable:
                raise
            return _failed(job, StepFailure(FailureCode.SANDBOX_FAILED, error.message))
        except DirectorError as error:
            return _failed(job, StepFailure(FailureCode.INTERNAL_ERROR, error.message))
        except _PASSING:
            raise
        except Exception:
            log.exception("a step could not be performed")
            message = "a fault of Director, not of the step; the worker's log tells more"
            return _failed(job, StepFailure(FailureCode.INTERNAL_ERROR, message))

    def _dispatched(self, job: StepJob, pulse: Pulse) -> StepDone:
        match job.step:
            case ExecuteStep() as step:
                return self.executes.perform(job, step, pulse)
            case VerifyStep() as step:
                return self.verifies.perform(job, step)
            case CheckpointStep() as step:
                return self.checkpoints.perform(job, step)

    def _close(self, job: StepJob, done: StepDone, last_attempt: bool) -> StepOutcome:
        failed = done.status in (StepStatus.FAILED, StepStatus.TIMED_OUT)
        written = StepStatus.RETRYING if failed and not last_attempt else done.status
        key = job.key
        with self.store.write() as session:
            steps.close_step(session, key, written, done.result, done.error)
            run = session.get_one(RunRow, key.run_id)
            row = session.get_one(StepRow, (key.run_id, key.index))
            outcome = steps.outcome_of(row, run.host_id)
        log.info("step ended", status=written, code=(done.error or {}).get("code"))
        return outcome


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
        activity_attempt=info.attempt,
    )
