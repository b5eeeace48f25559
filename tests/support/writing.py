"""A step that is under way for as long as a test wants, what it writes, and who follows it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from sqlmodel import Session
from support.following import Reader, Told, Whole
from support.stack import Data, Stack

from director.blobs.store import LocalBlobs
from director.store import outputs
from director.store.tables import OutputRow

EVENTS = {"Accept": "text/event-stream"}
BINARY = bytes(range(256)) * 3
TEXT = "caf\u00e9 \U0001f600 10 %\r20 %\r\n\x00\x1b[2K\ufeffe\u0301\u2028\u2029\x85end\n".encode()


def gate_name() -> str:
    """A gate that no other test opens."""
    return f"output-{secrets.token_hex(4)}"


class Step:
    """A step that is under way for as long as the test wants, and what it writes."""

    def __init__(self, stack: Stack, workflow: Data, run: Data, gate: str) -> None:
        self.stack, self.workflow, self.run, self._gate = stack, workflow, run, gate
        self.path = f"/workflows/{workflow['id']}/runs/{run['runId']}/steps/1/output"

    async def write(self, content: bytes, stream: str = "stdout", attempt: int = 1) -> None:
        """Record a piece behind what the stream has."""

        def append(session: Session) -> None:
            of = (self.run["runId"], 0, attempt)
            blobs = LocalBlobs(self.stack.settings.home / "blobs")
            small = len(content) <= outputs.INLINE
            row = OutputRow(
                run_id=self.run["runId"],
                step=0,
                attempt=attempt,
                stream=stream,
                offset=outputs.recorded(session, *of, stream),  # type: ignore[arg-type]
                size=len(content),
                hash="" if small else blobs.put(content),
                content=content if small else None,
            )
            outputs.append(session, row)

        await self.stack.store.run(append)

    async def forget(self) -> None:
        """Forget what the step has written, as for a command that was lost."""
        run_id = self.run["runId"]
        await self.stack.store.run(lambda session: outputs.forget(session, run_id, 0, 1))

    async def end(self) -> Data:
        """Let the command end."""
        self.stack.gates.open(self._gate)
        return await self.stack.ended(self.workflow["id"])

    @asynccontextmanager
    async def followed(self, query: str = "", cursor: str = "") -> AsyncIterator["Following"]:
        """Follow it with server-sent events."""
        headers = EVENTS | ({"Last-Event-ID": cursor} if cursor else {})
        async with self.stack.http.stream(
            "GET", f"{self.path}?{query}", headers=headers
        ) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            yield Following(response)

    async def all(self, query: str = "", cursor: str = "") -> Whole:
        """Everything that a follower is told until the end."""
        async with self.followed(query, cursor) as following:
            return await following.rest()


class Following:
    """A follower of server-sent events."""

    def __init__(self, response: httpx.Response) -> None:
        self._told = self._events(response)
        self.whole = Whole()

    @staticmethod
    async def _events(response: httpx.Response) -> AsyncIterator[Told]:
        reader = Reader()
        async for line in response.aiter_lines():
            for told in reader.take(line):
                yield told

    async def next(self) -> Told:
        """What is told next."""
        told = await asyncio.wait_for(anext(self._told), 60)
        self.whole.add(told)
        return told

    async def rest(self) -> Whole:
        """All that is told until the end."""
        while not self.whole.ended:
            await self.next()
        return self.whole


async def begun(stack: Stack, **fields: object) -> Step:
    """A step whose command has begun and goes on."""
    gate = gate_name()
    step = {"type": "execute", "command": f"wait {gate}", **fields}
    workflow = await stack.workflow(step)
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    return Step(stack, workflow, run, gate)
