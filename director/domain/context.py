"""Context windows: what is worth knowing in a session, within bounds. What is over them leaves, the
least important first and of equals the oldest."""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, NamedTuple, Self

from pydantic import ConfigDict, Field, model_validator

from director.domain.base import Body, Content, Int, Json, Name, Number, PlacedError, Shape, example
from director.domain.times import Moment, from_millis

MOST_WINDOWS = 100
"""Windows of one session."""

MOST_ITEMS, DEFAULT_ITEMS = 10_000, 1000
"""What `maxSize` may be, and what it is where nobody says."""

MOST_SENT = 1000
"""Items that a window can be made with."""

SHOWN = 20
"""Items that a window shows with itself; the list has all."""

_TEXTS = ("text", "file", "code", "url")
_TOKEN_BYTES = 4
_YEARS = 10 * 365 * 24 * 3600 * 1000


class Priority(StrEnum):
    """How important an item is, in words."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


_IMPORTANCE = {Priority.HIGH: 0.9, Priority.MEDIUM: 0.5, Priority.LOW: 0.2, None: 0.5}

Share = Annotated[Number, Field(ge=0, le=1)]


class ItemMetadata(Shape):
    """What is said of an item: anything, of which three fields count. `importance` is from 0 to 1
    and wins over `priority`; `tokens` is what the item costs, where somebody has counted."""

    model_config = ConfigDict(extra="allow")

    importance: Share | None = None
    priority: Priority | None = None
    tokens: Annotated[Int, Field(ge=0, le=1_000_000_000)] | None = None


class ItemCreate(Body):
    """An item to add. `content` of the types text, file, code and url is a string, of any other
    type any JSON but null; a `file://…` is a name that nobody opens here."""

    model_config = example(
        type="file",
        content="file://path/to/document.pdf",
        metadata={"title": "Project Requirements", "tags": ["requirements", "specification"]},
    )

    type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    content: Content
    metadata: ItemMetadata = ItemMetadata()

    @model_validator(mode="after")
    def _text_where_it_is_one(self) -> Self:
        if self.type in _TEXTS and not isinstance(self.content, str):
            raise PlacedError(f"must be a string where the type is {self.type}", "content")
        return self

    @property
    def importance(self) -> float:
        """From 0 to 1: as it says, or as its priority stands for, or in the middle."""
        said = self.metadata.importance
        return _IMPORTANCE[self.metadata.priority] if said is None else said

    @property
    def tokens(self) -> int:
        """As it says, or else one for each four bytes of its content, in UTF-8."""
        said = self.metadata.tokens
        return -(-len(_written(self.content)) // _TOKEN_BYTES) if said is None else said


def _written(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode()
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


class RetentionPolicy(Body):
    """How long items stay, in ms from when they came; those that are important enough stay on."""

    max_age: Annotated[Int, Field(ge=1, le=_YEARS)] | None = None
    importance_threshold: Share | None = None

    def expiry(self, importance: float, since: datetime) -> datetime | None:
        """When an item goes by its age; None: never."""
        threshold = self.importance_threshold
        if self.max_age is None or (threshold is not None and importance >= threshold):
            return None
        return since + from_millis(self.max_age)


class ContextConfig(Body):
    """The bounds of a window: `maxSize` counts items, `maxTokens` their tokens."""

    max_size: Annotated[Int, Field(ge=1, le=MOST_ITEMS)] = DEFAULT_ITEMS
    max_tokens: Annotated[Int, Field(ge=1, le=1_000_000_000)] | None = None
    retention_policy: RetentionPolicy = RetentionPolicy()

    def problem(self, item: ItemCreate) -> str | None:
        """Why an item could never be in the window, even alone."""
        if self.max_tokens is None or item.tokens <= self.max_tokens:
            return None
        counted = "as its metadata says" if item.metadata.tokens is not None else "as estimated"
        return f"has {item.tokens} tokens, {counted}, and the window takes {self.max_tokens} in all"


class ContextCreate(Body):
    """A window to make, and what is in it at its begin."""

    model_config = example(
        sessionId="ses_01j9zqk3v8x4r2m6n0p5t7w1ya",
        name="Project Context",
        items=[
            {
                "type": "text",
                "content": "This is a project overview...",
                "metadata": {"source": "project-overview", "priority": "high"},
            }
        ],
        config={
            "maxSize": 100,
            "retentionPolicy": {"maxAge": 86400000, "importanceThreshold": 0.5},
        },
    )

    session_id: str
    name: Name
    items: Annotated[list[ItemCreate], Field(max_length=MOST_SENT)] = []
    config: ContextConfig = ContextConfig()

    @model_validator(mode="after")
    def _each_fits_alone(self) -> Self:
        for number, item in enumerate(self.items):
            if (problem := self.config.problem(item)) is not None:
                raise PlacedError(problem, "items", number, "content")
        return self


class Item(Shape):
    """An item as the API shows it; it never changes."""

    id: str
    context_id: str
    type: str
    content: Any
    metadata: Json
    importance: float
    tokens: int
    tokens_estimated: bool = Field(description="Whether nobody has said how many they are.")
    created_at: Moment
    expires_at: Moment | None = Field(description="When it goes by its age; null: never.")

    @property
    def updated_at(self) -> datetime:
        """When it was last changed, for its ETag."""
        return self.created_at


class AddedItem(Item):
    """An item that was added, and what it drove out."""

    evicted: list[str] = Field(
        description="Ids of the items that left the window for it: those whose time was over, then"
        " the least important. Where all others are more important, its own is among them."
    )


class Context(Shape):
    """A context window as lists show it."""

    id: str
    session_id: str
    owner_id: str
    name: str
    config: Json
    item_count: int
    token_count: int
    created_at: Moment
    updated_at: Moment


class FilledContext(Context):
    """A context window with the first page of its items, newest first."""

    items: list[Item]


class CreatedContext(FilledContext):
    """A context window that was made, and which of its items it had no room for."""

    evicted: list[str]


class Weight(NamedTuple):
    """What counts of an item where some must leave; in this order they do."""

    importance: float
    number: int
    """Counts the items of a window as they come."""
    tokens: int
    id: str


def leaving(items: Iterable[Weight], surplus: int, surplus_tokens: int) -> Iterator[Weight]:
    """Which items leave so that at least so many items, and so many tokens, are gone; `items` come
    in the order in which they leave."""
    for item in items:
        if surplus <= 0 and surplus_tokens <= 0:
            return
        surplus, surplus_tokens = surplus - 1, surplus_tokens - item.tokens
        yield item
