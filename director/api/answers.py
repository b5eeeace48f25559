"""What routes do again and again with an answer: its bytes, its place, its version."""

from typing import Protocol

from fastapi import Response

from director.api.envelope import answer
from director.store.idempotency import Reply
from director.store.preconditions import Timed, etag


class Identified(Protocol):
    """What the API shows of something that has an id."""

    @property
    def id(self) -> str: ...


def created(path: str, resource: Timed) -> Reply:
    """Answer with the new resource, where it is, and which version it is."""
    return added(path, resource, ETag=etag(resource))


def added(path: str, resource: Identified, **headers: str) -> Reply:
    """Answer with the new resource, and where it is."""
    location = f"/v1/{path}/{resource.id}"
    return reply(201, resource, resource.id, Location=location, **headers)


def reply(status: int, data: object, made: str, **headers: str) -> Reply:
    """Answer with one object, in bytes that can be kept and given again."""
    body = answer(data).model_dump_json().encode()
    return Reply(status=status, body=body, headers=headers, made=made)


def responded(reply: Reply, **headers: str) -> Response:
    """Turn a reply into the framework's response."""
    return Response(
        reply.body, reply.status, {**reply.headers, **headers}, media_type="application/json"
    )


def versioned(response: Response, resource: Timed) -> None:
    """Say which version of the resource the answer shows."""
    response.headers["ETag"] = etag(resource)
