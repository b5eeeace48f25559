"""Copies of a session's context windows and messages: what a checkpoint keeps of them, and what a
restore puts back. Nothing of them is lost on the way through JSON."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from director.domain.base import Json, Shape
from director.domain.ids import CONTEXT, ITEM, MESSAGE, new_id


class ItemCopy(Shape):
    """An item of a window; `number` is its place."""

    id: str
    number: int
    type: str
    content: Any
    details: Json
    importance: float
    tokens: int
    created_at: datetime
    expires_at: datetime | None


class ContextCopy(Shape):
    """A window, its items as they came. `numbered` is the place that was given last."""

    id: str
    name: str
    config: Json
    numbered: int
    created_at: datetime
    updated_at: datetime
    items: list[ItemCopy]


class MessageCopy(Shape):
    """A message; `number` is its place in the session's log."""

    id: str
    number: int
    role: str
    author: str
    content: Any
    details: Json
    created_at: datetime


class Copies(Shape):
    """Windows by their ids, and messages as they were said."""

    context: list[ContextCopy]
    messages: list[MessageCopy]

    def anew(self) -> "Copies":
        """The same under ids of their own, for another session."""
        return Copies(
            context=[
                window.model_copy(
                    update={"id": new_id(CONTEXT), "items": list(_anew(window.items))}
                )
                for window in self.context
            ],
            messages=[
                message.model_copy(update={"id": new_id(MESSAGE)}) for message in self.messages
            ],
        )


def _anew(items: list[ItemCopy]) -> Iterator[ItemCopy]:
    return (item.model_copy(update={"id": new_id(ITEM)}) for item in items)
