"""Activities of a run as a whole: notes on its status and progress, and its settling."""

from dataclasses import dataclass

import structlog
from temporalio import activity

from director.activities.heartbeat import heartbeating
from director.activities.sandboxes import Sandboxes
from director.activities.settling import settle_here
from director.activities.telling import Signals
from director.domain import names
from director.domain.events import EventType
from director.domain.runs import (
    Placed,
    PlaceInput,
    ProgressNote,
    RunStatus,
    SettleInput,
    SettleOutcome,
    StatusNote,
)
from director.store import locks, placement, returns, standing, tickets
from director.store.engine import Store
from director.store.placement import Decision
from director.store.tables import RunRow

log = structlog.get_logger()


@dataclass(frozen=True)
class RunActivities:
    """Writes what concerns a whole run, and removes its sandbox at the end."""

    sandboxes: Sandboxes
    signals: Signals

    @property
    def store(self) -> Store:
        """Where runs are written."""
        return self.sandboxes.store

    @activity.defn(name=names.RECORD_STATUS)
    def record_status(self, note: StatusNote) -> None:
        """Write that a run holds or goes on. One that holds gives back a slot that it has not
        used, and stands in the line where it stood."""
        paused = note.status is RunStatus.PAUSED
        kind = EventType.WORKFLOW_PAUSED if paused else EventType.WORKFLOW_RESUMED
        with self.store.write() as session:
            run = locks.get_one(session, RunRow, note.run_id)
            granted = tickets.put_back(session, run.id) if paused else []
            standing.move(session, run, note.status, kind)
        self.signals.granted(granted)

    @activity.defn(name=names.PLACE)
    def place(self, asked: PlaceInput) -> Placed:
        """Say whether the sandbox of a run is lost with its host, and let the run go on without it
        in that case: from its last checkpoint, else from its first step."""
        with self.store.write() as session:
            run = locks.get_one(session, RunRow, asked.run_id)
            if asked.ending:
                return Placed(lost=placement.settle_elsewhere(session, run))
            if placement.decide(session, run) is not Decision.LOST:
                return Placed(lost=False, host_id=run.host_id)
            repeat_from, granted = returns.begin_elsewhere(session, run, asked.step)
        self.signals.granted(granted)
        log.warning("sandbox lost with its host", run_id=asked.run_id, repeat_from=repeat_from)
        return Placed(lost=True, repeat_from=repeat_from)

    @activity.defn(name=names.RECORD_PROGRESS)
    def record_progress(self, note: ProgressNote) -> None:
        """Write numbered progress into the event log; nothing of a run that has ended, which a
        worker may have written whose workflow task was lost: an end is the last that is told."""
        with self.store.write() as session:
            run = locks.get_one(session, RunRow, note.run_id)
            if RunStatus(run.status).ended:
                return
            for entry in note.entries:
                if entry.number <= run.progress_told:
                    continue  # written by an attempt whose end was lost
                run.progress_told = entry.number
                session.add(run)
                told = {"signal": entry.model_dump(mode="json", exclude_none=True)}
                standing.tell(session, run, EventType.WORKFLOW_PROGRESS, told)

    @activity.defn(name=names.SETTLE, no_thread_cancel_exception=True)
    def settle(self, end: SettleInput) -> SettleOutcome:
        """Remove the sandbox, then write the end: a run that has ended has nothing running."""
        with heartbeating():
            elsewhere = settle_here(self.sandboxes, self.signals, end)
        if elsewhere is None:
            log.info("run settled", run_id=end.run_id, status=end.status)
        return SettleOutcome(host_id=elsewhere)
