"""Record a database of today's version with rows in every table, on purpose only:
`PYTHONPATH=tests python tests/store/schemas/record.py 0002.sql`, at the commit of a release.

A test brings each of these files to the schema of today, whatever that is then."""

import asyncio
import io
import sqlite3
import sys
import tarfile
import tempfile
from contextlib import closing
from pathlib import Path

import httpx
from support.server import TemporalServer
from support.stack import Data, Stack, running_stack

FOLDER = Path(__file__).parent
ONCE = {"Idempotency-Key": "recorded"}
VERIFY = {"type": "verify", "criteria": "output contains 'hé'"}


async def record(name: str) -> None:
    """Let people and runs do what fills every table, then write the database down."""
    with tempfile.TemporaryDirectory() as folder:
        server = TemporalServer(Path(folder))
        server.start()
        try:
            async with running_stack(Path(folder), server.address, "record") as stack:
                await _used(stack)
                path = Path(stack.settings.database_url.removeprefix("sqlite:///"))
                (FOLDER / name).write_text(_dump(path))
        finally:
            server.kill()


async def _used(stack: Stack) -> None:
    await _people(stack)
    await _network(stack)
    session = await stack.session(description='it\'s "quoted";\nand é', config={"timeout": 10**9})
    await _said(stack, session["id"])
    pool = await stack.call(
        "POST",
        "/departments",
        {
            "sessionId": session["id"],
            "name": "Frontend",
            "domain": "frontend",
            "config": {"maxConcurrentTasks": 1},
            "capabilities": ["react"],
        },
    )
    gone = await stack.session(name="gone")
    await stack.call("DELETE", f"/sessions/{gone['id']}")
    archive = await _archive(stack)
    fields = {"session_id": session["id"], "workspace": {"archiveId": archive}}
    checkpoint = {"type": "checkpoint", "name": "kept", "description": "after the first step"}
    done = await stack.run("say hé; complain 'no'; write a.txt hi", VERIFY, checkpoint, **fields)
    change = {"name": "renamed", "steps": [{"type": "execute", "command": "say again"}]}
    await stack.call("PUT", f"/workflows/{done['workflowId']}", change)
    await stack.run("fail 3", session_id=session["id"])
    await stack.workflow("say never", session_id=session["id"], name="not started")
    await _going(stack, pool)


async def _people(stack: Stack) -> None:
    body = {"username": "Vera", "password": "correct horse battery", "role": "viewer"}
    await stack.call("POST", "/users", body, headers=ONCE)
    async with httpx.AsyncClient(base_url=f"{stack.url}/v1") as http:
        login = {key: body[key] for key in ("username", "password")}
        tokens = (await http.post("/auth/login", json=login)).raise_for_status().json()
        bearer = {"Authorization": f"Bearer {tokens['data']['refreshToken']}"}
        (await http.post("/auth/refresh", headers=bearer)).raise_for_status()


async def _network(stack: Stack) -> None:
    network = await stack.call("POST", "/networks", {"name": "A network"}, headers=ONCE)
    path = f"/networks/{network['id']}"
    policy = {"name": "A policy", "outbound": [{"action": "deny"}], "logging": True}
    await stack.call("POST", f"{path}/policies", policy)
    body = {"destinations": [{"host": "8.8.8.8", "port": 443}]}
    await stack.call("POST", f"{path}/allow-access", body)


async def _said(stack: Stack, session_id: str) -> None:
    items = [{"type": "text", "content": "hé", "metadata": {"priority": "high"}}]
    body = {"sessionId": session_id, "name": "A window", "items": items}
    await stack.call("POST", "/context", body)
    message = {"role": "user", "content": {"parts": ["hé"]}}
    await stack.call("POST", f"/sessions/{session_id}/messages", message)


async def _archive(stack: Stack) -> str:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        member = tarfile.TarInfo("src/a.txt")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"hi"))
    response = await stack.http.post(
        "/archives?name=sources", content=content.getvalue(), headers=ONCE
    )
    return str(response.raise_for_status().json()["data"]["id"])


async def _going(stack: Stack, pool: Data) -> None:
    """Runs that have not ended: one that holds the only slot, one in line, one that waits for an
    approval, and one that is held."""
    fields = {"session_id": pool["sessionId"], "departmentId": pool["id"]}
    first = await stack.workflow("wait ever", **fields)
    second = await stack.workflow("say a", "say b", session_id=pool["sessionId"], domain="frontend")
    await stack.start(first["id"])
    await stack.until(first["id"], "running")
    await stack.start(second["id"], {"context": {"reviewer": "ada"}, "environment": {"A": "1"}})
    while (await stack.call("GET", f"/departments/{pool['id']}/metrics"))["queuedTasks"] == 0:
        await asyncio.sleep(0.02)
    asked = await stack.workflow("say x", {"type": "verify", "criteria": "approved"})
    await stack.start(asked["id"])
    await stack.until(asked["id"], "waiting")
    held = await stack.workflow("wait held", "say never")
    await stack.start(held["id"])
    await stack.until(held["id"], "running")
    await stack.call("POST", f"/workflows/{held['id']}/signals/progress", {"percent": 10})
    await stack.call("POST", f"/workflows/{held['id']}/pause")
    stack.gates.open("held")
    await stack.until(held["id"], "paused")


def _dump(path: Path) -> str:
    with closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            assert database.execute(f'SELECT 1 FROM "{table}"').fetchone(), f"{table} is empty"
        return "\n".join(database.iterdump()) + "\n"


if __name__ == "__main__":
    asyncio.run(record(sys.argv[1]))
