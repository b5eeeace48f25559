"""What a follower of a step's output does with server-sent events: it puts the bytes together."""

import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Data = dict[str, Any]


@dataclass
class Told:
    """One server-sent event, or a comment."""

    kind: str
    data: Data = field(default_factory=dict)
    id: str = ""


class Reader:
    """Takes the lines of a stream of server-sent events."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def take(self, line: str) -> Iterator[Told]:
        """The event that a line completes."""
        if line:
            self._lines.append(line)
            return
        fields = dict(one.split(": ", 1) for one in self._lines if not one.startswith(":"))
        comments = [one for one in self._lines if one.startswith(":")]
        self._lines = []
        if comments:
            yield Told("comment")
        if "event" in fields:
            yield Told(fields["event"], json.loads(fields["data"]), fields["id"])


@dataclass
class Whole:
    """The bytes of both streams by attempt, as a client puts them together; a byte that is missing
    or comes twice fails."""

    told: list[Told] = field(default_factory=list)
    content: dict[tuple[int, str], bytearray] = field(default_factory=dict)

    def add(self, told: Told) -> None:
        """Take what was told."""
        self.told.append(told)
        data = told.data
        if told.kind == "restart":
            self.content = {}
        if told.kind == "output":
            before = self.content.setdefault((data["attempt"], data["stream"]), bytearray())
            assert data["offset"] == len(before), f"{told.id} after {len(before)} bytes"
            before += bytes_of(data)

    @property
    def cursor(self) -> str:
        """Where to go on."""
        return next((told.id for told in reversed(self.told) if told.id), "")

    @property
    def ended(self) -> bool:
        """Whether the end was told."""
        return bool(self.told) and self.told[-1].kind == "end"

    def of(self, stream: str, attempt: int = 1) -> bytes:
        """What a stream of an attempt has."""
        return bytes(self.content.get((attempt, stream), b""))


def bytes_of(data: Data) -> bytes:
    """The bytes that a message carries."""
    if data.get("encoding") == "base64":
        return b64decode(data["data"], validate=True)
    return str(data["text"]).encode()
