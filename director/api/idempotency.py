"""`Idempotency-Key`: a request that is sent again is not done again.

A route takes `OnceDep` and does its work through it."""

import hashlib
import json
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Header, Request, Response
from pydantic import AfterValidator

from director.api.once import HEADER, REPLAYED, Answered, KeyedOnce, Once
from director.api.principals import EditorDep
from director.api.state import StoreDep
from director.store.idempotency import Use

_KEY = re.compile(r"[!-~]{1,255}")


def _visible(key: str | None) -> str | None:
    if key is not None and not _KEY.fullmatch(key):
        raise ValueError("must be 1 to 255 visible ASCII characters, without blanks")
    return key


KeyHeader = Annotated[
    str | None,
    AfterValidator(_visible),
    Header(
        alias=HEADER,
        description="A name of your own for what this request does, 1 to 255 visible ASCII"
        " characters such as a UUID. Sent again with the same key and parameters within 24 hours,"
        f" the request is not done again: its first answer is given, with `{REPLAYED}: true`."
        " Other parameters, or a first request that is still at work, are a 409.",
    ),
]


async def _sent(
    request: Request, principal: EditorDep, store: StoreDep, key: KeyHeader = None
) -> AsyncIterator[Once]:
    if key is None:
        yield Once(store)
        return
    use = Use(principal.user_id, request.scope["route"].operation_id, key)
    once = KeyedOnce(store, request.app.state.desk, use, _wait(request))
    try:
        yield once
    except Exception as error:
        if (instead := await once.failed(error)) is error:
            raise
        raise instead from error
    finally:
        once.close()


SentDep = Annotated[Once, Depends(_sent, scope="function")]
"""For a route that reads its body itself, and opens the key then."""


async def _once(request: Request, once: SentDep) -> Once:
    if isinstance(once, KeyedOnce):
        await once.open(content_of(request, _canonical(await _json(request))))
    return once


OnceDep = Annotated[Once, Depends(_once)]
"""For a route with a JSON body or none; the key is judged before the parameters are."""


def content_of(request: Request, body: bytes) -> bytes:
    """What makes two requests equal: method, path, query, and a body or what stands for it.

    `wait` is none of it: it says how long a client stays, not what it wants."""
    query = sorted(pair for pair in request.query_params.multi_items() if pair[0] != "wait")
    digest = hashlib.sha256(body).hexdigest()
    return json.dumps([request.method, request.url.path, query, digest]).encode()


async def _json(request: Request) -> object:
    """The body; where a route takes none, or may go without, an empty object."""
    if request.scope["route"].body_field is None or not await request.body():
        return {}
    value = await request.json()
    return {} if value is None else value


def _canonical(value: object) -> bytes:
    """The same bytes for the same JSON, however it was spaced and ordered."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _wait(request: Request) -> int:
    text = request.query_params.get("wait", "")
    return min(int(text), 60) if text.isascii() and text.isdigit() and len(text) < 3 else 0


async def answered(request: Request, error: Exception) -> Response:
    """The response for `Answered`."""
    assert isinstance(error, Answered)  # noqa: S101 - tells the type checker
    return error.response()
