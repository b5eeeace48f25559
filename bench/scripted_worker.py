"""A worker as any other, in a process of its own, whose sandboxes run nothing.

So a run costs what Director and Temporal cost, and nothing of Docker."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Sequence

from temporalio.client import Client
from temporalio.service import RPCError

from director.blobs.store import LocalBlobs
from director.domain.hosts import Capacity
from director.logs import set_up_logs
from director.sandbox.scripted import Outcome, ScriptedRuntime
from director.settings import Settings, private_home, read_settings
from director.store.engine import Store
from director.temporal import client as temporal
from director.worker import WorkerHost


def script(argv: Sequence[str]) -> Outcome:
    """`sleep SECONDS` lasts, anything else does nothing, at once."""
    words = shlex.split(argv[-1])
    return Outcome(duration_s=float(words[1]) if words[:1] == ["sleep"] else 0.0)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM, with the settings and slots of `director.worker`."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    client = await _connected(settings)
    store = Store(settings.database_url)
    store.create_tables()
    host = WorkerHost(
        client,
        store,
        LocalBlobs(settings.home / "blobs"),
        ScriptedRuntime(settings.home / "scripted", script),
        host_id="bench",
        image="bench",
        places=settings.places,
        capacity=Capacity(places=settings.sandboxes, memory_mib=settings.memory_mib),
    )
    await host.run(stopped)
    store.close()


async def _connected(settings: Settings) -> Client:
    while True:
        try:
            client = await temporal.connect(
                settings.temporal_address, settings.temporal_namespace, lazy=False
            )
            await temporal.prepare_namespace(client)
        except (RuntimeError, OSError, RPCError):
            await asyncio.sleep(0.2)
        else:
            return client


def main() -> None:
    """Serve, and end at once then, as `director.worker` does."""
    settings = read_settings()
    private_home(settings.home)
    set_up_logs(settings.log_format)
    asyncio.run(serve(settings))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
