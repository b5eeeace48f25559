"""What routes do again and again with an answer: its place, its version."""

from fastapi import Response

from director.store.preconditions import Timed, etag


def created(response: Response, path: str, resource: Timed) -> None:
    """Say where the new resource is, and which version it is."""
    response.headers["Location"] = f"/v1/{path}/{resource.id}"
    versioned(response, resource)


def versioned(response: Response, resource: Timed) -> None:
    """Say which version of the resource the answer shows."""
    response.headers["ETag"] = etag(resource)
