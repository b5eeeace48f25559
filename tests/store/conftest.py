"""A database with hosts and runs that wait for a place."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from director.domain.hosts import Capacity
from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.domain.workflows import StartWorkflow, WorkflowCreate
from director.store import hosts, runs, sessions, workflows
from director.store.engine import Store

SOMEBODY = Principal(user_id="usr_1", username="a", role=Role.OPERATOR, login_id="lgn_1")

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
