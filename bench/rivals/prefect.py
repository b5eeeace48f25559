"""Prefect: a flow of three tasks against its own server on SQLite.

`python -m bench.rivals.prefect FOLDER ROUNDS`, in its own environment."""

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from bench.rivals.measuring import free_ports, tell, three_steps

(_PORT,) = free_ports(1)

_REMARK = (
    "a flow in the client's process, states kept by its server over HTTP on SQLite: no sandbox;"
    " a step that was under way is not taken up by another process"
)


def main(folder: Path, rounds: int) -> None:
    """Start a server in a fresh home, then run flows against it."""
    os.environ.update(
        PREFECT_HOME=str(folder / "home"),
        PREFECT_API_URL=f"http://127.0.0.1:{_PORT}/api",
        PREFECT_LOGGING_LEVEL="WARNING",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
    )
    log = (folder / "prefect.log").open("wb")
    command = [str(Path(sys.executable).with_name("prefect")), "server", "start"]
    command += ["--host", "127.0.0.1", "--port", str(_PORT)]
    server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _until_healthy()
        asyncio.run(_measured(rounds, server.pid))
    finally:
        server.terminate()
        server.wait()


def _until_healthy() -> None:
    health, deadline = f"http://127.0.0.1:{_PORT}/api/health", time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(health, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError("Prefect's server does not answer")


async def _measured(rounds: int, server: int) -> None:
    from prefect import flow, task  # reads its settings when it is imported

    @task
    async def nothing(step: str) -> str:
        return step

    @flow
    async def three() -> str:
        said = ""
        for step in ("1", "2", "3"):
            said = await nothing(step)
        return said

    async def one(_: int) -> None:
        await three()

    rows = await three_steps(one, [server, os.getpid()], rounds, {1: 10, 8: 16})
    tell({"name": "Prefect", "remark": _REMARK, "rows": rows})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
