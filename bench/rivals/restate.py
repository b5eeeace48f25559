"""Restate: a durable handler of three steps behind its server, called over HTTP.

`python -m bench.rivals.restate FOLDER ROUNDS SERVER`, in its own environment."""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import restate
from hypercorn.asyncio import serve
from hypercorn.config import Config

from bench.http import Connection
from bench.rivals.measuring import free_ports, tell, three_steps

_REMARK = (
    "over HTTP, no sandbox: its server records bare steps, appended to a log and synced,"
    " faster than Temporal's way"
)
_NAMES = ("ingress", "admin", "node", "service")
_PORTS = dict(zip(_NAMES, free_ports(4), strict=True))

steps = restate.Service("Steps")


async def _nothing() -> str:
    return "done"


@steps.handler()
async def three(ctx: restate.Context, name: str) -> str:
    """Three recorded steps, one after the other."""
    for step in ("1", "2", "3"):
        await ctx.run_typed(step, _nothing)
    return name


def _server(binary: Path, folder: Path) -> subprocess.Popen[bytes]:
    environ = {
        **os.environ,
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{_PORTS['ingress']}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{_PORTS['admin']}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{_PORTS['node']}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{_PORTS['node']}",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RUST_LOG": "warn",
    }
    log = (folder / "restate.log").open("wb")
    command = [str(binary), "--base-dir", str(folder / "data"), "--node-name", "bench"]
    return subprocess.Popen(command, stdout=log, stderr=log, env=environ)


async def _until_answers(path: str, port: int) -> None:
    for _ in range(600):
        with suppress(OSError, EOFError, ValueError):
            status, _body = await Connection(port).request("GET", path)
            if status == 200:
                return
        await asyncio.sleep(0.1)
    raise TimeoutError(f"nobody answers on port {port}")


def main(folder: Path, rounds: int, binary: Path) -> None:
    """Server, service and client, each in a process of its own."""
    server = _server(binary, folder)
    with (folder / "service.log").open("wb") as log:
        command = [sys.executable, "-m", "bench.rivals.restate", "serve"]
        command.append(str(_PORTS["service"]))
        service = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        rows = asyncio.run(_measured(rounds, [server.pid, service.pid, os.getpid()]))
    finally:
        for process in (service, server):
            process.kill()
            process.wait()
    tell({"name": "Restate", "remark": _REMARK, "rows": rows})


async def _measured(rounds: int, pids: list[int]) -> Any:
    await _until_answers("/health", _PORTS["admin"])
    await _register()
    lanes: dict[int, Connection] = {}

    async def one(lane: int) -> None:
        connection = lanes.setdefault(lane, Connection(_PORTS["ingress"]))
        status, said = await connection.request("POST", "/Steps/three", b'"x"')
        if status != 200:
            raise RuntimeError(f"{status}: {said[:500]!r}")

    return await three_steps(one, pids, rounds)


async def _register() -> None:
    body = json.dumps({"uri": f"http://127.0.0.1:{_PORTS['service']}"}).encode()
    for _ in range(100):
        status, said = await Connection(_PORTS["admin"]).request("POST", "/deployments", body)
        if status in (200, 201):
            return
        await asyncio.sleep(0.2)
    raise RuntimeError(f"the service could not be registered: {said[:500]!r}")


async def _serve(port: str) -> None:
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    app: Any = restate.app([steps])
    await serve(app, config)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        asyncio.run(_serve(sys.argv[2]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
