"""Every route that the API describes: who may call it, and that its description is true."""

import asyncio
import itertools
import re
from collections.abc import Callable

import httpx
import pytest
from support.described import SCHEMA
from support.stack import Data, Stack

Refusal = Callable[[httpx.Response, int, str], Data]

OPEN = {"auth.login", "auth.refresh", "health.alive", "health.ready"}
ERRORS = {400, 401, 403, 404, 409, 410, 412, 413, 415, 500, 503, 504}

LEAST = {
    "policies": b'{"name": "p"}',
    "enforce": b'{"scope": {"sandboxId": "sbx_1"}}',
    "allow-access": b'{"destinations": [{"host": "example.com"}]}',
    "items": b'{"type": "text", "content": "x"}',
    "messages": b'{"role": "user", "content": "x"}',
}
"""Bodies of routes that take no empty one."""

OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in SCHEMA["paths"].items()
    for method, operation in methods.items()
]


def named(chosen: list[tuple[str, str, Data]]) -> pytest.MarkDecorator:
    """The operations as parameters of a test, each under its own name."""
    return pytest.mark.parametrize(
        ("method", "path"),
        [
            pytest.param(method, path, id=operation["operationId"])
            for method, path, operation in chosen
        ],
    )


CLOSED = [each for each in OPERATIONS if each[2]["operationId"] not in OPEN]
CHANGING = [
    each
    for each in CLOSED
    if each[0] != "GET" and not each[2]["operationId"].startswith(("auth.", "users.", "hosts."))
]
OF_AN_OBJECT = [
    each
    for each in CLOSED
    if "{" in each[1] and not each[2]["operationId"].startswith(("users.", "hosts."))
]


async def ask(http: httpx.AsyncClient, url: str, method: str, path: str) -> httpx.Response:
    """Call a route with a body that no route could fault before it looks at who asks."""
    least = LEAST.get(path.rpartition("/")[2], b"{}")
    body = least if method in ("POST", "PUT", "PATCH") else None
    kind = "application/gzip" if path.endswith("/archives") else "application/json"
    headers = {"Content-Type": kind} if body else {}
    return await http.request(method, url + path, content=body, headers=headers)


@named(CLOSED)
async def test_without_a_token_every_route_is_a_401(
    stack: Stack, refused: Refusal, method: str, path: str
) -> None:
    async with httpx.AsyncClient(verify=False) as stranger:
        for headers in ({}, {"Authorization": "Bearer garbage"}, {"Authorization": "Basic eDp5"}):
            stranger.headers = httpx.Headers(headers)
            response = await ask(
                stranger, stack.url, method, path.replace("{", "").replace("}", "")
            )
            refused(response, 401, "AUTHENTICATION_ERROR")
            assert response.headers["www-authenticate"].startswith("Bearer")


@named(CHANGING)
async def test_a_viewer_changes_nothing(
    viewer: httpx.AsyncClient, stack: Stack, refused: Refusal, method: str, path: str
) -> None:
    bodies = {
        "/v1/sessions": {"type": "a", "name": "x"},
        "/v1/departments": {"sessionId": "ses_1", "name": "x", "domain": "x"},
        "/v1/workflows": {
            "sessionId": "ses_1",
            "name": "w",
            "steps": [{"type": "execute", "command": "x"}],
        },
    }
    if method == "POST" and path in bodies:
        response = await viewer.post(stack.url + path, json=bodies[path])
    else:
        response = await ask(viewer, stack.url, method, path.replace("{name}", "go"))
    details = refused(response, 403, "AUTHORIZATION_ERROR")
    assert "'viewer'" in details["message"]


@pytest.fixture(scope="module")
async def ids(stack: Stack) -> Data:
    """One object of each kind, all the admin's."""
    department = await stack.call(
        "POST",
        "/departments",
        {"sessionId": (await stack.session())["id"], "name": "a", "domain": "d"},
    )
    run = await stack.run(
        "write a.txt hi", {"type": "checkpoint"}, session_id=department["sessionId"]
    )
    archive = await stack.http.post("/archives", content=b"\0" * 10240)
    sandbox = await stack.call("POST", "/sandboxes", {"command": "say a"})
    return {
        "session_id": run["sessionId"],
        "department_id": department["id"],
        "workflow_id": run["workflowId"],
        "run_id": run["runId"],
        "checkpoint_id": run["result"]["checkpointIds"][0],
        "sandbox_id": sandbox["id"],
        "execution_id": sandbox["mainProcess"]["executionId"],
        "archive_id": archive.json()["data"]["id"],
        **await _network(stack),
        "profile_id": await _profile(stack),
        **await _said(stack, run["sessionId"]),
        "step": "1",
        "name": "go",
    }


async def _said(stack: Stack, session_id: str) -> Data:
    item = {"type": "text", "content": "x"}
    body = {"sessionId": session_id, "name": "of the admin", "items": [item]}
    context = await stack.call("POST", "/context", body)
    message = {"role": "user", "content": "x"}
    said = await stack.call("POST", f"/sessions/{session_id}/messages", message)
    item_id = context["items"][0]["id"]
    return {"context_id": context["id"], "item_id": item_id, "message_id": said["id"]}


async def _profile(stack: Stack) -> str:
    body = {"name": "of the admin", "level": "low"}
    return str((await stack.call("POST", "/security/profiles", body))["id"])


async def _network(stack: Stack) -> Data:
    network = await stack.call("POST", "/networks", {"name": "of the admin"})
    path = f"/networks/{network['id']}"
    policy = await stack.call("POST", f"{path}/policies", {"name": "p"})
    body = {"destinations": [{"host": "8.8.8.8"}]}
    (grant,) = (await stack.call("POST", f"{path}/allow-access", body))["grants"]
    return {"network_id": network["id"], "policy_id": policy["id"], "grant_id": grant["id"]}


@named(OF_AN_OBJECT)
async def test_somebody_elses_object_is_a_404_as_if_it_were_not_there(
    stack: Stack,
    operator: httpx.AsyncClient,
    refused: Refusal,
    ids: Data,
    method: str,
    path: str,
) -> None:
    response = await ask(operator, stack.url, method, path.format(**ids))
    details = refused(response, 404, "NOT_FOUND")
    unknown = {**ids, **{key: f"{id[:4]}nothing" for key, id in ids.items() if "_id" in key}}
    absent = refused(
        await ask(operator, stack.url, method, path.format(**unknown)), 404, "NOT_FOUND"
    )
    assert details.keys() == absent.keys()
    assert details["resource"] == absent["resource"]


@pytest.mark.parametrize("path", sorted(SCHEMA["paths"]))
async def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    stack: Stack, refused: Refusal, path: str
) -> None:
    right = {method for method, its, _ in OPERATIONS if its == path}
    for method in ({"GET", "POST", "PUT", "PATCH", "DELETE"} - right) | {"OPTIONS"}:
        response = await stack.http.request(method, stack.url + path.replace("{", "x"))
        refused(response, 405, "METHOD_NOT_ALLOWED")
        assert set(response.headers["allow"].split(", ")) == right


@pytest.mark.parametrize(
    "path", ["/v1/nowhere", "/v1/sessions/", "/v2/sessions", "/sessions", "/v1/%00", "/v1/a/b/c"]
)
async def test_an_unknown_path_is_a_404(stack: Stack, refused: Refusal, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        refused(await stack.http.request(method, stack.url + path), 404, "NOT_FOUND")


async def test_the_description_is_served_without_a_login(stack: Stack) -> None:
    async with httpx.AsyncClient(verify=False) as stranger:
        served = (await stranger.get(f"{stack.url}/openapi.json")).json()
        docs = await stranger.get(f"{stack.url}/docs")
        root = await stranger.get(stack.url)
    assert served["paths"].keys() == SCHEMA["paths"].keys()
    assert docs.status_code == 200
    assert (root.status_code, root.headers["location"]) == (307, "/docs")


def test_every_operation_has_a_stable_name_of_its_own() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    assert all(name.count(".") == 1 and name.replace(".", "").isalpha() for name in names)
    assert {"sessions.create", "departments.metrics", "workflows.start"} <= set(names)


@named(OPERATIONS)
def test_every_operation_tells_its_errors_and_never_a_422(method: str, path: str) -> None:
    operation = SCHEMA["paths"][path][method.lower()]
    told = {int(status) for status in operation["responses"]}
    wanted = {500}
    if operation["operationId"] not in OPEN:
        wanted |= {401} | ({403} if method != "GET" else set())
    if "{" in path:
        wanted |= {404}
    if "requestBody" in operation:
        wanted |= {400, 413, 415}
    assert wanted <= told
    assert told - {200, 201, 202} <= ERRORS
    for status in told & ERRORS:
        schema = operation["responses"][str(status)]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}
    assert operation.get("summary")


def test_the_bodies_of_the_document_are_the_examples() -> None:
    schemas = SCHEMA["components"]["schemas"]
    documented = ("SessionCreate", "DepartmentCreate", "WorkflowCreate", "StartWorkflow")
    of_sandboxes = ("SandboxCreate", "ExecuteBody")
    of_networks = ("NetworkCreate", "PolicyCreate", "AccessCreate")
    of_security = ("ProfileCreate", "EnforceBody")
    of_context = ("ContextCreate", "ItemCreate", "MessageCreate")
    for name in (*documented, *of_sandboxes, *of_networks, *of_security, *of_context):
        (body,) = schemas[name]["examples"]
        assert set(schemas[name].get("required", [])) <= body.keys()
        assert body.keys() <= schemas[name]["properties"].keys()


JSON_TYPE = {"Content-Type": "application/json"}
WRITES = ["/sessions", "/departments", "/workflows", "/workflows/{workflow_id}/start"]
BAD = {
    "NaN": (b'{"name": NaN}', "NaN"),
    "1e999": (b'{"name": 1e999}', "1e999"),
    "lone surrogate": (b'{"name": "\\ud800"}', "surrogate"),
    "depth": (b'{"name": ' + b"[" * 65 + b"]" * 65 + b"}", "64 levels"),
    "list": (b"[]", "JSON object"),
    "string": (b'"x"', "JSON object"),
    "broken": (b'{"name": ', "line 1"),
    "not UTF-8": (b'{"name": "\xff"}', "UTF-8"),
}


@pytest.mark.parametrize(("path", "name"), list(itertools.product(WRITES, BAD)))
async def test_a_body_that_is_no_sound_json_is_a_400(
    stack: Stack, refused: Refusal, ids: Data, path: str, name: str
) -> None:
    content, told = BAD[name]
    url = path.format(**ids)
    response = await stack.http.post(url, content=content, headers=JSON_TYPE)
    details = refused(response, 400, "VALIDATION_ERROR")
    assert (details["field"], told in details["issue"]) == ("body", True), details


@pytest.mark.parametrize("path", WRITES)
async def test_a_body_too_large_or_of_another_type_is_refused(
    stack: Stack, refused: Refusal, ids: Data, path: str
) -> None:
    url, large = path.format(**ids), b"{}".ljust(1024 * 1024 + 1)
    response = await stack.http.post(url, content=large, headers=JSON_TYPE)
    refused(response, 413, "PAYLOAD_TOO_LARGE")
    form = await stack.http.post(url, data={"name": "x"})
    refused(form, 415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_get_with_a_body_ignores_it(stack: Stack, ids: Data) -> None:
    answers = await asyncio.gather(
        *(
            stack.http.request("GET", path, content=b"{broken", headers=JSON_TYPE)
            for path in ("/sessions", f"/departments/{ids['department_id']}/metrics", "/workflows")
        )
    )
    assert [answer.status_code for answer in answers] == [200] * 3


async def test_the_docs_page_takes_nothing_from_elsewhere(stack: Stack) -> None:
    page = (await stack.http.get(f"{stack.url}/docs")).text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)

    assert len(assets) >= 2
    for asset in assets:
        assert asset.startswith("/")
        assert (await stack.http.get(f"{stack.url}{asset}")).status_code == 200
