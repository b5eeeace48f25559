"""A database with hosts and runs that wait for a place."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from director.domain.hosts import Capacity
from director.domain.lifetimes import SandboxCreate
from director.domain.sandboxes import SandboxInfo
from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate
from director.store import hosts, placement, runs, sandboxes, sessions, workflows
from director.store.engine import Store
from director.store.placement import Claim
from director.store.tables import SandboxRow

SOMEBODY = Principal(user_id="usr_1", username="a", role=Role.OPERATOR, login_id="lgn_1")

INFO = SandboxInfo(id="x", image="i", resolved_image="i@1", created=True)
"""What a host tells of a sandbox that it has made."""

GONE = timedelta(seconds=-1)
"""A lease that has run out."""


@pytest.fixture
def new_run(store: Store) -> Callable[[], str]:
    """Add a run, queued; gives its id."""
    with store.write() as session:
        parent = sessions.create(session, SOMEBODY, SessionCreate(type="a", name="s")).id

    def new_run() -> str:
        steps = [{"type": "execute", "command": "x"}]
        body = {"sessionId": parent, "name": "w", "steps": steps}
        with store.write() as session:
            workflow = workflows.create(session, SOMEBODY, WorkflowCreate.model_validate(body))
            return runs.create(session, SOMEBODY, workflow.id, StartWorkflow()).id

    return new_run


@pytest.fixture
def host(store: Store) -> Callable[..., str]:
    """Register a host; gives its id."""

    def host(
        id: str, places: int = 2, memory_mib: int = 4096, lease: timedelta = hosts.LEASE
    ) -> str:
        with store.write() as session:
            capacity = Capacity(places=places, memory_mib=memory_mib)
            row = hosts.register(session, id, capacity, lease)
            row.lease_until = min(row.lease_until, row.updated_at + lease)
            session.add(row)
        return id

    return host


@pytest.fixture
def made(store: Store) -> Callable[..., str]:
    """Add a sandbox that somebody makes; gives its id."""

    def made(who: Principal = SOMEBODY, **fields: Any) -> str:
        with store.write() as session:
            return sandboxes.create(session, who, SandboxCreate.model_validate(fields)).id

    return made


@pytest.fixture
def running(store: Store, made: Callable[..., str]) -> Callable[..., str]:
    """The same of one that runs, on a host that the test has registered as `h`."""

    def running(**fields: Any) -> str:
        id = made(**fields)
        with store.write() as session:
            assert sandboxes.take_place(session, id, "h").state == "held"
            row = session.get_one(SandboxRow, id)
            assert placement.claim(session, row, "h", row.memory_mib) is Claim.MINE
            assert sandboxes.begin(session, id, "h", INFO)
        return id

    return running
