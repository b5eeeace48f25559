"""Output as it comes: each byte once, from any cursor on, and told when it begins anew."""

from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from api.conftest import Refusal
from sqlmodel import Session
from support.following import Whole
from support.stack import Stack
from support.writing import BINARY, EVENTS, TEXT, Step, begun, gate_name

from director.api.hub import Hub
from director.api.output_messages import server_sent
from director.api.outputs import Asked, Idle, OutputReader, Parts, begin
from director.blobs.store import LocalBlobs
from director.domain.errors import BrokenOffError
from director.domain.times import utc_now
from director.store import outputs
from director.store.tables import RunRow, StepRow


@pytest.fixture
async def step(stack: Stack) -> AsyncIterator[Step]:
    step = await begun(stack)
    yield step
    await step.end()


def kinds(whole: Whole) -> list[str]:
    return [told.kind for told in whole.told]


async def test_a_follower_is_told_each_piece_as_it_comes_and_how_it_ended(step: Step) -> None:
    async with step.followed() as following:
        for content, stream in ((b"one\n", "stdout"), (b"oops\n", "stderr"), (b"two\n", "stdout")):
            await step.write(content, stream)
            told = await following.next()
            assert (told.kind, told.data["stream"]) == ("output", stream)
            assert told.data["text"] == content.decode()
        await step.end()
        end = await following.next()

    assert [told.data["offset"] for told in following.whole.told[:3]] == [0, 0, 4]
    assert end.kind == "end"
    assert end.data["status"] == "completed"
    assert (end.data["exitCode"], end.data["truncated"], end.data["attempt"]) == (0, False, 1)
    assert set(end.data["bytes"]) == {"stdout", "stderr"}


async def test_who_resumes_at_any_cursor_gets_what_is_behind_it_once(step: Step) -> None:
    pieces = [TEXT[:5], BINARY, TEXT[5:9], TEXT[9:], b"\xf0\x9f", b"\x98", BINARY * 200, b"\xe2"]
    for number, piece in enumerate(pieces):
        await step.write(piece, ("stdout", "stderr")[number % 3 == 1])
    await step.end()
    whole = await step.all()
    stdout = b"".join(p for number, p in enumerate(pieces) if number % 3 != 1)
    stderr = b"".join(p for number, p in enumerate(pieces) if number % 3 == 1)
    assert (whole.of("stdout"), whole.of("stderr")) == (stdout, stderr)

    for position, told in enumerate(whole.told):
        resumed = Whole()
        for before in whole.told[: position + 1]:
            resumed.add(before)
        async with step.followed(cursor=told.id) as following:
            following.whole = resumed
            end = await following.next()
            while end.kind != "end":
                end = await following.next()
        assert (resumed.of("stdout"), resumed.of("stderr")) == (stdout, stderr)


async def test_a_character_that_is_cut_between_pieces_stays_text(step: Step) -> None:
    for byte in TEXT:
        await step.write(bytes([byte]))
    await step.end()
    whole = await step.all()

    assert "".join(told.data["text"] for told in whole.told[:-1]) == TEXT.decode()


@pytest.mark.parametrize(
    "content",
    [b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"ok \xe2\x82", b"\xf5\x80\x80\x80", BINARY],
)
async def test_what_is_no_text_comes_as_base64_and_the_text_behind_it_as_text(
    step: Step, content: bytes
) -> None:
    await step.write(content)
    await step.write(b"\x80 no begin\n")
    await step.write("fin \u20ac\n".encode())
    await step.end()
    whole = await step.all()

    assert whole.of("stdout") == content + b"\x80 no begin\nfin \xe2\x82\xac\n"
    assert whole.told[-2].data["text"] == "fin \u20ac\n"
    assert all("encoding" not in told.data or "text" not in told.data for told in whole.told)


async def test_a_large_piece_comes_in_messages_that_every_client_takes(step: Step) -> None:
    content = b"\x00" * 300_000
    await step.write(content)
    await step.end()
    async with step.stack.http.stream("GET", step.path, headers=EVENTS) as response:
        lines = [line async for line in response.aiter_lines()]

    assert max(map(len, lines)) < 1024 * 1024
    assert (await step.all()).of("stdout") == content


async def test_only_the_stream_that_is_asked_for_comes(step: Step) -> None:
    await step.write(b"out")
    await step.write(b"err", "stderr")
    await step.end()

    assert (await step.all("stream=stderr")).content == {(1, "stderr"): b"err"}


async def test_a_follower_is_told_when_the_command_runs_again(step: Step) -> None:
    await step.write(b"first\xe2")
    async with step.followed() as following:
        assert (await following.next()).data["text"] == "first"
        await step.forget()
        await step.write(b"second\n")
        assert (await following.next()).kind == "restart"
        assert (await following.next()).data["text"] == "second\n"
        cursor = following.whole.told[0].id
        await step.end()
        assert (await following.rest()).of("stdout") == b"second\n"

    resumed = await step.all(cursor=cursor)
    assert kinds(resumed) == ["restart", "output", "end"], "a cursor of what was forgotten"
    assert resumed.of("stdout") == b"second\n"


async def test_a_plain_follower_never_gets_bytes_of_two_tries_mixed(step: Step) -> None:
    await step.write(b"first\n")
    async with step.stack.http.stream("GET", f"{step.path}?follow") as response:
        chunks = response.aiter_bytes()
        assert await anext(chunks) == b"first\n"
        await step.forget()
        await step.write(b"second\n")
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(chunks)


async def test_a_follower_goes_on_to_the_next_attempt_unless_it_asked_for_one(
    stack: Stack,
) -> None:
    gate = gate_name()
    workflow = await stack.workflow(
        {
            "type": "execute",
            "command": f"say hi; wait {gate}; fail 3",
            "retry": {"maxAttempts": 2, "backoff": 0},
        }
    )
    run = await stack.start(workflow["id"])
    await stack.until(workflow["id"], "running")
    step = Step(stack, workflow, run, gate)
    async with step.followed() as onward, step.followed("attempt=1") as first:
        await onward.next()
        await step.end()
        onward_told, first_told = await onward.rest(), await first.rest()

    assert kinds(onward_told) == ["output", "attempt", "output", "end"]
    assert onward_told.of("stdout", 1) == onward_told.of("stdout", 2) == b"hi\n"
    assert onward_told.told[-1].data["attempt"] == 2
    assert onward_told.told[-1].data["status"] == "failed"
    assert onward_told.told[-1].data["exitCode"] == 3
    assert kinds(first_told) == ["output", "end"]
    assert first_told.told[-1].data["attempt"] == 1


@pytest.mark.parametrize("cursor", ["7", "1-2-3", "0-1-x-0", "0-1-0-0-0", "-1-1-0-0", "0-1-1e3-0"])
async def test_a_cursor_that_was_never_told_is_refused(
    step: Step, refused: Refusal, cursor: str
) -> None:
    response = await step.stack.http.get(step.path, headers=EVENTS | {"Last-Event-ID": cursor})
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == "cursor"


async def test_a_cursor_of_another_attempt_is_refused(step: Step, refused: Refusal) -> None:
    headers = EVENTS | {"Last-Event-ID": "0-2-0-0"}
    response = await step.stack.http.get(f"{step.path}?attempt=1", headers=headers)
    refused(response, 400, "VALIDATION_ERROR")


async def test_nobody_follows_the_output_of_others(
    step: Step, refused: Refusal, operator: httpx.AsyncClient
) -> None:
    refused(await operator.get(step.path, headers=EVENTS), 404, "NOT_FOUND")


async def test_output_that_is_no_longer_kept_is_gone_and_not_empty(
    step: Step, refused: Refusal
) -> None:
    await step.write(b"old\n")
    await step.end()
    run_id = step.run["runId"]

    def age(session: Session) -> None:
        run = session.get_one(RunRow, run_id)
        run.completed_at = utc_now() - timedelta(days=31)
        session.add(run)

    await step.stack.store.run(age)
    for headers in ({}, EVENTS):
        details = refused(await step.stack.http.get(step.path, headers=headers), 410, "GONE")
        assert "no longer kept" in details["message"]

    await step.stack.store.run(lambda session: outputs.drop(session, utc_now(), 1000))
    refused(await step.stack.http.get(step.path), 410, "GONE")


@pytest.fixture
async def parts(step: Step) -> AsyncIterator[Parts]:
    stack = step.stack
    hub = Hub(stack.store)
    async with hub.running():
        yield Parts(stack.store, LocalBlobs(stack.settings.home / "blobs"), hub)


async def asked_of(step: Step) -> tuple[Asked, StepRow]:
    run_id = step.run["runId"]
    row = await step.stack.store.fetch(lambda session: session.get_one(StepRow, (run_id, 0)))
    return Asked(run_id, 0), row


async def test_a_quiet_stream_carries_comments_so_that_nobody_cuts_it_off(
    step: Step, parts: Parts
) -> None:
    asked, row = await asked_of(step)
    stream = server_sent(OutputReader(parts, asked, begin(row, None)), idle=0.02)

    assert [await anext(stream) for _ in range(3)] == [b": ping\n\n"] * 3
    await stream.aclose()


async def test_a_follower_whose_login_ends_is_cut_off(step: Step, parts: Parts) -> None:
    asked, row = await asked_of(step)
    logins = [True, True, False]

    async def allowed() -> bool:
        return logins.pop(0)

    reader = OutputReader(parts, asked, begin(row, None), allowed, login_seconds=0)
    told = reader.read(follow=True, idle=0)
    assert [await anext(told) for _ in range(2)] == [Idle(), Idle()]
    with pytest.raises(BrokenOffError, match="login"):
        await anext(told)


async def test_missing_bytes_break_off_and_are_not_passed_over(step: Step, parts: Parts) -> None:
    await step.write(b"one")
    await step.write(b"two")
    asked, row = await asked_of(step)

    def lose(session: Session) -> None:
        [first, _] = outputs.look(session, asked.run_id, 0, begin(row, None)).pieces
        session.delete(first)

    await step.stack.store.run(lose)
    reader = OutputReader(parts, asked, begin(row, None))
    with pytest.raises(BrokenOffError, match="no longer kept"):
        await anext(reader.read(follow=False))
