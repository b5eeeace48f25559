"""Output as messages, for server-sent events and the WebSocket: text where it is UTF-8, else
base64, so that whoever puts the pieces together has every byte."""

import codecs
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal

import structlog
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from director.api.frames import written
from director.api.outputs import (
    IDLE_SECONDS,
    Ended,
    NextAttempt,
    OutputReader,
    Piece,
    Restarted,
)
from director.domain.base import Json
from director.domain.errors import BrokenOffError
from director.domain.outputs import STREAMS, OutputCursor, Stream
from director.store import steps
from director.store.outputs import Look
from director.store.tables import ExecutionRow, StepRow

log = structlog.get_logger()

MAX_TOLD = 64 * 1024
"""Bytes of output in one message; as JSON that is at most six times as much."""

Kind = Literal["output", "restart", "attempt", "end"]


@dataclass(frozen=True)
class Message:
    """One message; whoever resumes behind its cursor gets what follows it."""

    kind: Kind
    data: Json
    cursor: OutputCursor


class _Texts:
    """Cuts pieces into messages; the begin of a character waits for its rest."""

    def __init__(self, cursor: OutputCursor) -> None:
        self._at = cursor
        self._held: dict[Stream, bytes] = dict.fromkeys(STREAMS, b"")

    def cut(self, piece: Piece) -> Iterator[Message]:
        """The messages of a piece."""
        self._at = piece.cursor
        end = piece.cursor.at(piece.stream)
        position = end - len(piece.content)
        for start in range(0, len(piece.content), MAX_TOLD):
            chunk = piece.content[start : start + MAX_TOLD]
            position += len(chunk)
            yield from self._told(piece.stream, chunk, position)

    def rest(self) -> Iterator[Message]:
        """Characters that were begun and are never completed."""
        for stream in STREAMS:
            if held := self._held[stream]:
                self._held[stream] = b""
                yield self._message(stream, _encoded(held), held, self._at.at(stream))

    def begin(self, cursor: OutputCursor) -> None:
        """Go on with other output."""
        self._at, self._held = cursor, dict.fromkeys(STREAMS, b"")

    def _told(self, stream: Stream, chunk: bytes, position: int) -> Iterator[Message]:
        content = self._held[stream] + chunk
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            text, self._held[stream] = decoder.decode(content), decoder.getstate()[0]
        except UnicodeDecodeError:
            self._held[stream] = b""
            yield self._message(stream, _encoded(content), content, position)
        else:
            told = content[: len(content) - len(self._held[stream])]
            if told:
                yield self._message(stream, {"text": text}, told, position)

    def _message(self, stream: Stream, shown: Json, told: bytes, position: int) -> Message:
        """A message with bytes that end at a position, but for those that are held back."""
        cursor = self._at.moved(stream, position)
        for name, held in self._held.items():
            cursor = cursor.moved(name, cursor.at(name) - len(held))
        offset = cursor.at(stream) - len(told)
        data = {"stream": stream, "offset": offset, **shown, "attempt": cursor.attempt}
        return Message("output", data, cursor)


async def messages(
    reader: OutputReader, idle: float = IDLE_SECONDS
) -> AsyncIterator[Message | None]:
    """What a follower is told; None where there was nothing for a while."""
    texts = _Texts(reader.cursor)
    async for told in reader.read(follow=True, idle=idle):
        match told:
            case Piece():
                for message in texts.cut(told):
                    yield message
            case Restarted(cursor):
                texts.begin(cursor)
                yield Message("restart", {"attempt": cursor.attempt}, cursor)
            case NextAttempt(cursor):
                for message in texts.rest():
                    yield message
                texts.begin(cursor)
                yield Message("attempt", {"attempt": cursor.attempt}, cursor)
            case Ended(cursor, look):
                for message in texts.rest():
                    yield message
                yield Message("end", _how(cursor, look), cursor)
            case _:
                yield None


async def server_sent(reader: OutputReader, idle: float = IDLE_SECONDS) -> AsyncIterator[bytes]:
    """The messages as server-sent events, whose ids are cursors; no `end` where it breaks off."""
    try:
        async for message in messages(reader, idle):
            yield _server_sent(message)
    except BrokenOffError as error:
        log.info("output broken off", why=str(error))


def _server_sent(message: Message | None) -> bytes:
    if message is None:
        return KEEPALIVE_COMMENT
    return format_sse_event(
        event=message.kind, id=str(message.cursor), data_str=written(message.data)
    )


def _encoded(content: bytes) -> Json:
    return {"data": b64encode(content).decode(), "encoding": "base64"}


def _status(row: StepRow | ExecutionRow) -> str:
    return row.status if isinstance(row, ExecutionRow) else steps.outcome_of(row, None).status


def _how(cursor: OutputCursor, look: Look) -> Json:
    """How the attempt ended. Of an earlier one only its output is kept."""
    row = look.step
    present = row.attempt == cursor.attempt
    result: Json = (row.result or {}) if present else {}
    return {
        "attempt": cursor.attempt,
        "status": _status(row) if present else None,
        "exitCode": result.get("exitCode"),
        "truncated": result.get("truncated"),
        "bytes": {stream: result.get(f"{stream}Bytes") for stream in STREAMS},
    }
