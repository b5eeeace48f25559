"""Messages: the ordered log of what agents and people say in a session."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from director.domain.base import Body, Content, Json, Name, Shape, example
from director.domain.times import Moment

MOST_MESSAGES = 100_000
"""Messages of one session."""


class MessageCreate(Body):
    """Something to say: a text, or any JSON but null. Without `author` it is whoever sends it."""

    model_config = example(
        role="assistant",
        author="reviewer",
        content="All tests pass; the change can be merged.",
        metadata={"model": "a-model"},
    )

    role: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    author: Name | None = None
    content: Content
    metadata: Json = {}


class Message(Shape):
    """A message as the API shows it; it never changes."""

    id: str
    session_id: str
    role: str
    author: str
    content: Any
    metadata: Json
    created_at: Moment

    @property
    def updated_at(self) -> datetime:
        """When it was last changed, for its ETag."""
        return self.created_at
