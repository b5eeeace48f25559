"""Sends one request again and again, over kept-open connections."""

import time
from typing import Any

import uvloop

from bench.http import Connection
from bench.processes import answer, many


async def load(
    port: int,
    method: str,
    path: str,
    headers: dict[str, str],
    concurrency: int,
    count: int,
    body: str | None = None,
) -> Any:
    """So many requests, so many at once. Raises RuntimeError for an answer that is no success."""
    content = None if body is None else body.encode()
    lanes = [Connection(port, headers) for _ in range(concurrency)]

    async def one(lane: int) -> None:
        status, said = await lanes[lane].request(method, path, content)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {said[:500].decode()}")

    used = time.process_time()
    done = await many(concurrency, count, one)
    for lane in lanes:
        lane.close()
    return {**done, "client_cpu": time.process_time() - used}


async def main() -> None:
    """Do what is asked."""
    await answer({"load": load})


if __name__ == "__main__":
    uvloop.run(main())
