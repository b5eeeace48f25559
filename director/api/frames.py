"""What a listener gets: events and a few words of our own, each written as JSON once."""

import json
from collections.abc import Iterable
from functools import cached_property, reduce
from operator import or_
from typing import Annotated, Any, Literal

from fastapi.sse import format_sse_event
from pydantic import Field, create_model
from typing_extensions import TypeAliasType
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from director.domain.base import Json, Shape
from director.domain.events import CATALOGUE, Entry, Event, EventType
from director.domain.times import Moment, rfc3339

RESYNC = "resync_required"

_LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}


class Frame:
    """One message, as all its listeners get it; `cursor` is where to go on after it."""

    def __init__(self, name: str, text: str, cursor: int, event: Event | None = None) -> None:
        self.name, self.text, self.cursor, self.event = name, text, cursor, event

    @cached_property
    def sse(self) -> bytes:
        """As server-sent event."""
        return format_sse_event(event=self.name, data_str=self.text, id=str(self.cursor))

    @cached_property
    def message(self) -> bytes:
        """As text message of a WebSocket, the same for each: a server masks and compresses
        nothing."""
        return WebSocketFrame(Opcode.TEXT, self.text.encode()).serialize(mask=False)


def told(event: Event, coalesced: int = 0) -> Frame:
    """The frame of an event, which may stand for some before it as well."""
    name = CATALOGUE[event.type].message
    content: Json = {
        "type": name,
        "data": event.data,
        "id": event.id,
        "seq": event.seq,
        "event": event.type,
        "timestamp": rfc3339(event.created_at),
    }
    if coalesced:
        content["coalesced"] = coalesced
    return Frame(name, written(content), event.id, event)


def resync(cursor: int, oldest: int) -> Frame:
    """Says that events were missed for good: what is shown is to be read anew."""
    data = {"cursor": cursor, "oldest": oldest}
    return Frame(RESYNC, written({"type": RESYNC, "data": data}), cursor)


def quiet(cursor: int) -> Frame:
    """Nothing but where to go on from: a comment that keeps an event stream open."""
    frame = Frame("", "", cursor)
    frame.sse = format_sse_event(comment="", id=str(cursor))
    return frame


def written(content: Json) -> str:
    """As compact JSON on one line, also for those who end a line at more characters than JSON."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_LINE_ENDS)


def coalesced(events: Iterable[Event]) -> list[Frame]:
    """The frames of events, of those that may be coalesced only the last in a row of a subject."""
    kept: dict[int, tuple[Event, int]] = {}
    last: dict[str, Event] = {}
    for event in events:
        count, before = 0, last.get(event.subject)
        if before and before.type == event.type and CATALOGUE[event.type].coalesces:
            count = kept.pop(before.id)[1] + 1
        kept[event.id] = event, count
        last[event.subject] = event
    return [told(event, count) for event, count in kept.values()]


class FrameShape(Shape):
    """A frame of an event, as the WebSocket, the event stream and the long-poll have it."""

    id: int = Field(description="The cursor: what to go on from after this frame.")
    seq: int = Field(description="Counts the events of one run or session from 1, without a gap.")
    timestamp: Moment
    coalesced: int | None = Field(
        default=None, description="So many events of the subject right before it are left out."
    )


class ResyncData(Shape):
    """Where a listener goes on that has missed events for good."""

    cursor: int = Field(description="From here on it is told what happens.")
    oldest: int = Field(description="From here on events are kept: a cursor to resume from.")


class ResyncFrame(Shape):
    """The cursor is older than what is kept, or none of this log."""

    type: Literal["resync_required"]
    data: ResyncData


def _shape(kind: EventType, entry: Entry) -> Any:
    named = "".join(word.capitalize() for word in kind.replace(".", "_").split("_"))
    fields: dict[str, Any] = {
        "type": (Literal[entry.message.value], ...),
        "event": (Literal[kind.value], ...),
        "data": (entry.data, ...),
    }
    meaning = f"`{kind}`: {entry.meaning}."
    return create_model(f"{named}Frame", __base__=FrameShape, __doc__=meaning, **fields)


_SHAPES = [_shape(kind, entry) for kind, entry in CATALOGUE.items()]
_ANY_FRAME: Any = Annotated[reduce(or_, _SHAPES), Field(discriminator="event")]
EventFrame = TypeAliasType("EventFrame", _ANY_FRAME)
"""The frame of any event; `event` tells which."""
