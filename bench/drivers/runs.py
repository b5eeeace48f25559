"""Starts runs through Director's REST API and waits for their end, as a client would."""

import time
from typing import Any

import uvloop

from bench.http import Connection, logged_in
from bench.processes import answer, many

_TOKEN_LIFE = 600


class Runs:
    """Workflows that are started again and again; each lane has a workflow and a connection."""

    def __init__(self) -> None:
        self._lanes: list[tuple[Connection, str]] = []
        self._port, self._password, self._logged_in = 0, "", 0.0
        self._session = ""

    async def prepare(
        self, port: int, password: str, lanes: int, commands: list[str], config: Any = None
    ) -> Any:
        """Make a workflow for each lane, of the same commands."""
        self._port, self._password = port, password
        self._lanes = []
        connection = await logged_in(port, password)
        session = {"type": "bench", "name": "Bench"}
        self._session = (await connection.call("POST", "/sessions", session))["id"]
        body = {
            "sessionId": self._session,
            "name": "Bench",
            "steps": [{"type": "execute", "command": command} for command in commands],
            **({"config": config} if config else {}),
        }
        for _ in range(lanes):
            made = await connection.call("POST", "/workflows", body)
            self._lanes.append((Connection(port), made["id"]))
        await self._log_in()
        connection.close()
        return self._session

    async def run(self, concurrency: int, count: int) -> Any:
        """Start so many runs, so many at once, each to its end."""
        if time.monotonic() - self._logged_in > _TOKEN_LIFE:
            await self._log_in()
        return await many(concurrency, count, self._one)

    async def _one(self, lane: int) -> None:
        connection, workflow = self._lanes[lane]
        run = await connection.call("POST", f"/workflows/{workflow}/start?wait=60", {})
        if run["status"] != "completed":
            raise RuntimeError(f"the run is {run['status']}: {run['error']}")

    async def _log_in(self) -> None:
        fresh = await logged_in(self._port, self._password)
        fresh.close()
        for connection, _ in self._lanes:
            connection.headers = fresh.headers
        self._logged_in = time.monotonic()


async def main() -> None:
    """Do what is asked."""
    runs = Runs()
    await answer({"prepare": runs.prepare, "run": runs.run})


if __name__ == "__main__":
    uvloop.run(main())
