"""Other people beside the admin of the stack, and how an error is read."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from support.stack import Data, Stack

Refusal = Callable[[httpx.Response, int, str], Data]


@pytest.fixture(scope="session")
async def operator(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who may change things, and owns nothing of the admin's."""
    http = await stack.user("olga", "operator")
    yield http
    await http.aclose()


@pytest.fixture(scope="session")
async def viewer(stack: Stack) -> AsyncIterator[httpx.AsyncClient]:
    """Somebody who may only read."""
    http = await stack.user("vera", "viewer")
    yield http
    await http.aclose()


@pytest.fixture
def refused() -> Refusal:
    """Check the whole envelope of an error; gives its details, with the message."""

    def check(response: httpx.Response, status: int, code: str) -> Data:
        assert response.status_code == status, f"{response.status_code} {response.text}"
        body: dict[str, Any] = response.json()
        assert set(body) == {"success", "error", "metadata"}
        assert body["success"] is False
        assert set(body["error"]) == {"code", "message", "details"}
        assert body["error"]["code"] == code
        assert set(body["metadata"]) == {"timestamp", "requestId", "version"}
        assert body["metadata"]["requestId"] == response.headers["x-request-id"]
        assert re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", body["metadata"]["timestamp"])
        return {"message": body["error"]["message"], **body["error"]["details"]}

    return check
