"""Context windows and messages through HTTP."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlmodel import col, select
from support.stack import Data, Stack
from support.waiting import until_so

from director.store import events
from director.store.tables import ContextItemRow, SessionRow

Refusal = Callable[[httpx.Response, int, str], Data]

SECRET = "what-only-the-owner-sees"


async def window(stack: Stack, session_id: str | None = None, **fields: Any) -> Data:
    """Make a window."""
    session_id = session_id or (await stack.session())["id"]
    return dict(
        await stack.call("POST", "/context", {"sessionId": session_id, "name": "w", **fields})
    )


async def add(stack: Stack, id: str, content: Any = "x", **metadata: Any) -> Data:
    """Put an item into a window."""
    body = {"type": "note", "content": content, "metadata": metadata}
    return dict(await stack.call("POST", f"/context/{id}/items", body))


async def say(stack: Stack, session_id: str, content: Any = "x", **fields: Any) -> Data:
    body = {"role": "user", "content": content, **fields}
    return dict(await stack.call("POST", f"/sessions/{session_id}/messages", body))


async def told(stack: Stack, session_id: str) -> list[Any]:
    """The events of a session itself."""
    found = await stack.store.fetch(lambda s: events.after(s, 0, 100_000))
    return [event for event in found if event.subject == session_id]


async def test_what_does_not_fit_at_the_begin_is_told(stack: Stack) -> None:
    items = [{"type": "a", "content": n, "metadata": {"importance": n / 4}} for n in range(4)]
    made = await window(stack, items=items, config={"maxSize": 2})
    assert [each["content"] for each in made["items"]] == [3, 2]
    assert len(made["evicted"]) == 2
    assert (made["itemCount"], made["tokenCount"]) == (2, 2)
    seen = await stack.call("GET", f"/context/{made['id']}")
    assert {**seen, "evicted": made["evicted"]} == made


async def test_a_window_shows_its_newest_twenty_and_the_list_has_all(stack: Stack) -> None:
    items = [{"type": "a", "content": n} for n in range(25)]
    made = await window(stack, items=items)
    assert [each["content"] for each in made["items"]] == list(range(24, 4, -1))
    assert (made["itemCount"], made["config"]["maxSize"]) == (25, 1000)
    path = f"/context/{made['id']}/items"
    rising = await stack.http.get(f"{path}?order=asc&limit=20")
    assert [each["content"] for each in rising.json()["data"]] == list(range(20))
    pagination = rising.json()["metadata"]["pagination"]
    assert (pagination["total"], pagination["hasMore"]) == (25, True)
    rest = await stack.call("GET", f"{path}?order=asc&cursor={pagination['nextCursor']}")
    assert [each["content"] for each in rest] == list(range(20, 25))


async def test_twenty_adds_at_once_keep_the_bound_and_lose_only_what_they_tell(
    stack: Stack,
) -> None:
    id = (await window(stack, config={"maxSize": 8}))["id"]
    made = await asyncio.gather(*(add(stack, id, n, importance=n % 2) for n in range(20)))
    evicted = {gone for each in made for gone in each["evicted"]}
    left = {each["id"] for each in await stack.call("GET", f"/context/{id}/items?limit=100")}
    assert len(left) == 8
    assert left == {each["id"] for each in made} - evicted


async def test_age_is_enforced_although_nobody_reads_or_writes(stack: Stack) -> None:
    """By the workflow that reconciles, on the real Temporal server."""
    made = await window(stack, config={"retentionPolicy": {"maxAge": 50}})
    item = await add(stack, made["id"])
    row = select(ContextItemRow.id).where(col(ContextItemRow.id) == item["id"])

    async def gone() -> bool:
        return not await stack.store.fetch(lambda s: s.exec(row).all())

    await until_so(gone, "the item is dropped")
    last = (await told(stack, made["sessionId"]))[-1]
    assert (last.type, last.data["context"]["removed"]) == ("context.updated", [item["id"]])
    assert last.data["context"]["itemCount"] == 0


async def test_items_and_windows_are_deleted_and_their_versions_heeded(
    stack: Stack, refused: Refusal
) -> None:
    made = await window(stack)
    path = f"/context/{made['id']}"
    item = await add(stack, made["id"])
    response = await stack.http.get(f"{path}/items/{item['id']}")
    assert {**response.json()["data"], "evicted": []} == item
    stale = {"If-Match": '"stale"'}
    url = f"{path}/items/{item['id']}"
    refused(await stack.http.delete(url, headers=stale), 412, "PRECONDITION_FAILED")
    fresh = {"If-Match": response.headers["etag"]}
    assert (await stack.http.delete(url, headers=fresh)).json()["data"] == {
        "id": item["id"],
        "deleted": True,
    }
    refused(await stack.http.delete(url), 404, "NOT_FOUND")
    before = (await stack.http.get(path)).headers["etag"]
    await add(stack, made["id"])
    seen = {"If-Match": before}
    refused(await stack.http.delete(path, headers=seen), 412, "PRECONDITION_FAILED")
    assert (await stack.call("DELETE", path)) == {"id": made["id"], "deleted": True}
    for gone in (path, f"{path}/items"):
        refused(await stack.http.get(gone), 404, "NOT_FOUND")
    refused(await stack.http.delete(path), 404, "NOT_FOUND")
    kinds = [event.type for event in await told(stack, made["sessionId"])]
    assert kinds[-5:] == ["context.created", *["context.updated"] * 3, "context.deleted"]


async def test_lists_of_windows_are_of_a_session_and_hold_no_contents(stack: Stack) -> None:
    item = {"type": "a", "content": SECRET}
    made = await window(stack, items=[item])
    other = await window(stack, made["sessionId"])
    await window(stack)
    query = f"/context?sessionId={made['sessionId']}"
    listed = await stack.call("GET", query)
    assert [each["id"] for each in listed] == [other["id"], made["id"]]
    assert [each["itemCount"] for each in listed] == [0, 1]
    assert "items" not in listed[0]
    assert await stack.call("GET", "/context?sessionId=ses_123") == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": ""}, "name"),
        ({"colour": "red"}, "colour"),
        ({"items": [{"type": "text"}]}, "items.0.content"),
        ({"items": [{"type": "text", "content": None}]}, "items.0.content"),
        ({"items": [{"type": "text", "content": 5}]}, "items.0.content"),
        ({"items": [{"type": "A b", "content": "x"}]}, "items.0.type"),
        ({"items": [{"type": "a", "content": 1, "extra": 1}]}, "items.0.extra"),
        ({"items": [{"type": "a", "content": 1}] * 1001}, "items"),
        ({"config": {"maxSize": 0}}, "config.maxSize"),
        ({"config": {"maxSize": "100"}}, "config.maxSize"),
        ({"config": {"maxSize": 10_001}}, "config.maxSize"),
        ({"config": {"maxTokens": 0}}, "config.maxTokens"),
        ({"config": {"maxItems": 1}}, "config.maxItems"),
        ({"config": {"retentionPolicy": {"maxAge": 0}}}, "config.retentionPolicy.maxAge"),
        (
            {"config": {"retentionPolicy": {"importanceThreshold": 1.5}}},
            "config.retentionPolicy.importanceThreshold",
        ),
        (
            {"config": {"maxTokens": 1}, "items": [{"type": "text", "content": "x" * 5}]},
            "items.0.content",
        ),
    ],
)
async def test_a_wrong_window_is_a_400_that_names_the_field(
    stack: Stack, refused: Refusal, body: Data, field: str
) -> None:
    full = {"sessionId": "ses_1", "name": "w", **body}
    response = await stack.http.post("/context", json=full)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == field


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"importance": 1.1}, "metadata.importance"),
        ({"importance": True}, "metadata.importance"),
        ({"importance": "high"}, "metadata.importance"),
        ({"priority": "urgent"}, "metadata.priority"),
        ({"tokens": -1}, "metadata.tokens"),
        ({"tokens": 2.5}, "metadata.tokens"),
        ({"tokens": 101}, "content"),
        ("high", "metadata"),
    ],
)
async def test_a_wrong_item_is_a_400_that_names_the_field(
    stack: Stack, refused: Refusal, metadata: Any, field: str
) -> None:
    id = (await window(stack, config={"maxTokens": 100}))["id"]
    body = {"type": "a", "content": SECRET, "metadata": metadata}
    response = await stack.http.post(f"/context/{id}/items", json=body)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == field
    assert SECRET not in response.text
    assert (await stack.call("GET", f"/context/{id}"))["itemCount"] == 0


async def test_any_content_comes_back_as_it_was_and_a_file_is_only_a_name(stack: Stack) -> None:
    id = (await window(stack))["id"]
    contents = ["", "file:///etc/passwd", "\0é\u2028😀", 0, False, [None], {"a": {"b": [1.5, "c"]}}]
    for content in contents:
        kept = {"unknown": content, "Priority": 1, "importance": 0.25}
        item = await add(stack, id, content, **kept)
        seen = await stack.call("GET", f"/context/{id}/items/{item['id']}")
        assert (seen["content"], seen["metadata"]) == (content, kept)
        assert type(seen["content"]) is type(content)
    large = {"type": "text", "content": "x" * (1024 * 1024 - 100)}
    await stack.call("POST", f"/context/{id}/items", large)


async def test_messages_are_a_log_in_order(stack: Stack) -> None:
    session_id = (await stack.session())["id"]
    path = f"/sessions/{session_id}/messages"
    made = [await say(stack, session_id, n, author="ann") for n in range(5)]
    assert all(each["id"].startswith("msg_") for each in made)
    assert await stack.call("GET", path) == made[::-1]
    first = await stack.http.get(f"{path}?order=asc&limit=2")
    assert first.json()["data"] == made[:2]
    cursor = first.json()["metadata"]["pagination"]["nextCursor"]
    await say(stack, session_id, 5)
    rest = await stack.http.get(f"{path}?order=asc&cursor={cursor}&limit=10")
    assert [each["content"] for each in rest.json()["data"]] == [2, 3, 4, 5]
    assert await stack.call("GET", f"{path}?order=asc&offset=4&limit=1") == [made[4]]
    assert await stack.call("GET", f"{path}/{made[0]['id']}") == made[0]


async def test_a_message_is_its_senders_unless_it_says_otherwise(stack: Stack) -> None:
    session_id = (await stack.session())["id"]
    mine = await say(stack, session_id, {"parts": ["a"]}, role="tool", metadata={"model": "m"})
    assert (mine["author"], mine["role"], mine["metadata"]) == ("admin", "tool", {"model": "m"})
    assert mine["sessionId"] == session_id


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "User!"}, "role"),
        ({"role": None}, "role"),
        ({"content": None}, "content"),
        ({"author": ""}, "author"),
        ({"author": "x" * 201}, "author"),
        ({"metadata": []}, "metadata"),
        ({"to": "ann"}, "to"),
    ],
)
async def test_a_wrong_message_is_a_400_that_names_the_field(
    stack: Stack, refused: Refusal, body: Data, field: str
) -> None:
    session_id = (await stack.session())["id"]
    full = {"role": "user", "content": "x", **body}
    response = await stack.http.post(f"/sessions/{session_id}/messages", json=full)
    assert refused(response, 400, "VALIDATION_ERROR")["field"] == field


@pytest.mark.parametrize(
    "query", ["order=up", "order=ASC", "limit=101", "cursor=itm_1", "cursor=x.1"]
)
async def test_a_page_that_is_none_is_a_400(stack: Stack, refused: Refusal, query: str) -> None:
    made = await window(stack)
    for path in (f"/context/{made['id']}/items", f"/sessions/{made['sessionId']}/messages"):
        response = await stack.http.get(f"{path}?{query}")
        assert refused(response, 400, "VALIDATION_ERROR")["field"] == query.partition("=")[0]


async def test_a_session_that_is_not_active_takes_neither(stack: Stack, refused: Refusal) -> None:
    made = await window(stack)
    item, message = {"type": "a", "content": 1}, {"role": "user", "content": 1}
    wanted = {
        "/context": {"sessionId": made["sessionId"], "name": "w"},
        f"/context/{made['id']}/items": item,
        f"/sessions/{made['sessionId']}/messages": message,
    }

    def over(session: Any) -> None:
        row = session.get_one(SessionRow, made["sessionId"])
        row.status = "expired"
        session.add(row)

    await stack.store.run(over)
    for path, body in wanted.items():
        details = refused(await stack.http.post(path, json=body), 409, "CONFLICT")
        assert details["status"] == "expired"
    assert await stack.call("GET", f"/sessions/{made['sessionId']}/messages") == []


async def test_a_write_that_is_sent_again_is_done_once(stack: Stack) -> None:
    made = await window(stack)
    for path, body in (
        (f"/context/{made['id']}/items", {"type": "a", "content": 1}),
        (f"/sessions/{made['sessionId']}/messages", {"role": "user", "content": 1}),
    ):
        headers = {"Idempotency-Key": str(uuid4())}
        first, again = [await stack.http.post(path, json=body, headers=headers) for _ in range(2)]
        assert first.content == again.content
        assert again.headers["idempotency-replayed"] == "true"
        assert len(await stack.call("GET", path)) == 1


async def test_who_listens_hears_of_ids_and_counts_and_of_no_content(stack: Stack) -> None:
    session_id = (await stack.session())["id"]
    texts: list[str] = []
    async with stack.listening(cursor=await stack.store.fetch(events.newest)) as socket:
        item = {"type": "a", "content": SECRET, "metadata": {"note": SECRET}}
        made = await window(stack, session_id, items=[item])
        added = await add(stack, made["id"], SECRET)
        said = await say(stack, session_id, SECRET, author="ann", metadata={"note": SECRET})
        while len(texts) < 3:
            text = str(await asyncio.wait_for(socket.recv(), 60))
            texts += [text] if session_id in text else []
    frames = [json.loads(text) for text in texts]
    assert {frame["type"] for frame in frames} == {"session_update"}
    assert [frame["event"] for frame in frames] == [
        "context.created",
        "context.updated",
        "message.created",
    ]
    assert all(frame["data"]["status"] == "active" for frame in frames)
    assert frames[1]["data"]["context"] == {
        "id": made["id"],
        "itemCount": 2,
        "tokenCount": 2 * made["tokenCount"],
        "added": [added["id"]],
        "removed": [],
    }
    assert frames[2]["data"]["message"] == {"id": said["id"], "role": "user", "author": "ann"}
    assert [frame["seq"] for frame in frames] == [2, 3, 4]
    assert not any(SECRET in text for text in texts)


async def test_a_deleted_session_takes_its_windows_and_messages_with_it(
    stack: Stack, refused: Refusal
) -> None:
    made = await window(stack)
    await say(stack, made["sessionId"])
    await stack.call("DELETE", f"/sessions/{made['sessionId']}")
    refused(await stack.http.get(f"/context/{made['id']}"), 404, "NOT_FOUND")
    refused(await stack.http.get(f"/sessions/{made['sessionId']}/messages"), 404, "NOT_FOUND")
    assert await stack.call("GET", f"/context?sessionId={made['sessionId']}") == []
