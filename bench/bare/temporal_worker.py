"""Serve `ThreeSteps`: `python -m bench.bare.temporal_worker ADDRESS QUEUE RUNNER`, where RUNNER is
`sandboxed`, `plain`, or `not eager`, which is sandboxed too."""

import asyncio
import sys

from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from bench.bare.temporal_workflows import ThreeSteps, nothing


async def main(address: str, queue: str, runner: str) -> None:
    """Serve until nobody holds the standard input open any more."""
    plain = runner == "plain"
    worker = Worker(
        await Client.connect(address),
        task_queue=queue,
        workflows=[ThreeSteps],
        activities=[nothing],
        workflow_runner=UnsandboxedWorkflowRunner() if plain else SandboxedWorkflowRunner(),
        disable_eager_activity_execution=runner == "not eager",
    )
    async with worker:
        sys.stdout.write("serves\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
