"""What the API asks of Temporal keeps no client waiting for as long as Temporal is away."""

import asyncio

from support.server import free_port

from director.api.gateway import Gateway
from director.temporal import client as temporal


async def test_many_runs_are_cancelled_in_the_time_of_one_while_temporal_is_away() -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    gateway = Gateway(await temporal.connect(nowhere, "default", lazy=True))

    async with asyncio.timeout(20):
        await gateway.cancel_all([f"run_{number}" for number in range(100)])
