"""A profile brought about in a sandbox that is there, on this host."""

from dataclasses import dataclass, field

import structlog
from temporalio import activity

from director.activities.complaints import Complaint
from director.activities.heartbeat import heartbeating
from director.activities.lifetimes import Lifetimes
from director.activities.refusals import refusals_told
from director.activities.tending import Reminders
from director.domain import names
from director.domain.lifetimes import SandboxStatus
from director.domain.policies import EffectivePolicy, NetworkMode, Tightened
from director.domain.security import EnforceInput, EnforceOutcome
from director.sandbox.runtime import SandboxError
from director.store import enforcement, sandboxes
from director.store.tables import SandboxRow

log = structlog.get_logger()


@dataclass(frozen=True)
class Enforcements:
    """Makes sandboxes on this host stricter: first in the kernel, then in the database. Each is
    safe to repeat, and repeated where another was faster: what holds is never loosened."""

    lifetimes: Lifetimes
    _again: Reminders = field(default_factory=Reminders)
    _left: Complaint = field(
        default_factory=lambda: Complaint("what was enforced is left", "what was enforced holds")
    )

    @activity.defn(name=names.ENFORCE_POLICY, no_thread_cancel_exception=True)
    def enforce(self, asked: EnforceInput) -> EnforceOutcome:
        """Bring about what a profile asks for, as far as that can be without a new container, or
        with one where it may be made."""
        with refusals_told(), heartbeating():
            return self._enforced(asked)

    def catch_up(self) -> None:
        """Bring about what was enforced in sessions while their sandboxes here could not be asked,
        as far as that can be without new containers. Nothing that fails in here is raised, or keeps
        another sandbox from its turn."""
        failure: Exception | None = None
        try:
            with self.lifetimes.store.read() as session:
                left = enforcement.left(session, self.lifetimes.sandboxes.host_id)
        except Exception as error:
            failure, left = error, []
        for pair in self._again.due([" ".join(each) for each in left]):
            sandbox_id, policy_id = pair.split()
            try:
                self._enforced(EnforceInput(sandbox_id=sandbox_id, policy_id=policy_id))
            except Exception as error:
                failure = error
        if failure is not None:
            self._left.fails(failure)
        else:
            self._left.works()

    def _enforced(self, asked: EnforceInput) -> EnforceOutcome:
        store, host_id = self.lifetimes.store, self.lifetimes.sandboxes.host_id
        with store.read() as session:
            row = session.get_one(SandboxRow, asked.sandbox_id)
            wanted = enforcement.wanted(session, row, asked.policy_id)
            run_id = sandboxes.used_by(session, row.id)
        remake = asked.recreate and bool(wanted.rest)
        issue = _issue(row, host_id, remake=remake)
        if issue is None and remake:
            issue = _not_remade(run_id, wanted)
        if issue is not None:
            return EnforceOutcome(issue=issue)
        try:
            policy = self._brought(row, wanted, remake=remake)
        except SandboxError as error:
            if error.retryable:
                raise
            return EnforceOutcome(issue=error.message)
        status = store.transact(lambda s: enforcement.apply(s, row, asked.policy_id, policy))
        if status is not SandboxStatus.RUNNING and remake:
            self.lifetimes.sandboxes.runtime.stop(row.id, 0)  # it was stopped meanwhile
        log.info("policy enforced", sandbox_id=row.id, policy=asked.policy_id, remade=remake)
        if remake:
            return EnforceOutcome(applied=[*wanted.live, *wanted.rest])
        return EnforceOutcome(applied=wanted.live, requires_restart=wanted.rest)

    def _brought(self, row: SandboxRow, wanted: Tightened, *, remake: bool) -> EffectivePolicy:
        here = self.lifetimes.sandboxes
        if remake:
            spec = here.spec_of(row).under(wanted.whole)
            made = here.runtime.remake(spec)
            if spec.network is not None:
                here.joined_network(row)
            return wanted.whole.with_held(made.held)
        if {"cpu", "memory", "maxProcesses"} & {*wanted.live}:
            here.runtime.limit(here.spec_of(row).under(wanted.now))
        if wanted.now.network_mode == NetworkMode.NONE:
            here.leave_network(row)
        return wanted.now


def _not_remade(run_id: str | None, wanted: Tightened) -> str | None:
    """Why a sandbox gets no new container."""
    if run_id is not None:
        return f"run {run_id} works in it: recreate it once that has ended"
    if "allowFilesystem" in wanted.rest:
        return "what was written in it cannot be taken from it: make another one without files"
    return None


def _issue(row: SandboxRow, host_id: str, *, remake: bool) -> str | None:
    """Why nothing can be enforced in a sandbox now."""
    if row.host_id != host_id:
        return "it has gone to another host: enforce it again"
    if SandboxStatus(row.status).beginning:
        return "it is being made just now: enforce it again once it runs"
    if row.status not in (SandboxStatus.RUNNING, SandboxStatus.PAUSED):
        return f"it is {row.status}: nothing runs in it any more"
    if remake and (row.status != SandboxStatus.RUNNING or row.pause_wanted or row.stop_wanted):
        return f"it is {row.status}: only one that runs is recreated"
    return None
