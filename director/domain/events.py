"""The event log's catalogue: what can happen, what is told of it, and to whom. Types, the API's
description and `docs/events.md` come from this one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import ConfigDict, Field

from director.domain.base import Json, Shape
from director.domain.lifetimes import SandboxStatus
from director.domain.networks import Direction, NetworkStatus
from director.domain.runs import Progress, RunStatus, StepStatus
from director.domain.sessions import SessionMetrics, SessionStatus
from director.domain.times import Moment


class EventType(StrEnum):
    """Everything that the event log can tell."""

    SESSION_CREATED = "session.created"
    SESSION_UPDATED = "session.updated"
    SESSION_EXPIRED = "session.expired"
    SESSION_DELETED = "session.deleted"
    SESSION_METRICS = "session.metrics"
    MESSAGE_CREATED = "message.created"
    CONTEXT_CREATED = "context.created"
    CONTEXT_UPDATED = "context.updated"
    CONTEXT_DELETED = "context.deleted"
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
    SANDBOX_CREATED = "sandbox.created"
    SANDBOX_STARTED = "sandbox.started"
    SANDBOX_PAUSED = "sandbox.paused"
    SANDBOX_RESUMED = "sandbox.resumed"
    SANDBOX_OOM = "sandbox.oom"
    SANDBOX_STOPPED = "sandbox.stopped"
    SANDBOX_EXPIRED = "sandbox.expired"
    SANDBOX_FAILED = "sandbox.failed"
    SANDBOX_DELETED = "sandbox.deleted"
    NETWORK_CREATED = "network.created"
    NETWORK_UPDATED = "network.updated"
    NETWORK_ISOLATED = "network.isolated"
    NETWORK_DELETED = "network.deleted"
    NETWORK_BLOCKED = "network.blocked"
    SECURITY_ALERT = "security.alert"


class MessageType(StrEnum):
    """The `type` of a frame, as the API document has it."""

    SESSION_UPDATE = "session_update"
    WORKFLOW_PROGRESS = "workflow_progress"
    SANDBOX_EVENT = "sandbox_event"
    SECURITY_ALERT = "security_alert"


class EventData(Shape):
    """What is told of an event: these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class SessionData(EventData):
    """A session as it is after the event."""

    session_id: str
    status: SessionStatus | Literal["deleted"]
    metrics: SessionMetrics = Field(description="Counts of what the session holds.")


class MessageBrief(EventData):
    """A message without what it says."""

    id: str
    role: str
    author: str


class MessageData(SessionData):
    """A session in which something was said."""

    message: MessageBrief = Field(description="The message, without its content.")


class ContextBrief(EventData):
    """A context window without what is in it."""

    id: str
    item_count: int
    token_count: int
    added: list[str] = Field(description="Ids of items that came, at most 100.")
    removed: list[str] = Field(
        description="Ids of items that left, by age, for others, or as asked, at most 100."
    )


class ContextData(SessionData):
    """A session of which a context window has changed."""

    context: ContextBrief = Field(description="The window as it is after the event.")


class StepBrief(EventData):
    """A step without its result, which may be large and hold secrets."""

    index: int = Field(description="Counted from 0.")
    id: str
    type: str
    status: StepStatus
    attempt: int


class StepAtWork(StepBrief):
    """The step that a run is at."""

    start_time: Moment | None


class RunData(EventData):
    """A run as it is after the event."""

    workflow_id: str
    run_id: str
    session_id: str
    event: EventType
    status: RunStatus
    step: int = Field(description="How many steps are completed.")
    total_steps: int
    progress: int = Field(description="Per cent; 100 only where the run is completed.")
    current_step: StepAtWork | None = Field(description="The step at work; null between two.")


class ProgressData(RunData):
    """How far a step or an agent says it is."""

    signal: Progress = Field(description="What was said, with the number that the workflow gave.")


class Signal(EventData):
    """A signal from outside."""

    name: str
    data: Json


class SignalledData(RunData):
    """A run that was sent a signal."""

    signal: Signal = Field(description="The signal's `name` and `data`.")


class SandboxLostData(RunData):
    """A run that goes on with another sandbox."""

    sandbox_losses: int = Field(description="How many sandboxes the run has lost.")
    repeat_from: int = Field(description="Index of the step from which the run goes on.")


class StepEndedData(RunData):
    """A run one of whose steps has come to the end of an attempt."""

    ended_step: StepBrief = Field(description="The step, with the status that it ended with.")


class ResultBrief(EventData):
    """What a run came to, without its output."""

    success: bool
    checkpoint_ids: list[str]


class ErrorBrief(EventData):
    """Why a run did not complete; the message is in the run."""

    code: str
    step: str | None = Field(default=None, description="Id of the step that it ended at.")


class RunEndedData(RunData):
    """A run that has ended."""

    result: ResultBrief = Field(description="Without the output, which is not told.")
    error: ErrorBrief | None = Field(default=None, description="Absent where the run completed.")


class ResourceUsage(EventData):
    """What a sandbox uses; 0 where nothing runs in it."""

    cpu: float = Field(description="Per cent of one core, on average since it was started.")
    memory: float = Field(description="MiB.")


class SandboxData(EventData):
    """A sandbox that somebody made, as it is after the event."""

    sandbox_id: str
    session_id: str | None
    event: str = Field(description="The event's name without `sandbox.`")
    status: SandboxStatus
    resource_usage: ResourceUsage | None = Field(
        description="As its host measured it then; null where it could not be measured."
    )


class OutOfMemoryData(SandboxData):
    """A sandbox in which the kernel has killed a process for want of memory."""

    execution_id: str = Field(description="The command that was at work.")


class NetworkData(EventData):
    """A network as it is after the event."""

    network_id: str
    session_id: str | None
    event: EventType
    status: NetworkStatus | Literal["deleted"]
    change: str = Field(description="What was done, in words.")


class Alert(EventData):
    """Something that people should look at."""

    rule: str = Field(
        description="`BLOCKED_CONNECTION`, or of `security.alert` the rule that has fired."
    )
    severity: Literal["low", "medium", "high", "critical"]
    message: str
    timestamp: Moment


class BlockedData(EventData):
    """A connection that the packet filter refused, told once in ten seconds at most."""

    alert: Alert = Field(description="The same in words.")
    network_id: str
    session_id: str | None = Field(description="Of the network, or else of the sandbox.")
    sandbox_id: str | None = Field(description="Null where the address is none of a sandbox.")
    policy_id: str | None = Field(description="The policy that denied it, where one did.")
    reason: str = Field(
        description="`policy`, `isolated`, `internal`, `protected` (a private or metadata"
        " address), `host`, `outside`, `forged` (not its own address), `dns` (where names are"
        " off) or `ipv6`."
    )
    direction: Direction
    source: str
    destination: str
    protocol: str
    port: int | None = Field(description="Of the destination; null where there are no ports.")
    attempts: int = Field(description="How many packets of it were seen since the last event.")


class AlertData(EventData):
    """An alert rule that has fired, told once in its window for whom it is about."""

    alert: Alert = Field(description="What was seen, in words.")
    security_event_id: str = Field(description="The same in `/security/events`.")
    sandbox_id: str | None
    session_id: str | None
    count: int = Field(description="How often it was seen within the window.")


@dataclass(frozen=True)
class Entry:
    """What the catalogue says of an event.

    `final`: the end of what it tells of. `coalesces`: of several in a row of one subject, a
    listener that is too slow for all gets the newest only; webhooks are never told of such."""

    meaning: str
    data: type[EventData]
    message: MessageType
    final: bool = False
    coalesces: bool = False


_E = EventType
_SESSION, _RUN = MessageType.SESSION_UPDATE, MessageType.WORKFLOW_PROGRESS
_SANDBOX, _ALERT = MessageType.SANDBOX_EVENT, MessageType.SECURITY_ALERT

CATALOGUE: Mapping[EventType, Entry] = {
    _E.SESSION_CREATED: Entry("a session was made", SessionData, _SESSION),
    _E.SESSION_UPDATED: Entry("a session was changed", SessionData, _SESSION),
    _E.SESSION_EXPIRED: Entry("its idle time is over", SessionData, _SESSION),
    _E.SESSION_DELETED: Entry("a session was deleted", SessionData, _SESSION, final=True),
    _E.SESSION_METRICS: Entry("its counts have changed", SessionData, _SESSION, coalesces=True),
    _E.MESSAGE_CREATED: Entry("something was said in it", MessageData, _SESSION),
    _E.CONTEXT_CREATED: Entry("a context window was made in it", ContextData, _SESSION),
    _E.CONTEXT_UPDATED: Entry("items have come into a window, or left it", ContextData, _SESSION),
    _E.CONTEXT_DELETED: Entry("a context window was deleted", ContextData, _SESSION),
    _E.WORKFLOW_QUEUED: Entry("a run was asked for", RunData, _RUN),
    _E.WORKFLOW_STARTED: Entry("its first step begins", RunData, _RUN),
    _E.WORKFLOW_PROGRESS: Entry(
        "a step that lasts, or an agent, says how far it is", ProgressData, _RUN, coalesces=True
    ),
    _E.WORKFLOW_SIGNALLED: Entry("a signal came from outside", SignalledData, _RUN),
    _E.WORKFLOW_PAUSED: Entry("it holds", RunData, _RUN),
    _E.WORKFLOW_RESUMED: Entry("it goes on", RunData, _RUN),
    _E.WORKFLOW_WAITING: Entry("a step waits for an approval", RunData, _RUN),
    _E.WORKFLOW_SANDBOX_LOST: Entry(
        "its sandbox was lost with its host, and it goes on in another", SandboxLostData, _RUN
    ),
    _E.WORKFLOW_CANCELLING: Entry("it is to be cancelled", RunData, _RUN),
    _E.WORKFLOW_COMPLETED: Entry("all steps are done", RunEndedData, _RUN, final=True),
    _E.WORKFLOW_FAILED: Entry("a step failed for good", RunEndedData, _RUN, final=True),
    _E.WORKFLOW_CANCELLED: Entry(
        "its processes are dead and its sandbox is gone", RunEndedData, _RUN, final=True
    ),
    _E.WORKFLOW_TIMED_OUT: Entry("`config.timeout` is over", RunEndedData, _RUN, final=True),
    _E.STEP_QUEUED: Entry("a step waits for a slot or a sandbox", RunData, _RUN),
    _E.STEP_STARTED: Entry("an attempt of a step begins", RunData, _RUN),
    _E.STEP_ENDED: Entry("an attempt of a step has ended", StepEndedData, _RUN),
    _E.SANDBOX_CREATED: Entry("a sandbox was asked for", SandboxData, _SANDBOX),
    _E.SANDBOX_STARTED: Entry("it is made, and commands run in it", SandboxData, _SANDBOX),
    _E.SANDBOX_PAUSED: Entry("its processes are held", SandboxData, _SANDBOX),
    _E.SANDBOX_RESUMED: Entry("its processes go on", SandboxData, _SANDBOX),
    _E.SANDBOX_OOM: Entry("a command ran out of memory", OutOfMemoryData, _SANDBOX),
    _E.SANDBOX_STOPPED: Entry("nothing runs in it any more", SandboxData, _SANDBOX),
    _E.SANDBOX_EXPIRED: Entry(
        "its `maxDuration` is over, and nothing is left of it", SandboxData, _SANDBOX, final=True
    ),
    _E.SANDBOX_FAILED: Entry(
        "it could not be made, its host was given up, or its workflow was ended in Temporal",
        SandboxData,
        _SANDBOX,
        final=True,
    ),
    _E.SANDBOX_DELETED: Entry(
        "it is deleted, and nothing is left of it", SandboxData, _SANDBOX, final=True
    ),
    _E.NETWORK_CREATED: Entry("a network was made", NetworkData, _SANDBOX),
    _E.NETWORK_UPDATED: Entry("what it allows was changed", NetworkData, _SANDBOX),
    _E.NETWORK_ISOLATED: Entry("it was cut off", NetworkData, _SANDBOX),
    _E.NETWORK_DELETED: Entry("a network was deleted", NetworkData, _SANDBOX, final=True),
    _E.NETWORK_BLOCKED: Entry("a sandbox was refused a connection", BlockedData, _ALERT),
    _E.SECURITY_ALERT: Entry("an alert rule has fired", AlertData, _ALERT),
}


def webhook_name(kind: EventType) -> str | None:
    """The event's name for webhooks; None where they are not told."""
    return None if CATALOGUE[kind].coalesces else kind.value


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


@dataclass(frozen=True)
class Wanted:
    """Which events somebody may see and asks for; None is any."""

    owner_id: str | None = None
    types: frozenset[EventType] | None = None
    session_id: str | None = None
    workflow_id: str | None = None

    def takes(self, event: Event) -> bool:
        """Whether an event is among them."""
        return (
            (self.owner_id is None or self.owner_id == event.owner_id)
            and (self.types is None or event.type in self.types)
            and (self.session_id is None or self.session_id == event.session_id)
            and (self.workflow_id is None or self.workflow_id == event.workflow_id)
        )


def types_named(names: list[str]) -> frozenset[EventType]:
    """The events behind names of events and of message types. Raises ValueError."""
    found: set[EventType] = set()
    for name in names:
        if name not in TYPE_NAMES:
            raise ValueError(f"{name!r} is no type; known: {', '.join(TYPE_NAMES)}")
        found |= {kind for kind, entry in CATALOGUE.items() if name in (kind, entry.message)}
    return frozenset(found)


TYPE_NAMES: list[str] = [*map(str, MessageType), *map(str, EventType)]


def tables() -> str:
    """The catalogue in Markdown, as `docs/events.md` has it."""
    shapes = list(dict.fromkeys(entry.data for entry in CATALOGUE.values()))
    lines = [
        "| event | when | frame `type` | `data` | webhook | |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_row(kind, entry) for kind, entry in CATALOGUE.items()),
        "",
        *("\n".join(_fields(shape)) for shape in shapes),
    ]
    return "\n".join(lines)


def _row(kind: EventType, entry: Entry) -> str:
    mark = "final" if entry.final else "coalesces" if entry.coalesces else ""
    webhook = f"`{name}`" if (name := webhook_name(kind)) else "none"
    shape = entry.data.__name__
    told = (f"`{kind}`", entry.meaning, f"`{entry.message}`", f"`{shape}`", webhook, mark)
    return f"| {' | '.join(told)} |".replace("  |", " |")


def _fields(shape: type[EventData]) -> list[str]:
    schema = shape.model_json_schema(mode="serialization")
    base = next(each for each in shape.__mro__[1:] if issubclass(each, EventData))
    own = [field for name, field in shape.model_fields.items() if name not in base.model_fields]
    told = " ".join((shape.__doc__ or "").split())
    lines = [f"### `{shape.__name__}`", ""]
    lines += [f"{told} All fields of `{base.__name__}`, and:" if base.model_fields else told, ""]
    lines += ["| field | type | |", "| --- | --- | --- |"]
    for field in own:
        kind = _kind(schema["properties"][field.alias], schema["$defs"])
        lines.append(
            f"| `{field.alias}` | {kind} | {field.description or ''} |".replace("  |", " |")
        )
    return [*lines, ""]


def _kind(schema: Json, definitions: Json) -> str:
    """A field's type in the words of JSON."""
    if "anyOf" in schema:
        kinds = dict.fromkeys(_kind(each, definitions) for each in schema["anyOf"])
        return " or ".join(kinds)
    if "$ref" in schema:
        return _kind(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "properties" in schema:
        return f"object: {', '.join(f'`{name}`' for name in schema['properties'])}"
    return str(schema.get("type", "object"))
