"""A database as it is after a long time: many workflows of many people, and a long event log.

In a small one all belongs to one person; in a large one that person has just as much, spread
evenly among what fifty others have."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Connection, text
from sqlmodel import SQLModel

from director.api.tokens import Passwords
from director.domain.events import EventType
from director.domain.runs import RunStatus
from director.domain.users import Role
from director.domain.workflows import Definition
from director.store import users
from director.store.engine import Store
from director.store.tables import (
    CheckpointRow,
    DefinitionRow,
    DepartmentRow,
    EventRow,
    RunRow,
    SessionRow,
    StepRow,
    WorkflowRow,
)

PASSWORD = "correct horse battery"
PERSON = "person"

_OTHERS = 50
_BATCH = 5000
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_STATUSES = (
    *(RunStatus.RUNNING,) * 20,
    RunStatus.WAITING,
    *(RunStatus.FAILED,) * 14,
    *(RunStatus.COMPLETED,) * 65,
)


@dataclass(frozen=True)
class Size:
    """How much there is, and how much of it is the person's."""

    workflows: int
    events: int
    persons: int

    @property
    def sessions(self) -> int:
        """Two hundred workflows are in a session."""
        return self.workflows // 200

    @property
    def every(self) -> int:
        """Every so-many-th workflow is the person's."""
        return self.workflows // self.persons


SMALL = Size(workflows=1000, events=1000, persons=1000)
LARGE = Size(workflows=100_000, events=1_000_000, persons=1000)


def seed(url: str, size: Size) -> None:
    """Fill an empty database, and let it know what is in it as it would after some hours."""
    store = Store(url)
    store.create_tables()
    with store.write() as session:
        hashed = Passwords().hash_now(PASSWORD)
        users.create_user(session, "admin", hashed, Role.ADMIN)
        person = users.create_user(session, PERSON, hashed, Role.OPERATOR).id
    with store.engine.begin() as connection:
        for kind, rows in _Content(size, person).tables():
            _insert(connection, kind, rows)
    _settle(store)
    store.close()


def _insert(connection: Connection, kind: type[SQLModel], rows: Iterator[dict[str, Any]]) -> None:
    statement = kind.__table__.insert()  # type: ignore[attr-defined]
    while batch := list(islice(rows, _BATCH)):
        connection.execute(statement, batch)


def _settle(store: Store) -> None:
    """What Postgres does by itself soon after so many rows came."""
    if store.engine.dialect.name == "postgresql":
        alone = store.engine.execution_options(isolation_level="AUTOCOMMIT")
        with alone.connect() as connection:
            connection.execute(text("VACUUM ANALYZE"))
            connection.execute(text("CHECKPOINT"))


@dataclass(frozen=True)
class _Content:
    size: Size
    person: str

    def tables(self) -> Iterator[tuple[type[SQLModel], Iterator[dict[str, Any]]]]:
        """All rows, table by table."""
        size = self.size
        yield SessionRow, self._each(size.sessions, self._session)
        yield DepartmentRow, self._each(2 * size.sessions, self._department)
        yield WorkflowRow, self._each(size.workflows, self._workflow)
        yield DefinitionRow, self._each(size.workflows, self._definition)
        yield RunRow, self._each(size.workflows, self._run)
        yield StepRow, self._each(size.workflows, self._step)
        yield CheckpointRow, self._each(size.workflows, self._checkpoint)
        yield EventRow, self._each(size.events, self._event)

    def _each(
        self, count: int, row: Callable[[int, datetime], dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        step = timedelta(days=180) / count
        return (row(number, _BEGIN + step * number) for number in range(count))

    def _owner(self, session: int) -> str:
        """The person's sessions lie evenly among the others'."""
        is_mine = session % self.size.every == 0
        return self.person if is_mine else f"usr_{session % _OTHERS:026}"

    def _session_of(self, workflow: int) -> int:
        return workflow % self.size.sessions

    def _session(self, number: int, at: datetime) -> dict[str, Any]:
        return {
            "id": _id("ses", number),
            "owner_id": self._owner(number),
            "type": "director",
            "name": f"Session {number}",
            "status": "paused" if number % 5 == 0 else "active",
            "config": {},
            "created_at": at,
            "updated_at": at,
        }

    def _department(self, number: int, at: datetime) -> dict[str, Any]:
        session = number % self.size.sessions
        return {
            "id": _id("dep", number),
            "session_id": _id("ses", session),
            "owner_id": self._owner(session),
            "name": f"Department {number}",
            "domain": "frontend" if number % 2 else "backend",
            "status": "active",
            "config": {},
            "capabilities": ["react"],
            "created_at": at,
            "updated_at": at,
        }

    def _workflow(self, number: int, at: datetime) -> dict[str, Any]:
        session = self._session_of(number)
        return {
            "id": _id("wf", number),
            "session_id": _id("ses", session),
            "owner_id": self._owner(session),
            "name": f"Workflow {number}",
            "version": 1,
            "status": self._status(number),
            "latest_run_id": _id("run", number),
            "deleted_at": at if number // self.size.sessions % 20 == 7 else None,
            "created_at": at,
            "updated_at": at,
        }

    def _status(self, number: int) -> RunStatus:
        """Statuses are no multiple of sessions: each session has them all."""
        return _STATUSES[number // self.size.sessions * 37 % 100]

    def _definition(self, number: int, at: datetime) -> dict[str, Any]:
        steps = [{"type": "execute", "command": f"make {number}"}, _VERIFY]
        stored = Definition.model_validate({"steps": steps}).model_dump(mode="json")
        return {
            "workflow_id": _id("wf", number),
            "version": 1,
            "definition": stored,
            "created_at": at,
        }

    def _run(self, number: int, at: datetime) -> dict[str, Any]:
        session, status = self._session_of(number), self._status(number)
        return {
            "id": _id("run", number),
            "workflow_id": _id("wf", number),
            "version": 1,
            "session_id": _id("ses", session),
            "owner_id": self._owner(session),
            "status": status,
            "environment": {},
            "context": {},
            "priority": 5,
            "total_steps": 2,
            "result": {"success": True, "output": "ok"} if status.ended else None,
            "host_id": "host",
            "sandbox_epoch": 0,
            "workspace_ready": True,
            "superseded": [],
            "pause_wanted": False,
            "cancel_wanted": False,
            "signal_count": 0,
            "progress_told": 0,
            "created_at": at,
            "updated_at": at,
        }

    def _step(self, number: int, at: datetime) -> dict[str, Any]:
        return {
            "run_id": _id("run", number),
            "index": 0,
            "id": "step-1",
            "type": "execute",
            "status": "completed",
            "attempt": 1,
            "repeats": 0,
            "requires": [],
            "activity_attempt": 1,
            "result": {"exitCode": 0, "stdout": "x" * 200},
            "started_at": at,
            "ended_at": at,
        }

    def _checkpoint(self, number: int, at: datetime) -> dict[str, Any]:
        session = self._session_of(number)
        return {
            "id": _id("ckp", number),
            "session_id": _id("ses", session),
            "owner_id": self._owner(session),
            "workflow_id": _id("wf", number),
            "run_id": _id("run", number),
            "step": "step-2",
            "attempt": f"{number}",
            "name": "kept",
            "status": "ready",
            "skipped": [],
            "created_at": at,
        }

    def _event(self, number: int, at: datetime) -> dict[str, Any]:
        """Every so-many-th event is the person's, so that a small log has only those."""
        size = self.size
        every = size.events // size.persons
        if number % every == 0:
            workflow = number // every * size.every % size.workflows
        else:
            workflow = number % size.workflows
            workflow += workflow % size.every == 0
        session = self._session_of(workflow)
        run = _id("run", workflow)
        data = {
            "workflowId": _id("wf", workflow),
            "runId": run,
            "sessionId": _id("ses", session),
            "event": EventType.STEP_ENDED,
            "status": "running",
            "step": 1,
            "totalSteps": 2,
            "progress": 50,
            "currentStep": None,
        }
        return {
            "subject": run,
            "seq": number + 1,
            "type": EventType.STEP_ENDED,
            "owner_id": self._owner(session),
            "session_id": _id("ses", session),
            "workflow_id": _id("wf", workflow),
            "data": data,
            "created_at": at,
        }


_VERIFY = {"type": "verify", "criteria": "exit code is 0"}


def _id(prefix: str, number: int) -> str:
    """Ids that sort by their number, as those of a time do."""
    millis = int(_BEGIN.timestamp() * 1000) + number
    value = millis << 80 | (number * 2654435761) % 2**80
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))
