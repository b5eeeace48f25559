"""Policies enforced on what is there: only ever stricter, written once it holds."""

from typing import NamedTuple

from sqlalchemy import delete, or_
from sqlalchemy.orm import aliased
from sqlmodel import Session, col, select

from director.domain import security as domain
from director.domain.errors import ConflictError, NotFoundError, ValidationError
from director.domain.ids import PROFILE, RUN, SANDBOX
from director.domain.lifetimes import OPEN_SANDBOXES, SandboxStatus
from director.domain.policies import EffectivePolicy, NetworkMode, Tightened, tightened
from director.domain.security_events import SecurityEventType
from director.domain.users import Principal
from director.store import locks, networks, sandboxes, security, security_events, sessions
from director.store.tables import (
    EnforcementRow,
    NetworkPolicyRow,
    NetworkRow,
    ProfileRow,
    RunRow,
    SandboxRow,
    SessionRow,
)

_AT_WORK = (
    SandboxStatus.CREATING,
    SandboxStatus.PULLING,
    SandboxStatus.RUNNING,
    SandboxStatus.PAUSED,
)


class Begun(NamedTuple):
    """What is left to do: by the hosts of sandboxes, or by the host of a network; and what is done
    already."""

    answer: domain.Enforcement
    asked: list[tuple[domain.EnforceInput, str]] = []
    """With the host of each."""
    network: NetworkRow | None = None


class ChangedError(Exception):
    """What counts for the sandbox has changed meanwhile: it is to be looked at again."""


def begin(
    session: Session, principal: Principal, policy_id: str, body: domain.EnforceBody
) -> Begun:
    """Write that a policy holds in a session from now on, and find where it is to be brought about.

    Raises NotFoundError, ValidationError for a sandbox of another session, and ConflictError for
    one in which nothing runs any more."""
    policy = _policy(session, principal, policy_id)
    rows = _scoped(session, principal, body.scope)
    if isinstance(policy, ProfileRow):
        policy = security.named(session, principal, policy_id)
    if body.scope.sandbox_id is None and body.scope.session_id is not None:
        security.enforced(session, body.scope.session_id, policy_id)
        _note(session, session.get_one(SessionRow, body.scope.session_id), policy_id)
    answer = domain.Enforcement(
        policy_id=policy_id,
        scope=body.scope,
        applied=[],
        requires_restart=[],
        violations=_of_runs(session, body.scope),
    )
    if isinstance(policy, ProfileRow):
        return _profile(session, policy, rows, body, answer)
    return _network_policy(session, policy, rows, answer)


def wanted(session: Session, row: SandboxRow, policy_id: str) -> Tightened:
    """What a profile makes of what counts for a sandbox. Raises NotFoundError."""
    profile = session.get(ProfileRow, policy_id)
    if profile is None:
        raise NotFoundError("security profile", policy_id)
    return _wanted(row, profile)


def apply(
    session: Session, seen: SandboxRow, policy_id: str, policy: EffectivePolicy
) -> SandboxStatus:
    """Write what holds in a sandbox now; gives where it stands. Raises ChangedError where something
    else counts than when it was `seen`."""
    row = locks.get_one(session, SandboxRow, seen.id)
    if row.effective_policy != seen.effective_policy:
        raise ChangedError(f"the policy of sandbox {row.id} was changed meanwhile")
    security.enforced(session, row.id, policy_id)
    if (shown := policy.model_dump(mode="json")) != row.effective_policy:
        row.effective_policy = shown
        row.memory_mib = policy.resource_limits.memory or row.memory_mib
        row.network_mode = policy.network_mode
        if policy.network_mode == NetworkMode.NONE:
            row.network_id = None
        row.touch()
        session.add(row)
        _note(session, row, policy_id)
    return SandboxStatus(row.status)


def left(session: Session, host_id: str) -> list[tuple[str, str]]:
    """The sandboxes that run on a host under a session in which a profile was enforced that was not
    brought to them, each with the profile."""
    done = aliased(EnforcementRow)
    brought = select(done.subject).where(
        done.subject == SandboxRow.id,
        done.policy_id == EnforcementRow.policy_id,
        done.created_at >= EnforcementRow.created_at,
    )
    statement = select(SandboxRow.id, EnforcementRow.policy_id).where(
        EnforcementRow.subject == SandboxRow.session_id,
        EnforcementRow.policy_id == ProfileRow.id,
        SandboxRow.host_id == host_id,
        col(SandboxRow.status).in_((SandboxStatus.RUNNING, SandboxStatus.PAUSED)),
        ~brought.exists(),
    )
    return [(sandbox_id, policy_id) for sandbox_id, policy_id in session.exec(statement)]


def purge(session: Session, limit: int) -> int:
    """Forget what was enforced on at most `limit` sandboxes and sessions that are gone, with all
    that was in them; gives how many. What is enforced again has one row only, as does all else
    that holds."""
    subject = col(EnforcementRow.subject)
    going = select(SandboxRow.id).where(
        or_(col(SandboxRow.id) == subject, col(SandboxRow.session_id) == subject),
        col(SandboxRow.status).in_(OPEN_SANDBOXES),
    )
    there = select(SessionRow.id).where(
        col(SessionRow.id) == subject, col(SessionRow.deleted_at).is_(None)
    )
    at_work = select(RunRow.id).where(col(RunRow.session_id) == subject, sessions.still_open())
    over = select(subject).where(~going.exists(), ~there.exists(), ~at_work.exists())
    subjects = list(session.exec(over.distinct().limit(limit)))
    session.exec(delete(EnforcementRow).where(subject.in_(subjects)))
    return len(subjects)


def _policy(session: Session, principal: Principal, id: str) -> ProfileRow | NetworkPolicyRow:
    if id.startswith(f"{PROFILE}_"):
        return security.get(session, principal, id)
    row = session.get(NetworkPolicyRow, id)
    if row is None:
        raise NotFoundError("policy", id)
    try:
        networks.get(session, principal, row.network_id)
    except NotFoundError:
        raise NotFoundError("policy", id) from None
    return row


def _scoped(session: Session, principal: Principal, scope: domain.Scope) -> list[SandboxRow]:
    """The sandboxes of a scope in which something runs or will."""
    if scope.session_id is not None:
        sessions.get(session, principal, scope.session_id)
    if scope.sandbox_id is not None:
        return [_one(session, principal, scope)]
    # Whoever makes a sandbox in it waits, and then sees what is enforced: none slips through.
    locks.get(session, SessionRow, scope.session_id)
    inside = (
        SandboxRow.session_id == scope.session_id,
        col(SandboxRow.status).in_(_AT_WORK),
        col(SandboxRow.deleted_at).is_(None),
    )
    ids = list(session.exec(select(SandboxRow.id).where(*inside)))
    return [row for row in locks.each(session, SandboxRow, ids) if row.status in _AT_WORK]


def _one(session: Session, principal: Principal, scope: domain.Scope) -> SandboxRow:
    row = sandboxes.locked(session, principal, scope.sandbox_id or "")
    if scope.session_id not in (None, row.session_id):
        issue = f"is not in session {scope.session_id}"
        detail = {"field": "scope.sandboxId", "issue": issue, "value": row.id}
        message = f"Invalid input data: scope.sandboxId: {issue}"
        raise ValidationError(message, **detail, errors=[detail])
    if row.status not in _AT_WORK:
        message = f"sandbox {row.id} is {row.status}: nothing runs in it any more"
        raise ConflictError(message, sandboxId=row.id, status=row.status)
    return row


def _of_runs(session: Session, scope: domain.Scope) -> list[domain.Violation]:
    """Runs at work are not changed under way."""
    if scope.session_id is None or scope.sandbox_id is not None:
        return []
    issue = "the run is at work: what it began with counts to its end"
    return [
        domain.Violation(sandbox_id=SANDBOX + id.removeprefix(RUN), run_id=id, issue=issue)
        for id in sessions.open_runs(session, scope.session_id)
    ]


def _profile(
    session: Session,
    profile: ProfileRow,
    rows: list[SandboxRow],
    body: domain.EnforceBody,
    answer: domain.Enforcement,
) -> Begun:
    asked = []
    for row in rows:
        if row.host_id is not None:
            wanted = domain.EnforceInput(
                sandbox_id=row.id, policy_id=profile.id, recreate=body.recreate
            )
            asked.append((wanted, row.host_id))
            continue
        # A host reads what it is to make in the transaction in which it takes the sandbox.
        tight = _wanted(row, profile)
        apply(session, row, profile.id, tight.whole)
        fields = [*tight.live, *tight.rest]
        answer.applied.append(domain.FieldsOf(sandbox_id=row.id, fields=fields))
    return Begun(answer, asked)


def _wanted(row: SandboxRow, profile: ProfileRow) -> Tightened:
    return tightened(
        sandboxes.policy_of(row), security.limits_of(profile), security.policy_of(profile)
    )


def _network_policy(
    session: Session,
    policy: NetworkPolicyRow,
    rows: list[SandboxRow],
    answer: domain.Enforcement,
) -> Begun:
    """A policy holds in its own network already; what is in none needs it not, and what is in
    another cannot have it."""
    network = session.get_one(NetworkRow, policy.network_id)
    for row in rows:
        mode = sandboxes.policy_of(row).network_mode
        if mode in (NetworkMode.NONE, NetworkMode.ISOLATED, network.id):
            security.enforced(session, row.id, policy.id)
            answer.applied.append(domain.FieldsOf(sandbox_id=row.id, fields=[]))
        else:
            issue = f"it is connected as {mode}, and the policy is one of network {network.id}"
            answer.violations.append(domain.Violation(sandbox_id=row.id, issue=issue))
    return Begun(answer, network=network)


def _note(session: Session, row: SandboxRow | SessionRow, policy_id: str) -> None:
    sandbox = row if isinstance(row, SandboxRow) else None
    what = f"{'sandbox' if sandbox else 'session'} {row.id}"
    security_events.note(
        session,
        SecurityEventType.POLICY_ENFORCED,
        owner_id=row.owner_id,
        subject=row.id,
        sandbox_id=sandbox.id if sandbox else None,
        session_id=sandbox.session_id if sandbox else row.id,
        rule=policy_id,
        message=f"policy {policy_id} holds in {what}",
        merged=False,
    )
