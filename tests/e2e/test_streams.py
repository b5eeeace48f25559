"""Nobody who comes back with a cursor misses an event or hears one twice, however it listens."""

import asyncio
import random
import signal
import time
from collections import defaultdict
from itertools import product

import httpx
import pytest
from e2e.installation import Installation
from e2e.listeners import Listener, PollListener, Seen, SocketListener, StreamListener, seen
from support.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.kills]

KINDS: list[type[Listener]] = [SocketListener, StreamListener, PollListener]
_OF_EACH_KIND = 4
_COUNTING = "for n in 1 2 3 4 5 6 7 8 9 10; do echo $n; sleep 1; done"


def log_of(director: Installation, cursor: int) -> list[Seen]:
    """The whole log behind a cursor, read in peace."""
    found: list[Seen] = []
    while True:
        params = {"after": cursor, "limit": 500}
        body = director.user.http.get("/events", params=params).json()
        found += [seen(frame) for frame in body["data"]]
        cursor = body["metadata"]["pagination"]["nextCursor"]
        if not body["metadata"]["pagination"]["hasMore"]:
            return found


def answers(director: Installation) -> bool:
    """Whether the API is there."""
    try:
        return director.user.http.get("/auth/me", timeout=2).is_success
    except httpx.TransportError:
        return False


def restart_again_and_again(director: Installation, workflows: list[str]) -> list[str]:
    """End the API at random moments, in both ways; gives the workflows that were run meanwhile."""
    chance, begun = random.Random(7), []
    for number in range(4):
        until(lambda: answers(director), "the API is back")
        begun.append(director.user.workflow(f"echo {number}", "echo then"))
        director.user.start(begun[-1])
        how = (signal.SIGKILL, signal.SIGTERM)[number % 2]
        time.sleep(chance.uniform(0, 1))  # random moments are what is tested
        director.end("api", how)
        director.stack.begin("api")
    until(lambda: answers(director), "the API is back")
    for workflow_id in [*workflows, *begun]:
        director.user.ended(workflow_id)
    return begun


async def caught_up(listeners: list[Listener], last: int) -> None:
    """Wait until every listener has come to the end."""
    for _ in range(400):
        if all(listener.cursor >= last for listener in listeners):
            return
        await asyncio.sleep(0.05)


async def test_listeners_that_reconnect_at_random_while_the_api_restarts_see_every_event_once(
    director: Installation,
) -> None:
    director.heal()
    token = director.user.token()
    page = director.user.http.get("/events").json()["metadata"]["pagination"]
    begin = page["nextCursor"]
    api = director.stack.api
    listeners = [
        kind(api, token, begin, f"{kind.__name__} {number}")
        for kind, number in product(KINDS, range(_OF_EACH_KIND))
    ]
    tasks = [asyncio.create_task(listener.listen()) for listener in listeners]
    lasting = [director.user.workflow(_COUNTING) for _ in range(2)]
    for workflow_id in lasting:
        director.user.start(workflow_id)

    await asyncio.to_thread(restart_again_and_again, director, lasting)

    log = log_of(director, begin)
    await caught_up(listeners, log[-1][0])
    for task in tasks:
        task.cancel()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(ended, asyncio.CancelledError), ended
    counted: defaultdict[str, int] = defaultdict(int)
    for _, subject, seq in log:
        assert seq == counted[subject] + 1
        counted[subject] = seq
    assert len(counted) >= 2 * (2 + 4), "sessions and runs"
    for listener in listeners:
        assert listener.events == log, type(listener).__name__
    connections = sum(listener.connections for listener in listeners)
    assert connections > 3 * len(listeners), "they were cut off again and again"
