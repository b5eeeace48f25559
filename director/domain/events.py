"""The event log's catalogue: what can happen, and as which WebSocket message it is told."""

from enum import StrEnum

from director.domain.base import Json, Shape
from director.domain.times import Moment


class EventType(StrEnum):
    """Everything that the event log can tell."""

    SESSION_CREATED = "session.created"
    SESSION_UPDATED = "session.updated"
    SESSION_EXPIRED = "session.expired"
    SESSION_DELETED = "session.deleted"
    SESSION_METRICS = "session.metrics"
    WORKFLOW_QUEUED = "workflow.queued"
    WORKFLOW_STARTED = "workflow.started"
    WORKFLOW_PROGRESS = "workflow.progress"
    WORKFLOW_SIGNALLED = "workflow.signalled"
    WORKFLOW_PAUSED = "workflow.paused"
    WORKFLOW_RESUMED = "workflow.resumed"
    WORKFLOW_WAITING = "workflow.waiting"
    WORKFLOW_SANDBOX_LOST = "workflow.sandbox_lost"
    WORKFLOW_CANCELLING = "workflow.cancelling"
    WORKFLOW_COMPLETED = "workflow.completed"
    WORKFLOW_FAILED = "workflow.failed"
    WORKFLOW_CANCELLED = "workflow.cancelled"
    WORKFLOW_TIMED_OUT = "workflow.timed_out"
    STEP_QUEUED = "step.queued"
    STEP_STARTED = "step.started"
    STEP_ENDED = "step.ended"


SESSION_UPDATE, WORKFLOW_UPDATE = "session_update", "workflow_progress"

MESSAGE_TYPES: dict[EventType, str] = {
    kind: SESSION_UPDATE if kind.startswith("session.") else WORKFLOW_UPDATE for kind in EventType
}
"""The WebSocket message `type` of each event."""


class Event(Shape):
    """An entry of the log. `id` is the cursor; `seq` is gapless for each subject."""

    id: int
    seq: int
    subject: str
    type: EventType
    owner_id: str
    session_id: str | None
    workflow_id: str | None
    data: Json
    created_at: Moment
