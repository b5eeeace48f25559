"""How long it takes to begin."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.bench import Bench
from bench.engine import engine
from bench.figures import Row, Side
from bench.http import Connection
from bench.installation import Installation, free_ports, remove_containers
from bench.processes import ROOT, until

GROUP = "start-up"

_UP = "from director.cli.main import main; main()"
_LOOK = 0.005


def measure(bench: Bench) -> list[Row]:
    """The command, each part by itself, and the import that every API process pays for."""
    up, api, worker, imported = [], [], [], []
    with engine(bench.say) as docker:
        environ = {"DIRECTOR_SANDBOX_IMAGE": docker.image}
        with bench.real(environ) as director:
            for _ in bench.alternating("start-up"):
                api.append(_again(director, "api"))
                worker.append(_again(director, "worker"))
                imported.append(_python("import director.api.app") - _python("pass"))
                up.append(_up(bench, environ))
    named = {
        "`director up` until it says that it is up": up,
        "API process until its first answer": api,
        "worker process until it serves": worker,
        "import of director.api.app": imported,
    }
    return [Row(GROUP, what, "s", "less", Side(what, took)) for what, took in named.items()]


def _up(bench: Bench, environ: dict[str, str]) -> float:
    """In a fresh home each time: database and namespace are made."""
    home = Path(tempfile.mkdtemp(prefix="up-", dir=bench.folder))
    settings = {"DIRECTOR_HOME": str(home), "DIRECTOR_PORT": str(free_ports().api)}
    begun = time.monotonic()
    with (bench.folder / "up.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _UP, "up"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={
                **os.environ,
                **environ,
                **settings,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
            },
        )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "Director is up." in line:
                return time.monotonic() - begun
        raise RuntimeError(f"director up ended with {process.wait()}")
    finally:
        process.terminate()
        process.communicate()
        remove_containers(home)


def _again(director: Installation, part: str) -> float:
    """End a part and start it again."""
    os.kill(director.stack.pid(part), signal.SIGTERM)
    until(lambda: part in director.stack.ended(), f"{part} ends")
    log = director.stack.log(part)
    read = log.stat().st_size
    begun = time.monotonic()
    director.stack.begin(part)
    if part == "api":
        until(lambda: _alive(director.port), "the API answers", pause=_LOOK)
    else:
        until(lambda: "worker serves" in _since(log, read), "the worker serves", pause=_LOOK)
    return time.monotonic() - begun


def _since(log: Path, read: int) -> str:
    with log.open("rb") as file:
        file.seek(read)
        return file.read().decode(errors="replace")


def _alive(port: int) -> bool:
    async def ask() -> bool:
        connection = Connection(port)
        try:
            status, _ = await connection.request("GET", "/healthz")
        finally:
            connection.close()
        return status == 200

    try:
        return asyncio.run(ask())
    except (OSError, EOFError):
        return False


def _python(code: str) -> float:
    begun = time.monotonic()
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True)
    return time.monotonic() - begun
