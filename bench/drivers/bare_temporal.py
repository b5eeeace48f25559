"""Starts `ThreeSteps` with Temporal's own client and waits for the results."""

import asyncio
from typing import Any
from uuid import uuid4

from temporalio.client import Client

from bench.bare.temporal_workflows import ThreeSteps
from bench.processes import answer, many


class Starts:
    """The client."""

    async def connect(self, address: str) -> Any:
        """Connect to the server."""
        self._client = await Client.connect(address)

    async def run(self, queue: str, concurrency: int, count: int) -> Any:
        """Start so many workflows, so many at once, each to its result."""

        async def one(_: int) -> None:
            await self._client.execute_workflow(ThreeSteps.run, id=str(uuid4()), task_queue=queue)

        return await many(concurrency, count, one)


async def main() -> None:
    """Do what is asked."""
    starts = Starts()
    await answer({"connect": starts.connect, "run": starts.run})


if __name__ == "__main__":
    asyncio.run(main())
