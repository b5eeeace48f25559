"""The life of a sandbox that somebody made: its making, what is wanted of it, and its end."""

from dataclasses import dataclass

import structlog
from sqlmodel import Session
from temporalio import activity
from temporalio.exceptions import ApplicationError

from director.activities.heartbeat import Beat, StepCancelledError, heartbeating
from director.activities.sandboxes import NotPlacedError, Sandboxes
from director.activities.telling import Signals
from director.domain import names
from director.domain.archives import WorkspaceSource
from director.domain.errors import ConflictError, DirectorError
from director.domain.failures import FailureCode
from director.domain.git import Cloned
from director.domain.lifetimes import (
    CreateInput,
    CreateOutcome,
    Metrics,
    SandboxEnd,
    SandboxSettled,
    SandboxStatus,
    SteerInput,
)
from director.domain.policies import NetworkMode
from director.domain.sandboxes import SandboxSpec
from director.networks.filter import FilterError
from director.sandbox.runtime import SandboxError, SandboxNotFoundError
from director.store import executions, networks, placement, sandboxes
from director.store.engine import Store
from director.store.networks import Seat
from director.store.placement import Claim
from director.store.sandboxes import Place
from director.store.tables import SandboxRow

log = structlog.get_logger()

STOP_SECONDS = 10.0
"""What a command has between TERM and KILL where its sandbox is stopped."""


@dataclass(frozen=True)
class Lifetimes:
    """Makes, steers and ends the sandboxes that people make, on this host."""

    sandboxes: Sandboxes
    signals: Signals

    @property
    def store(self) -> Store:
        """Where sandboxes are written."""
        return self.sandboxes.store

    @activity.defn(name=names.CREATE_SANDBOX, no_thread_cancel_exception=True)
    def create(self, asked: CreateInput) -> CreateOutcome:
        """Make a sandbox on this host, or say where it stands instead; what waits in it begins."""
        id = asked.sandbox_id
        with structlog.contextvars.bound_contextvars(sandbox_id=id), heartbeating() as beat:
            try:
                outcome, row = self._placed(id)
                return outcome if row is None else self._made(row, beat)
            except SandboxError as error:
                if error.retryable:
                    raise
                return self._failed(id, error.message)
            except (ConflictError, FilterError) as error:
                return self._failed(id, error.message)
            except StepCancelledError:
                return CreateOutcome(state="unwanted", host_id=self.sandboxes.host_id)

    def _placed(self, id: str) -> tuple[CreateOutcome, SandboxRow | None]:
        """Take a place and memory on this host; no row where the sandbox is not to be made now."""
        host_id = self.sandboxes.host_id
        if (bound := self._bound_elsewhere(id)) is not None:
            return bound, None
        place = self.store.transact(lambda s: sandboxes.take_place(s, id, host_id))
        self.signals.granted(place.granted)
        if place.state != "held":
            return self._not_to_be_made(place), None
        claimed, row = self.store.transact(lambda s: self._claimed(s, id))
        if claimed in (Claim.MINE, Claim.ELSEWHERE):
            here = claimed is Claim.MINE
            elsewhere = CreateOutcome(state="elsewhere", host_id=row.host_id)
            return elsewhere, row if here else None
        if claimed is Claim.FULL and not networks.is_named(row):
            other = self.store.transact(lambda s: placement.with_room(s, row.memory_mib))
            if other is not None and other != host_id:
                return CreateOutcome(state="elsewhere", host_id=other), None
        self.signals.granted(self.store.transact(lambda s: sandboxes.leave_place(s, id)))
        if claimed is Claim.IMPOSSIBLE:
            message = NotPlacedError(claimed, row.memory_mib, None).message
            return self._failed(id, message), None
        return CreateOutcome(state="queued"), None

    def _claimed(self, session: Session, id: str) -> tuple[Claim, SandboxRow]:
        row, host_id = session.get_one(SandboxRow, id), self.sandboxes.host_id
        only_here = networks.is_named(row)
        claimed = placement.claim(session, row, host_id, row.memory_mib, only_here=only_here)
        if claimed is Claim.MINE and row.network_mode == NetworkMode.BRIDGE:
            pool = self.sandboxes.pool
            row.network_id = networks.on_demand(session, row.owner_id, host_id, pool).id
            session.add(row)
        return claimed, row

    def _not_to_be_made(self, place: Place) -> CreateOutcome:
        if place.state == "lost":
            message = "the run's sandbox was lost with its host before anybody could use it"
            return self._failed(place.row.id, message, FailureCode.SANDBOX_LOST)
        if place.state in ("held", "runs"):
            return self._runs(place.row)  # whoever made it could not say so any more
        return CreateOutcome(state=place.state, host_id=place.row.host_id)

    def _bound_elsewhere(self, id: str) -> CreateOutcome | None:
        """What to do instead of making a sandbox on this host where the network that it names is
        on another one, or is gone."""
        with self.store.read() as session:
            row = session.get_one(SandboxRow, id)
            seat, network = networks.seat(session, row, self.sandboxes.host_id)
        if network is None or seat is Seat.HERE or not sandboxes.is_wanted(row):
            return None
        if seat is Seat.ELSEWHERE:
            return CreateOutcome(state="elsewhere", host_id=network.host_id)
        if seat is Seat.AWAY:
            return CreateOutcome(state="queued")
        if seat is Seat.DELETED:
            return self._failed(id, f"network {network.id} was deleted before the sandbox was made")
        gone = f"network {network.id} is on host {network.host_id}, which has not answered for long"
        return self._failed(id, f"{gone}: start its worker, or make another network")

    def _made(self, row: SandboxRow, beat: Beat) -> CreateOutcome:
        spec, host_id = self.sandboxes.spec_of(row), self.sandboxes.host_id

        def pulling() -> None:
            self.store.transact(lambda session: sandboxes.pulling(session, row.id))

        info = self.sandboxes.runtime.create(spec, pulling=pulling)
        cloned = self._filled(row, spec, beat)
        self.sandboxes.joined_network(row)
        usage = self.sandboxes.usage(row.id)

        def begun(session: Session) -> tuple[bool, SandboxRow]:
            begun = sandboxes.begin(session, row.id, host_id, info, usage, cloned)
            return begun, session.get_one(SandboxRow, row.id)

        runs, now = self.store.transact(begun)
        if not runs:
            self.sandboxes.runtime.remove(row.id, epoch=row.sandbox_epoch)
            return CreateOutcome(state="unwanted", host_id=now.host_id)
        log.info("sandbox runs", image=info.resolved_image)
        return self._runs(now)

    def _filled(self, row: SandboxRow, spec: SandboxSpec, beat: Beat) -> Cloned | None:
        if row.workspace is None:
            return None
        source = WorkspaceSource.model_validate(row.workspace)
        try:
            return self.sandboxes.fill(spec, None, source, beat.check)
        except DirectorError as error:
            raise SandboxError(error.message, retryable=False) from error

    def _runs(self, row: SandboxRow) -> CreateOutcome:
        with self.store.read() as session:
            waiting = executions.queued(session, row.id)
        self.signals.execute(waiting, row.host_id or "")
        return CreateOutcome(state="running", host_id=row.host_id, expires_at=row.expires_at)

    def _failed(
        self, id: str, message: str, code: FailureCode = FailureCode.SANDBOX_FAILED
    ) -> CreateOutcome:
        log.warning("a sandbox could not be made", why=message)
        error = {"code": code, "message": message}
        self.store.transact(lambda session: sandboxes.fail(session, id, error))
        return CreateOutcome(state="failed")

    @activity.defn(name=names.STEER_SANDBOX, no_thread_cancel_exception=True)
    def steer(self, asked: SteerInput) -> None:
        """Bring a sandbox to what is wanted of it now."""
        with heartbeating():
            with self.store.read() as session:
                row = session.get_one(SandboxRow, asked.sandbox_id)
            if SandboxStatus(row.status).ended or row.host_id != self.sandboxes.host_id:
                return
            status = self.sandboxes.steer(row, STOP_SECONDS)
            stopped = status is SandboxStatus.STOPPED
            usage = None if stopped else self.sandboxes.usage(row.id)
            written = self.store.transact(
                lambda session: sandboxes.steer(session, row.id, row.intents, status, usage)
            )
            self.signals.granted(written)
        log.info("sandbox steered", sandbox_id=row.id, status=status)

    @activity.defn(name=names.SETTLE_SANDBOX, no_thread_cancel_exception=True)
    def settle(self, end: SandboxEnd) -> SandboxSettled:
        """Stop and remove a sandbox, then write its end: of one that has ended nothing is left."""
        with heartbeating():
            elsewhere = self.settle_here(end)
        with self.store.read() as session:
            status = sandboxes.present(session, end.sandbox_id)
        return SandboxSettled(host_id=elsewhere, status=status)

    def settle_here(self, end: SandboxEnd) -> str | None:
        """The same, unless another host has the sandbox, which is given then."""
        with self.store.read() as session:
            row = session.get_one(SandboxRow, end.sandbox_id)
        if row.host_id not in (None, self.sandboxes.host_id):
            return row.host_id
        if row.status in (SandboxStatus.RUNNING, SandboxStatus.PAUSED):
            self.sandboxes.runtime.stop(row.id, STOP_SECONDS)
        self.sandboxes.runtime.remove(row.id)
        self.signals.granted(self.store.transact(lambda s: sandboxes.settle(s, end)))
        log.info("sandbox settled", sandbox_id=row.id, status=end.status)
        return None

    @activity.defn(name=names.LET_SANDBOX_GO)
    def let_go(self, asked: CreateInput) -> bool:
        """Whether the end of a sandbox need not wait for its host, which is gone."""

        def let_go(session: Session) -> bool:
            row = session.get_one(SandboxRow, asked.sandbox_id)
            return placement.settle_elsewhere(session, row)

        return self.store.transact(let_go)

    @activity.defn(name=names.MEASURE_SANDBOX)
    def measure(self, asked: SteerInput) -> Metrics:
        """What a sandbox uses now."""
        try:
            found = self.sandboxes.runtime.metrics(asked.sandbox_id)
        except SandboxNotFoundError as error:
            raise ApplicationError(
                error.message, type=ConflictError.code, non_retryable=True
            ) from error
        return Metrics.model_validate(found.model_dump())
