"""Reading a request body strictly: JSON as RFC 8259 has it, bounded in size and depth."""

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from director.domain.errors import MediaTypeError, PayloadTooLargeError, ValidationError

MAX_BODY = 1024 * 1024
MAX_DEPTH = 64


class StrictRequest(Request):
    """A request whose JSON is refused where it is no JSON that everybody reads the same."""

    async def body(self) -> bytes:
        """The body, refused as soon as it is over `MAX_BODY`."""
        if not hasattr(self, "_body"):
            check_declared(self, MAX_BODY)
            chunks, size = [], 0
            async for chunk in self.stream():
                size += len(chunk)
                if size > MAX_BODY:
                    raise too_large(MAX_BODY)
                chunks.append(chunk)
            self._body = b"".join(chunks)
        return self._body

    async def json(self) -> Any:
        """The parsed body. Raises ValidationError, or MediaTypeError for another content type."""
        if not hasattr(self, "_json"):
            _check_media_type(self.headers.get("content-type"))
            self._json = parse_json(await self.body())
        return self._json


class StrictRoute(APIRoute):
    """A route that reads its body through `StrictRequest`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        has_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            if has_body and await strict.body():
                await strict.json()
            return await handler(strict)

        return handle


def check_declared(request: Request, limit: int) -> None:
    """Refuse a body that says itself that it is too large, before any of it is read."""
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:18]) > limit:
        raise too_large(limit)


def too_large(limit: int) -> PayloadTooLargeError:
    """The error of a body over its limit."""
    return PayloadTooLargeError(f"the body is over {limit} bytes", limitBytes=limit)


def parse_json(body: bytes) -> Any:
    """Parse JSON; NaN, Infinity, numbers out of range, lone surrogates and depth are errors."""
    try:
        text = body.decode("utf-8")
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise _problem(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise _problem(f"nested deeper than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise _problem(str(error)) from None
    _check_values(value)
    return value


def _check_media_type(content_type: str | None) -> None:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise MediaTypeError(
            f"the content type is {media_type or 'missing'}; send application/json",
            contentType=media_type or None,
        )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _check_values(value: Any) -> None:
    stack = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, str):
            _check_text(item)
        elif isinstance(item, dict | list):
            if depth > MAX_DEPTH:
                raise _problem(f"nested deeper than {MAX_DEPTH} levels")
            children = item.values() if isinstance(item, dict) else item
            stack.extend((child, depth + 1) for child in children)
            if isinstance(item, dict):
                stack.extend((key, depth) for key in item)


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _problem("a string holds a lone surrogate, which is no Unicode text") from None


def _problem(issue: str) -> ValidationError:
    message = f"the body is not valid JSON: {issue}"
    detail = {"field": "body", "issue": issue}
    return ValidationError(message, **detail, errors=[detail])
