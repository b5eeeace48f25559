"""`/security`: profiles, what happened, and what is to hold from now on."""

import asyncio
from collections.abc import Iterable
from typing import Annotated
from uuid import uuid4

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AwareDatetime
from sqlmodel import Session

from director.api.answers import created, reply, versioned
from director.api.envelope import Answer, Deleted, ListAnswer, answer, page
from director.api.errors import documented
from director.api.idempotency import OnceDep
from director.api.principals import EditorDep, PrincipalDep
from director.api.refusals import HostAwayError
from director.api.requests import StrictRoute
from director.api.state import GatewayDep, MatchDep, PageDep, QueryInt, StoreDep
from director.domain.errors import (
    ConflictError,
    NotFoundError,
    PreconditionError,
    UnavailableError,
)
from director.domain.pages import DEFAULT_LIMIT
from director.domain.security import (
    EnforceBody,
    EnforceInput,
    Enforcement,
    EnforceOutcome,
    FieldsOf,
    Profile,
    ProfileCreate,
    ProfileUpdate,
    Violation,
)
from director.domain.security_events import (
    MAX_EVENTS,
    SecurityEvent,
    SecurityEventsQuery,
    SecurityEventType,
    SecuritySummary,
    Severity,
)
from director.store import enforcement, security, security_events
from director.store.enforcement import Begun
from director.store.idempotency import Reply

router = APIRouter(prefix="/security", tags=["security"], route_class=StrictRoute)

_CHANGES = documented(NotFoundError, PreconditionError)
_AT_ONCE = 8
"""Sandboxes that one request has changed at a time."""


async def _events_query(
    limit: Annotated[QueryInt, Query(ge=1, le=MAX_EVENTS)] = DEFAULT_LIMIT,
    offset: Annotated[QueryInt, Query(ge=0, le=1_000_000_000)] = 0,
    cursor: Annotated[str | None, Query(max_length=64)] = None,
    severity: Severity | None = None,
    type: SecurityEventType | None = None,
    sandbox_id: Annotated[str | None, Query(alias="sandboxId")] = None,
    session_id: Annotated[str | None, Query(alias="sessionId")] = None,
    run_id: Annotated[str | None, Query(alias="runId")] = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> SecurityEventsQuery:
    return SecurityEventsQuery(
        limit=limit,
        offset=offset,
        cursor=cursor,
        severity=severity,
        type=type,
        sandbox_id=sandbox_id,
        session_id=session_id,
        run_id=run_id,
        since=since,
        until=until,
    )


EventsQueryDep = Annotated[SecurityEventsQuery, Depends(_events_query)]


@router.post(
    "/profiles",
    status_code=201,
    response_model=Answer[Profile],
    operation_id="security.createProfile",
    responses=documented(ConflictError),
)
async def create_profile(body: ProfileCreate, principal: EditorDep, once: OnceDep) -> Response:
    """Create a security profile. Sandboxes and sessions name it as `securityProfileId`, and the
    stricter of it and what they say themselves counts."""
    return await once.write(
        lambda s: created("security/profiles", security.create(s, principal, body))
    )


@router.get("/profiles", operation_id="security.listProfiles", responses=documented())
async def list_profiles(
    principal: PrincipalDep, store: StoreDep, query: PageDep
) -> ListAnswer[Profile]:
    """List security profiles, newest first."""
    return page(*await store.fetch(lambda s: security.listed(s, principal, query)))


@router.get(
    "/profiles/{profile_id}",
    operation_id="security.getProfile",
    responses=documented(NotFoundError),
)
async def get_profile(
    profile_id: str, principal: PrincipalDep, store: StoreDep, response: Response
) -> Answer[Profile]:
    """Get a security profile, with all that it asks for as `policy`."""
    view = await store.fetch(lambda s: security.view(security.get(s, principal, profile_id)))
    versioned(response, view)
    return answer(view)


@router.put("/profiles/{profile_id}", operation_id="security.updateProfile", responses=_CHANGES)
@router.patch("/profiles/{profile_id}", operation_id="security.patchProfile", responses=_CHANGES)
async def update_profile(
    profile_id: str,
    body: ProfileUpdate,
    principal: EditorDep,
    store: StoreDep,
    response: Response,
    match: MatchDep = None,
) -> Answer[Profile]:
    """Change a security profile: absent is unchanged, null clears, `constraints` are merged by key.
    It counts for what is made from now on; enforce it for what is there."""
    view = await store.run(lambda s: security.update(s, principal, profile_id, body, match))
    versioned(response, view)
    return answer(view)


@router.delete(
    "/profiles/{profile_id}",
    operation_id="security.deleteProfile",
    responses=documented(NotFoundError, ConflictError, PreconditionError),
)
async def delete_profile(
    profile_id: str, principal: EditorDep, store: StoreDep, match: MatchDep = None
) -> Answer[Deleted]:
    """Delete a security profile that no living sandbox and no session is under."""
    await store.run(lambda s: security.delete(s, principal, profile_id, match))
    return answer(Deleted(id=profile_id))


@router.get("/events", operation_id="security.events", responses=documented())
async def list_events(
    principal: PrincipalDep, store: StoreDep, query: EventsQueryDep
) -> ListAnswer[SecurityEvent]:
    """List what has happened that security is about, newest first. What comes again within a
    minute is one event with a `count`. Failed logins are shown to admins only."""
    return page(*await store.fetch(lambda s: security_events.listed(s, principal, query)))


@router.get("/events/summary", operation_id="security.summary", responses=documented())
async def summary(principal: PrincipalDep, store: StoreDep) -> Answer[SecuritySummary]:
    """Count security events by severity, type and sandbox, of the last 24 hours and 7 days."""
    return answer(await store.fetch(lambda s: security_events.summary(s, principal)))


@router.post(
    "/policies/{policy_id}/enforce",
    response_model=Answer[Enforcement],
    operation_id="security.enforce",
    responses=documented(NotFoundError, ConflictError, UnavailableError),
)
async def enforce(
    policy_id: str,
    body: EnforceBody,
    principal: EditorDep,
    gateway: GatewayDep,
    once: OnceDep,
) -> Response:
    """Enforce a security profile, or a network's policy, on what is there: a session stands for its
    sandboxes now and later. What holds is never loosened. Memory, cpu and processes change at once;
    what needs a new container is told in `requiresRestart`, or brought about by `recreate`."""

    def write(session: Session) -> tuple[Begun, Reply]:
        begun = enforcement.begin(session, principal, policy_id, body)
        return begun, reply(200, begun.answer, policy_id)

    begun = await once.begin(write, known=False)
    if begun.network is not None:
        await gateway.apply_network(begun.network.host_id, begun.network.id)
    free = asyncio.Semaphore(_AT_ONCE)

    async def one(asked: EnforceInput, host_id: str) -> tuple[str, EnforceOutcome]:
        async with free:
            try:
                outcome = await gateway.enforce(asked, host_id, uuid4().hex)
            except HostAwayError as away:
                outcome = EnforceOutcome(issue=away.message)
        return asked.sandbox_id, outcome

    outcomes = await asyncio.gather(*(one(*each) for each in begun.asked))
    return await once.finish(reply(200, _told(begun.answer, outcomes), policy_id))


def _told(begun: Enforcement, outcomes: Iterable[tuple[str, EnforceOutcome]]) -> Enforcement:
    """The answer with what became of it on the hosts."""
    applied, restart, violations = [*begun.applied], [*begun.requires_restart], [*begun.violations]
    for id, outcome in outcomes:
        if outcome.issue is not None:
            violations.append(Violation(sandbox_id=id, issue=outcome.issue))
            continue
        applied.append(FieldsOf(sandbox_id=id, fields=outcome.applied))
        if outcome.requires_restart:
            restart.append(FieldsOf(sandbox_id=id, fields=outcome.requires_restart))
    changes = {"applied": applied, "requires_restart": restart, "violations": violations}
    return begun.model_copy(update=changes)
