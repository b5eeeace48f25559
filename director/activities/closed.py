"""Runs whose execution ended without settling them: terminated in the Temporal UI, say."""

from dataclasses import dataclass

import structlog
from sqlmodel import col, select
from temporalio.client import WorkflowExecutionStatus

from director.activities.rounds import all_tried
from director.activities.sandboxes import Sandboxes
from director.activities.settling import settle_here
from director.activities.telling import Signals
from director.domain.failures import FailureCode
from director.domain.runs import RunStatus, SettleInput
from director.store import locks, placement, runs, settling
from director.store.engine import Store
from director.store.sessions import still_open
from director.store.tables import RunRow

log = structlog.get_logger()

_ENDS = {
    WorkflowExecutionStatus.CANCELED.name: (RunStatus.CANCELLED, FailureCode.CANCELLED),
    WorkflowExecutionStatus.TERMINATED.name: (RunStatus.CANCELLED, FailureCode.TERMINATED),
    WorkflowExecutionStatus.TIMED_OUT.name: (RunStatus.TIMED_OUT, FailureCode.TIMEOUT),
}
_OTHER_END = (RunStatus.FAILED, FailureCode.INTERNAL_ERROR)


@dataclass(frozen=True)
class ClosedRuns:
    """Settles them: whoever finds one writes what is to be done, the run's host does it."""

    sandboxes: Sandboxes
    signals: Signals

    @property
    def store(self) -> Store:
        """Where the runs are."""
        return self.sandboxes.store

    def close(self, run_id: str, status: WorkflowExecutionStatus) -> None:
        """Write that a run's execution is closed, and settle it as far as this host may."""
        with self.store.write() as session:
            run = locks.get_one(session, RunRow, run_id)
            if RunStatus(run.status).ended:
                return
            if run.closed_as is None:
                run.closed_as = status.name
                session.add(run)
                runs.stop(session, run_id)
        if not self._settle_here(run_id):
            self._settle_elsewhere(run_id)

    def settle_here(self) -> None:
        """Settle those whose sandbox is on this host. Raises SandboxError after all were tried."""
        mine = (RunRow.host_id == self.sandboxes.host_id, still_open())
        with self.store.read() as session:
            closed = select(RunRow.id).where(col(RunRow.closed_as).is_not(None), *mine)
            found = list(session.exec(closed))
        all_tried(found, self._settle_here)

    def _settle_here(self, run_id: str) -> bool:
        """Settle a run unless another host has its sandbox; False then."""
        with self.store.read() as session:
            run = session.get_one(RunRow, run_id)
        if RunStatus(run.status).ended:
            return True
        settled = settle_here(self.sandboxes, self.signals, _end_of(run)) is None
        if settled:
            _say(run)
        return settled

    def _settle_elsewhere(self, run_id: str) -> None:
        with self.store.write() as session:
            run = locks.get_one(session, RunRow, run_id)
            if RunStatus(run.status).ended or not placement.settle_elsewhere(session, run):
                return
            granted = settling.settle(session, _end_of(run))
        self.signals.granted(granted)
        _say(run)


def _end_of(run: RunRow) -> SettleInput:
    status, code = _ENDS.get(run.closed_as or "", _OTHER_END)
    return SettleInput(run_id=run.id, status=status, code=code)


def _say(run: RunRow) -> None:
    log.warning("run is settled, its execution had ended", run_id=run.id, closed_as=run.closed_as)
