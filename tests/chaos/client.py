"""A client of the REST API that asks again until it is answered, as a careful one does."""

import asyncio
import secrets
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]

_TIMEOUT = httpx.Timeout(8.0, connect=2.0)
_PAUSE = 0.25


class RefusedError(Exception):
    """An answer that asking again does not change."""

    def __init__(self, method: str, path: str, status: int, error: Json) -> None:
        super().__init__(f"{method} {path}: {status} {error.get('code')}: {error.get('message')}")
        self.status = status
        self.details: Json = error.get("details") or {}


class Api:
    """Logs in by itself; every POST carries an `Idempotency-Key` that all its tries share."""

    def __init__(self, address: str, password_file: Path) -> None:
        limits = httpx.Limits(max_connections=64, max_keepalive_connections=16)
        self._http = httpx.AsyncClient(
            base_url=f"{address}/v1", timeout=_TIMEOUT, limits=limits, trust_env=False
        )
        self._login = {"username": "admin", "password": password_file.read_text().strip()}
        self.token = ""
        self.tries: Counter[str] = Counter()
        """How many requests were answered, and how many were not or with which 5xx."""
        self.faults: list[str] = []
        """Answers that no client should get."""

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def login(self) -> str:
        """Log in and give the token."""
        answer = await self._answered("POST", "/auth/login", self._login)
        self.token = str(answer.json()["data"]["token"])
        return self.token

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Call a route as often as it takes; gives `data`. Raises RefusedError."""
        return (await self._answered(method, path, body, **options)).json()["data"]

    async def text(self, path: str) -> str:
        """The content of a route that has no envelope."""
        return (await self._answered("GET", path)).text

    async def listed(self, path: str, **query: Any) -> list[Json]:
        """All pages of a list."""
        found: list[Json] = []
        while True:
            query = {**query, "limit": 100, "offset": len(found)}
            page = (await self._answered("GET", path, params=query)).json()
            found += page["data"]
            if not page["metadata"]["pagination"]["hasMore"]:
                return found

    async def _answered(
        self, method: str, path: str, body: Any = None, **options: Any
    ) -> httpx.Response:
        headers = {"Idempotency-Key": secrets.token_hex(16)} if method == "POST" else {}
        while True:
            answer = await self._tried(method, path, body, headers, options)
            if answer is not None and answer.status_code == 401 and not path.startswith("/auth"):
                await self.login()
            elif answer is not None and answer.status_code == 409 and (wait := _to_wait(answer)):
                await asyncio.sleep(wait)
            elif answer is not None and answer.status_code < 500:
                return _accepted(method, path, answer)
            else:
                await asyncio.sleep(_PAUSE)

    async def _tried(
        self, method: str, path: str, body: Any, headers: Json, options: Json
    ) -> httpx.Response | None:
        authorised = {**headers, "Authorization": f"Bearer {self.token}"} if self.token else headers
        try:
            answer = await self._http.request(
                method, path, json=body, headers=authorised, **options
            )
        except httpx.HTTPError as error:
            self.tries[type(error).__name__] += 1
            return None
        self.tries["answered" if answer.status_code < 500 else str(answer.status_code)] += 1
        if answer.status_code == 500:
            self.faults.append(f"{method} {path}: {answer.text[:300]}")
        return answer


def _accepted(method: str, path: str, answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    raise RefusedError(method, path, answer.status_code, answer.json().get("error") or {})


def _to_wait(answer: httpx.Response) -> float:
    """Seconds after which to ask again where a try before, cut off, holds the key still."""
    details = answer.json()["error"].get("details") or {}
    return float(details.get("retryAfter", 0)) if "idempotencyKey" in details else 0.0


def seconds_of(moment: str | None) -> float | None:
    """The API's time as seconds since the epoch."""
    return None if moment is None else datetime.fromisoformat(moment).timestamp()
