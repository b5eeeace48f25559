"""Queries of security profiles, and where they hold."""

from collections.abc import Iterable

from pydantic.alias_generators import to_camel
from sqlalchemy import func
from sqlmodel import Session, col, select

from director.domain import security as domain
from director.domain.departments import Ceiling
from director.domain.errors import ConflictError, NotFoundError
from director.domain.ids import POLICY, PROFILE, new_id
from director.domain.lifetimes import OPEN_SANDBOXES
from director.domain.pages import PageQuery, Pagination
from director.domain.policies import NetworkMode, ResourceLimits, SecurityLevel, SecurityPolicy
from director.domain.sessions import merged
from director.domain.users import Principal
from director.store import locks, security_events
from director.store.inserts import insert_into
from director.store.lists import paged
from director.store.ownership import owned, visible
from director.store.preconditions import check_match
from director.store.tables import (
    EnforcementRow,
    NetworkPolicyRow,
    ProfileRow,
    SandboxRow,
    SessionRow,
)

MOST = 100
"""Profiles of one owner."""

_SHOWN = 20


def create(session: Session, principal: Principal, body: domain.ProfileCreate) -> domain.Profile:
    """Add a profile. Raises ConflictError where the owner has too many."""
    mine = select(func.count()).select_from(ProfileRow)
    if session.exec(mine.where(ProfileRow.owner_id == principal.user_id)).one() >= MOST:
        raise ConflictError(f"you have {MOST} profiles, as many as allowed", quota="profiles")
    row = ProfileRow(
        id=new_id(PROFILE),
        owner_id=principal.user_id,
        name=body.name,
        description=body.description,
        level=body.level,
        constraints=body.constraints.model_dump(mode="json", exclude_none=True),
        resource_limits=body.resource_limits.model_dump(mode="json", exclude_none=True),
    )
    session.add(row)
    session.flush()
    security_events.changed(session, row, f"security profile {body.name!r} was made")
    return view(row)


def get(session: Session, principal: Principal, id: str) -> ProfileRow:
    """The profile of that id, if the principal may see it. Raises NotFoundError."""
    row = session.get(ProfileRow, id)
    if row is None or not visible(principal, row.owner_id):
        raise NotFoundError("security profile", id)
    return row


def listed(
    session: Session, principal: Principal, query: PageQuery
) -> tuple[list[domain.Profile], Pagination]:
    """A page of the profiles that the principal may see."""
    rows, pagination = paged(session, ProfileRow, owned(principal, ProfileRow), query)
    return [view(row) for row in rows], pagination


def update(
    session: Session, principal: Principal, id: str, body: domain.ProfileUpdate, match: str | None
) -> domain.Profile:
    """Merge a change into a profile, for what is made under it from now on."""
    row = _locked(session, principal, id)
    check_match(row, match)
    for field in {"name", "description", "level"} & body.model_fields_set:
        setattr(row, field, getattr(body, field))
    if "constraints" in body.model_fields_set:
        row.constraints = merged(row.constraints, body.constraints)
    if "resource_limits" in body.model_fields_set:
        row.resource_limits = merged(row.resource_limits, body.resource_limits)
    row.touch()
    session.add(row)
    session.flush()
    fields = sorted(to_camel(name) for name in body.model_fields_set)
    message = f"security profile {row.name!r} was changed"
    security_events.changed(session, row, message, fields=fields)
    return view(row)


def delete(session: Session, principal: Principal, id: str, match: str | None) -> None:
    """Remove a profile. Raises ConflictError while a sandbox or a session is under it."""
    row = _locked(session, principal, id)
    check_match(row, match)
    sandboxes, sessions = _users(session, id)
    if sandboxes or sessions:
        raise ConflictError(
            f"profile {id} holds for {len(sandboxes)} sandboxes and {len(sessions)} sessions:"
            " delete them first, or give the sessions another",
            sandboxes=sandboxes[:_SHOWN],
            sessions=sessions[:_SHOWN],
        )
    session.delete(row)
    session.flush()
    security_events.changed(session, row, f"security profile {row.name!r} was deleted")


def view(row: ProfileRow) -> domain.Profile:
    """The profile as the API shows it."""
    return domain.Profile.model_validate({**row.model_dump(), "policy": policy_of(row)})


def policy_of(row: ProfileRow) -> SecurityPolicy:
    """What a profile asks for in all."""
    constraints = SecurityPolicy.model_validate(row.constraints)
    return SecurityLevel(row.level).with_constraints(constraints)


def limits_of(row: ProfileRow) -> ResourceLimits:
    """How much a sandbox under a profile may have."""
    ceiling = Ceiling.model_validate(row.resource_limits)
    return ResourceLimits(cpu=ceiling.cpu, memory=ceiling.memory)


def policies(
    session: Session, owner: Principal | None, profile_id: str | None, session_id: str | None
) -> domain.Given:
    """What is asked of a sandbox by the profile that it names, by that of its session, and by those
    that were enforced in its session; the strictest of all counts.

    Raises NotFoundError where the owner may not see the profile that it names; None was checked
    before."""
    if profile_id is not None:
        named(session, owner, profile_id)
    return given(session, profile_id, session_id)


def given(session: Session, profile_id: str | None, session_id: str | None) -> domain.Given:
    """The same, for who only looks. Raises NotFoundError where the profile is gone."""
    rows = []
    if profile_id is not None:
        if (row := session.get(ProfileRow, profile_id)) is None:
            raise NotFoundError("security profile", profile_id)
        rows.append(row)
    if session_id is not None:
        rows += _of_session(session, session_id)
    return domain.Given([limits_of(row) for row in rows], [policy_of(row) for row in rows])


def named(session: Session, owner: Principal | None, id: str) -> ProfileRow:
    """A profile that something comes under, so that it is not deleted meanwhile. Raises
    NotFoundError where the owner may not see it; None was checked before."""
    if owner is not None:
        get(session, owner, id)
    row = locks.get(session, ProfileRow, id)
    if row is None:
        raise NotFoundError("security profile", id)
    return row


def check_network(session: Session, session_id: str | None, mode: str) -> None:
    """Raise ConflictError for a sandbox that is to be connected otherwise than by a network whose
    policy was enforced in its session."""
    if session_id is None or mode in (NetworkMode.NONE, NetworkMode.ISOLATED):
        return
    of_it = col(EnforcementRow.policy_id) == col(NetworkPolicyRow.id)
    enforced = select(EnforcementRow.policy_id, NetworkPolicyRow.network_id).outerjoin(
        NetworkPolicyRow, of_it
    )
    of_networks = col(EnforcementRow.policy_id).startswith(f"{POLICY}_", autoescape=True)
    for policy_id, network_id in session.exec(
        enforced.where(EnforcementRow.subject == session_id, of_networks)
    ):
        if network_id is None or network_id != mode:
            held = f"of network {network_id}" if network_id else "which is gone,"
            instead = "by that network, or not at all" if network_id else "not at all"
            raise ConflictError(
                f"policy {policy_id} {held} is enforced in session {session_id}: connect the"
                f" sandbox {instead} (isolated or none)",
                policyId=policy_id,
                networkId=network_id,
            )


def enforced(session: Session, subject: str, policy_id: str) -> None:
    """Note that a profile or a network policy holds for a session or a sandbox, as it is now;
    idempotent."""
    insert = insert_into(session, EnforcementRow)
    row = EnforcementRow(subject=subject, policy_id=policy_id)
    now = {"created_at": row.created_at}
    session.exec(
        insert.values(**row.model_dump()).on_conflict_do_update(
            index_elements=["subject", "policy_id"], set_=now
        )
    )


def _of_session(session: Session, id: str) -> Iterable[ProfileRow]:
    parent = session.get(SessionRow, id)
    own = [parent.security_profile_id] if parent and parent.security_profile_id else []
    of_it = select(EnforcementRow.policy_id).where(EnforcementRow.subject == id)
    wanted = sorted({*own, *session.exec(of_it)})
    if not wanted:
        return []
    return session.exec(select(ProfileRow).where(col(ProfileRow.id).in_(wanted)))


def _locked(session: Session, principal: Principal, id: str) -> ProfileRow:
    locks.get(session, ProfileRow, id)
    return get(session, principal, id)


def _users(session: Session, id: str) -> tuple[list[str], list[str]]:
    """The living sandboxes and the sessions that are under a profile."""
    put_under = select(EnforcementRow.subject).where(EnforcementRow.policy_id == id)
    living = col(SandboxRow.status).in_(OPEN_SANDBOXES)
    holding = (col(SandboxRow.security_profile_id) == id) | col(SandboxRow.id).in_(put_under)
    named = (col(SessionRow.security_profile_id) == id) | col(SessionRow.id).in_(put_under)
    there = col(SessionRow.deleted_at).is_(None)
    return (
        list(session.exec(select(SandboxRow.id).where(living, holding))),
        list(session.exec(select(SessionRow.id).where(there, named))),
    )
