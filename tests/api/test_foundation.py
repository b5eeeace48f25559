"""What holds for every route, on a small app made of the parts."""

import json
import re
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
import structlog
from fastapi import APIRouter, FastAPI
from pydantic import Field
from sqlalchemy import create_engine
from structlog.testing import capture_logs

from director.api.envelope import Answer, ListAnswer, answer, page
from director.api.errors import install_error_handlers
from director.api.middleware import RequestMiddleware
from director.api.requests import MAX_BODY, StrictRoute
from director.api.state import PageDep
from director.domain.base import Body, Int, Name, Number, Shape
from director.domain.pages import Pagination

JSON = {"Content-Type": "application/json"}


class Execute(Body):
    type: Literal["execute"]
    command: str | list[str]
    timeout: Int | None = None


class Check(Body):
    type: Literal["command"]
    command: str
    max_tries: Int = 1


class Group(Body):
    type: Literal["not"]
    not_: Annotated["Check | Group", Field(discriminator="type", alias="not")]


class Thing(Body):
    name: Name = "x"
    type: str = "plain"
    max_size: Int | None = None
    ratio: Number | None = None
    steps: list[Annotated[Execute | Check | Group, Field(discriminator="type")]] = []
    environment: dict[str, str] = {}
    config: Check | None = None
    password: Annotated[str, Field(min_length=8)] | None = None
    refresh_token: Int | None = None
    client_secret: Int | None = None


class Seen(Shape):
    keys: list[str]
    name: str | None = None


def small_app() -> FastAPI:
    router = APIRouter(prefix="/things", route_class=StrictRoute)

    @router.post("")
    async def add(body: Thing) -> Answer[Seen]:
        return answer(Seen(keys=sorted(body.model_fields_set), name=body.name))

    @router.get("")
    async def list_things(query: PageDep) -> ListAnswer[Seen]:
        return page([], Pagination(total=0, limit=query.limit, offset=query.offset, has_more=False))

    @router.post("/start")
    async def start(body: Thing | None = None) -> Answer[Seen]:
        return answer(Seen(keys=[] if body is None else sorted(body.model_fields_set)))

    @router.get("/fault")
    async def fault() -> Answer[Seen]:
        raise RuntimeError("the canary secret")

    @router.get("/locked")
    async def locked(database: str) -> Answer[Seen]:
        with closing(sqlite3.connect(database)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            engine = create_engine(f"sqlite:///{database}", connect_args={"timeout": 0})
            with closing(engine.connect()) as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        raise AssertionError

    app = FastAPI(redirect_slashes=False)
    app.add_middleware(RequestMiddleware)
    install_error_handlers(app)
    app.include_router(router, prefix="/v1")
    return app


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[Any]]:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as entries:
        yield entries


@pytest.fixture
def client() -> httpx.AsyncClient:
    transport = httpx.ASGITransport(small_app())
    return httpx.AsyncClient(transport=transport, base_url="http://director")


def failure(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the envelope of an error and give the error."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"success", "error", "metadata"}
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["code"] == code
    metadata = body["metadata"]
    assert metadata["requestId"] == response.headers["x-request-id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", metadata["timestamp"])
    assert metadata["version"] == "1.0.0"
    error: dict[str, Any] = body["error"]
    return error


async def post(client: httpx.AsyncClient, content: Any, path: str = "/v1/things") -> httpx.Response:
    return await client.post(path, content=content, headers=JSON)


async def invalid(client: httpx.AsyncClient, body: Any) -> dict[str, Any]:
    """Send a body that is JSON but wrong; give the details of the 400."""
    error = failure(await post(client, json.dumps(body)), 400, "VALIDATION_ERROR")
    details: dict[str, Any] = error["details"]
    assert details["errors"][0]["field"] == details["field"]
    return details


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/", "/nowhere", "/v1/nowhere", "/v1/things/", "/v1/%ff%00"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_an_unknown_path_is_a_404(client: httpx.AsyncClient, path: str, method: str) -> None:
    failure(await client.request(method, path), 404, "NOT_FOUND")


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["DELETE", "PUT", "OPTIONS", "BREW"])
async def test_a_wrong_method_is_a_405_with_all_that_are_allowed(
    client: httpx.AsyncClient, method: str
) -> None:
    response = await client.request(method, "/v1/things")
    error = failure(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, POST"
    assert f"{method} is not allowed" in error["message"]


@pytest.mark.asyncio
async def test_a_body_up_to_a_mebibyte_is_taken(client: httpx.AsyncClient) -> None:
    body = json.dumps({"name": "x", "environment": {}})
    assert (await post(client, body.ljust(MAX_BODY))).status_code == 200


@pytest.mark.asyncio
async def test_a_larger_body_is_a_413(client: httpx.AsyncClient) -> None:
    response = await post(client, b"{}".ljust(MAX_BODY + 1))
    assert failure(response, 413, "PAYLOAD_TOO_LARGE")["details"] == {"limitBytes": MAX_BODY}


@pytest.mark.asyncio
async def test_a_body_that_never_ends_is_cut_off_with_a_413(client: httpx.AsyncClient) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b" " * 65536

    failure(await post(client, chunks()), 413, "PAYLOAD_TOO_LARGE")
    assert sent <= MAX_BODY + 2 * 65536


@pytest.mark.asyncio
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_another_content_type_is_a_415(
    client: httpx.AsyncClient, media_type: str | None
) -> None:
    headers = {} if media_type is None else {"Content-Type": media_type}
    response = await client.post("/v1/things", content=b'{"name": "x"}', headers=headers)
    assert "application/json" in failure(response, 415, "UNSUPPORTED_MEDIA_TYPE")["message"]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/a+json",
    ],
)
async def test_json_content_types_are_taken(client: httpx.AsyncClient, media_type: str) -> None:
    headers = {"Content-Type": media_type}
    response = await client.post("/v1/things", content=b'{"name": "x"}', headers=headers)
    assert response.status_code == 200


@pytest.mark.asyncio
async def test_a_fault_is_a_500_with_the_request_id_and_the_trace_is_in_the_log_only(
    client: httpx.AsyncClient, logged: list[Any]
) -> None:
    response = await client.get("/v1/things/fault")
    error = failure(response, 500, "INTERNAL_ERROR")
    assert response.headers["x-request-id"] in error["message"]
    assert "canary" not in response.text
    assert "Traceback" not in response.text
    assert {line["request_id"] for line in logged} == {response.headers["x-request-id"]}
    assert logged[0]["exc_info"]


@pytest.mark.asyncio
async def test_a_database_that_does_not_answer_is_a_503_and_the_log_tells_why(
    client: httpx.AsyncClient, logged: list[Any], tmp_path: Path
) -> None:
    response = await client.get("/v1/things/locked", params={"database": str(tmp_path / "d.db")})
    failure(response, 503, "SERVICE_UNAVAILABLE")
    assert [line["why"] for line in logged if line["log_level"] == "error"] == [
        "database is locked"
    ]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"name": ', "line 1"),
        (b"{'name': 1}", "line 1"),
        (b'{"name": "x"} {}', "Extra data"),
        (b'{"name": "\n"}', "control character"),
        (b'{"ratio": NaN}', "NaN"),
        (b'{"ratio": Infinity}', "Infinity"),
        (b'{"ratio": -Infinity}', "Infinity"),
        (b'{"ratio": 1e999}', "1e999"),
        (b'{"ratio": -1e999}', "1e999"),
        (b'{"maxSize": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"name": "\\ud800"}', "surrogate"),
        (b'{"environment": {"\\udc00": "x"}}', "surrogate"),
        (b'{"name": "\xff"}', "UTF-8"),
        (b"\xff\xfe{\x00}\x00", "UTF-8"),
        (b"[" * 65 + b"]" * 65, "64 levels"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "64 levels"),
        (b"[" * 100_000 + b"]" * 100_000, "64 levels"),
        (b'{"a":' * 100_000, "64 levels"),
    ],
)
async def test_what_is_no_sound_json_is_a_400_that_says_why(
    client: httpx.AsyncClient, content: bytes, told: str
) -> None:
    error = failure(await post(client, content), 400, "VALIDATION_ERROR")
    assert told in error["message"]
    assert error["details"]["field"] == "body"


@pytest.mark.asyncio
async def test_a_surrogate_pair_and_64_levels_are_sound(client: httpx.AsyncClient) -> None:
    response = await post(client, b'{"name": "\\ud83d\\ude00"}')
    assert response.json()["data"]["name"] == "\N{GRINNING FACE}"
    details = (await post(client, b"[" * 64 + b"]" * 64)).json()["error"]["details"]
    assert "64 levels" not in details["issue"], "refused as no object, not for its depth"


@pytest.mark.asyncio
async def test_of_a_repeated_key_the_last_one_counts(client: httpx.AsyncClient) -> None:
    response = await post(client, b'{"name": "first", "name": "last"}')
    assert response.json()["data"]["name"] == "last"


@pytest.mark.asyncio
@pytest.mark.parametrize("number", ["1e308", "-0.0", "123456789012345678901234567890"])
async def test_odd_but_sound_numbers_are_no_fault(client: httpx.AsyncClient, number: str) -> None:
    assert (await post(client, f'{{"ratio": {number}}}')).status_code == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("content", [b"", b"null"])
async def test_a_body_that_is_needed_is_asked_for(
    client: httpx.AsyncClient, content: bytes
) -> None:
    error = failure(await post(client, content), 400, "VALIDATION_ERROR")
    assert error["details"]["field"] == "body"
    assert error["details"]["issue"] == ("is required" if not content else "must be a JSON object")


@pytest.mark.asyncio
@pytest.mark.parametrize("content", [b"", b"null", b"{}"])
async def test_a_body_that_is_optional_may_be_absent(
    client: httpx.AsyncClient, content: bytes
) -> None:
    assert (await post(client, content, "/v1/things/start")).json()["data"]["keys"] == []
    assert (await client.post("/v1/things/start")).status_code == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [[], [{"name": "x"}], "hunter2", 7, True])
@pytest.mark.parametrize("path", ["/v1/things", "/v1/things/start"])
async def test_a_body_that_is_no_object_is_a_400(
    client: httpx.AsyncClient, body: Any, path: str
) -> None:
    response = await post(client, json.dumps(body), path)
    assert failure(response, 400, "VALIDATION_ERROR")["details"]["field"] == "body"
    assert "hunter2" not in response.text


@pytest.mark.asyncio
async def test_a_get_with_a_body_ignores_it(client: httpx.AsyncClient) -> None:
    response = await client.request("GET", "/v1/things", content=b"{broken", headers=JSON)
    assert response.status_code == 200


@pytest.mark.asyncio
async def test_a_problem_is_named_in_camel_case_with_what_was_sent(
    client: httpx.AsyncClient,
) -> None:
    details = await invalid(client, {"maxSize": "big", "name": ""})
    problems = {problem["field"]: problem for problem in details["errors"]}
    assert set(problems) == {"maxSize", "name"}
    assert problems["maxSize"]["value"] == "big"
    assert "integer" in problems["maxSize"]["issue"]


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["timeOut", "max_sizes", "nme"])
async def test_an_unknown_field_is_named_as_it_was_sent(
    client: httpx.AsyncClient, name: str
) -> None:
    details = await invalid(client, {name: "hunter2"})
    assert (details["field"], details["issue"]) == (name, "is no known field")
    assert "hunter2" not in json.dumps(details), "it may be a mistyped password"


EXECUTE = {"type": "execute", "command": "true"}
CHECK = {"type": "command", "command": "true"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"steps": [{**EXECUTE, "timeout": "1s"}]}, "steps.0.timeout"),
        ({"steps": [EXECUTE, {**EXECUTE, "timeOut": 1}]}, "steps.1.timeOut"),
        ({"steps": [{"type": "execute"}]}, "steps.0.command"),
        ({"steps": [{"type": "execute", "command": 7}]}, "steps.0.command"),
        ({"steps": [{"type": "execute", "command": ["a", 7]}]}, "steps.0.command.1"),
        ({"steps": [{"type": "no such"}]}, "steps.0.type"),
        ({"steps": [{"command": "true"}]}, "steps.0.type"),
        ({"steps": ["true"]}, "steps.0"),
        ({"steps": "true"}, "steps"),
        ({"steps": [{**CHECK, "maxTries": "x"}]}, "steps.0.maxTries"),
        ({"steps": [{**CHECK, "max_tries": "x"}]}, "steps.0.max_tries"),
        ({"steps": [{**CHECK, "command": 7}]}, "steps.0.command"),
        ({"steps": [{"type": "command"}]}, "steps.0.command"),
        ({"steps": [{"type": "not", "not": {**CHECK, "maxTries": "x"}}]}, "steps.0.not.maxTries"),
        (
            {"steps": [{"type": "not", "not": {"type": "not", "not": {**CHECK, "command": 7}}}]},
            "steps.0.not.not.command",
        ),
        ({"steps": [{"type": "not"}]}, "steps.0.not"),
        ({"type": "config", "config": {**CHECK, "maxTries": "x"}}, "config.maxTries"),
        ({"type": "config", "config": {"type": "command"}}, "config.command"),
        ({"environment": {"A.B C": 7}}, "environment.A.B C"),
    ],
)
async def test_a_problem_inside_is_found_by_the_path_that_was_sent(
    client: httpx.AsyncClient, body: Any, field: str
) -> None:
    assert (await invalid(client, body))["errors"][0]["field"].startswith(field)
    fields = {problem["field"] for problem in (await invalid(client, body))["errors"]}
    assert field in fields


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        {"password": "hunter2"},
        {"password": 77123},
        {"refreshToken": "hunter2"},
        {"clientSecret": "hunter2"},
        {"environment": {"DATABASE_URL": 77123}},
        {"environment": "hunter2"},
    ],
)
async def test_the_value_of_a_secret_field_is_never_echoed(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    response = await post(client, json.dumps(body))
    details = failure(response, 400, "VALIDATION_ERROR")["details"]
    assert details["field"].partition(".")[0] in body
    assert "value" not in details
    assert "hunter2" not in response.text
    assert "77123" not in response.text


@pytest.mark.asyncio
async def test_a_thousand_problems_are_told_in_part(client: httpx.AsyncClient) -> None:
    details = await invalid(client, {"steps": [{}] * 1000})
    assert len(details["errors"]) == 100


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=x",
        "limit=NaN",
        "limit=1e999",
        "limit=",
        "offset=-1",
        "offset=9999999999999999999",
        "cursor=" + "x" * 65,
    ],
)
async def test_a_page_out_of_range_is_a_400_that_names_the_parameter(
    client: httpx.AsyncClient, query: str
) -> None:
    error = failure(await client.get(f"/v1/things?{query}"), 400, "VALIDATION_ERROR")
    assert error["details"]["field"] == query.partition("=")[0]


@pytest.mark.asyncio
@pytest.mark.parametrize("query", ["", "?limit=100", "?offset=0&limit=1", "?colour=red&%ff=%ff"])
async def test_pages_in_range_and_unknown_parameters_are_taken(
    client: httpx.AsyncClient, query: str
) -> None:
    response = await client.get(f"/v1/things{query}")
    assert response.status_code == 200
    assert response.json()["data"] == []
    pagination = response.json()["metadata"]["pagination"]
    assert set(pagination) == {"total", "limit", "offset", "hasMore", "nextCursor"}


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/v1/things", "/v1/things/fault", "/nowhere"])
@pytest.mark.parametrize("sent", ["abc", "A-b_9" * 12, "req_1"])
async def test_a_sent_request_id_comes_back(
    client: httpx.AsyncClient, path: str, sent: str
) -> None:
    response = await client.get(path, headers={"X-Request-Id": sent})
    assert response.headers.get_list("x-request-id") == [sent]
    assert response.json()["metadata"]["requestId"] == sent


@pytest.mark.asyncio
@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 65, "é", "a\tb", "<script>"])
async def test_another_request_id_is_replaced_by_one_of_ours(
    client: httpx.AsyncClient, sent: str | None
) -> None:
    headers = {} if sent is None else {b"X-Request-Id": sent.encode("latin-1")}
    first = await client.get("/v1/things", headers=headers)
    second = await client.get("/v1/things", headers=headers)
    ids = [response.json()["metadata"]["requestId"] for response in (first, second)]
    assert all(re.fullmatch(r"req_[0-9a-z]{26}", made) for made in ids)
    assert ids[0] != ids[1]
    assert first.headers["x-request-id"] == ids[0]
