import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from pwdlib.hashers.argon2 import Argon2Hasher

from director.api import auth
from director.api import users as user_routes
from director.api.errors import install_error_handlers
from director.api.middleware import RequestMiddleware
from director.api.tokens import Passwords, Tokens
from director.api.users import ensure_first_admin
from director.domain.pages import PageQuery
from director.domain.users import Role
from director.settings import Settings, SettingsError, read_settings
from director.store import users
from director.store.engine import Store

PASSWORD = "correct horse"
CHEAP = Passwords(Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1))


@dataclass
class Api:
    client: httpx.AsyncClient
    store: Store

    async def call(
        self, method: str, path: str, body: Any = None, *, by: str = "root"
    ) -> httpx.Response:
        token = (await self.login(by)).json()["data"]["token"]
        headers = {"Authorization": f"Bearer {token}"}
        return await self.client.request(method, f"/v1{path}", json=body, headers=headers)

    async def login(self, username: str, password: str = PASSWORD) -> httpx.Response:
        credentials = {"username": username, "password": password}
        return await self.client.post("/v1/auth/login", json=credentials)

    def add_user(self, username: str, role: Role) -> str:
        with self.store.write() as session:
            hashed = CHEAP.hash_now(PASSWORD)
            return users.create_user(session, username, hashed, role).id


@pytest.fixture
def api(store: Store) -> Api:
    app = FastAPI(redirect_slashes=False)
    app.add_middleware(RequestMiddleware)
    install_error_handlers(app)
    for router in (auth.router, user_routes.router):
        app.include_router(router, prefix="/v1")
    app.state.store, app.state.tokens = store, Tokens(["k" * 32], CHEAP)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://director")
    api = Api(client, store)
    api.add_user("root", Role.ADMIN)
    return api


@pytest.mark.asyncio
async def test_an_admin_adds_a_user_who_can_log_in(api: Api) -> None:
    body = {"username": "ada", "password": PASSWORD, "role": "viewer"}
    answer = await api.call("POST", "/users", body)
    assert answer.status_code == 201
    user = answer.json()["data"]
    assert answer.headers["location"] == f"/v1/users/{user['id']}"
    assert set(user) == {"id", "username", "role", "disabled", "createdAt", "updatedAt"}
    assert (user["username"], user["role"], user["disabled"]) == ("ada", "viewer", False)
    assert (await api.login("ada")).status_code == 200
    assert (await api.call("GET", f"/users/{user['id']}")).json()["data"] == user


@pytest.mark.asyncio
async def test_a_taken_username_is_a_conflict(api: Api) -> None:
    answer = await api.call("POST", "/users", {"username": "ROOT", "password": PASSWORD})
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "CONFLICT"
    assert answer.json()["error"]["details"] == {"username": "ROOT"}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"password": PASSWORD}, "username"),
        ({"username": "a b", "password": PASSWORD}, "username"),
        ({"username": "a", "password": "short"}, "password"),
        ({"username": "a", "password": PASSWORD, "role": "root"}, "role"),
        ({"username": "a", "password": PASSWORD, "disabled": True}, "disabled"),
    ],
)
async def test_a_bad_user_is_a_400_that_names_the_field(
    api: Api, body: dict[str, Any], field: str
) -> None:
    answer = await api.call("POST", "/users", body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["field"] == field
    assert "short" not in answer.text


@pytest.mark.asyncio
@pytest.mark.parametrize("role", [Role.OPERATOR, Role.VIEWER])
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", ""), ("GET", ""), ("GET", "/usr_1"), ("PATCH", "/usr_1"), ("PUT", "/usr_1")],
)
async def test_users_are_for_admins_only(api: Api, role: Role, method: str, path: str) -> None:
    api.add_user("ada", role)
    body = {"username": "eve", "password": PASSWORD} if method == "POST" else {}
    answer = await api.call(method, f"/users{path}", body, by="ada")
    assert answer.status_code == 403
    anonymous = await api.client.request(method, f"/v1/users{path}", json=body)
    assert anonymous.status_code == 401


@pytest.mark.asyncio
@pytest.mark.parametrize("user_id", ["usr_00000000000000000000000000", "sbx_123", "%00", "a%2Fb"])
async def test_an_unknown_user_is_a_404(api: Api, user_id: str) -> None:
    for method in ("GET", "PATCH"):
        answer = await api.call(method, f"/users/{user_id}", {})
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "NOT_FOUND"


@pytest.mark.asyncio
async def test_users_are_listed_in_pages(api: Api) -> None:
    names = {"root"} | {f"user-{number}" for number in range(4)}
    for name in sorted(names - {"root"}):
        api.add_user(name, Role.VIEWER)
    seen: list[str] = []
    path = "/users?limit=2"
    while path:
        answer = (await api.call("GET", path)).json()
        pagination = answer["metadata"]["pagination"]
        assert (pagination["limit"], pagination["hasMore"]) == (2, len(seen) < 3)
        seen += [user["username"] for user in answer["data"]]
        cursor = pagination["nextCursor"]
        path = f"/users?limit=2&cursor={cursor}" if cursor else ""
    assert len(seen) == len(names)
    assert set(seen) == names


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_new_password_ends_the_logins_and_is_the_one_that_counts(
    api: Api, method: str
) -> None:
    user_id = api.add_user("ada", Role.OPERATOR)
    refresh_token = (await api.login("ada")).json()["data"]["refreshToken"]
    answer = await api.call(method, f"/users/{user_id}", {"password": "another horse"})
    assert answer.status_code == 200
    assert (await api.login("ada")).status_code == 401
    assert (await api.login("ada", "another horse")).status_code == 200
    refresh = await api.client.post("/v1/auth/refresh", json={"refreshToken": refresh_token})
    assert refresh.status_code == 401


@pytest.mark.asyncio
async def test_a_disabled_user_cannot_log_in_until_enabled(api: Api) -> None:
    user_id = api.add_user("ada", Role.OPERATOR)
    answer = await api.call("PATCH", f"/users/{user_id}", {"disabled": True})
    assert answer.json()["data"]["disabled"] is True
    assert (await api.login("ada")).status_code == 401
    await api.call("PATCH", f"/users/{user_id}", {"disabled": False})
    assert (await api.login("ada")).status_code == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("change", [{"disabled": True}, {"role": "operator"}])
async def test_the_last_admin_stays(api: Api, change: dict[str, Any]) -> None:
    root = (await api.call("GET", "/auth/me")).json()["data"]["id"]
    answer = await api.call("PATCH", f"/users/{root}", change)
    assert answer.status_code == 409
    assert "last enabled admin" in answer.json()["error"]["message"]
    assert (await api.call("GET", "/users")).status_code == 200


@pytest.mark.asyncio
async def test_users_cannot_be_deleted(api: Api) -> None:
    user_id = api.add_user("ada", Role.OPERATOR)
    answer = await api.call("DELETE", f"/users/{user_id}")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, PUT, PATCH"


@pytest.mark.asyncio
async def test_operations_have_stable_ids_and_need_a_token(api: Api) -> None:
    document = (await api.client.get("/openapi.json")).json()
    operations = {
        operation["operationId"]: bool(operation.get("security"))
        for path in document["paths"].values()
        for operation in path.values()
    }
    assert operations == {
        "auth.login": False,
        "auth.refresh": True,
        "auth.logout": True,
        "auth.logoutAll": True,
        "auth.me": True,
        "users.create": True,
        "users.list": True,
        "users.get": True,
        "users.update": True,
        "users.patch": True,
    }


def settings(home: Path, **environ: str) -> Settings:
    return read_settings({"DIRECTOR_HOME": str(home), **environ})


def usernames(store: Store) -> list[str]:
    with store.read() as session:
        return [row.username for row in users.list_users(session, PageQuery())[0]]


def admin_password_is(store: Store, username: str, password: str) -> bool:
    with store.read() as session:
        row = users.by_username(session, username)
    assert row is not None
    assert row.role == Role.ADMIN
    return Argon2Hasher().verify(password, row.password_hash)


def test_the_first_admin_gets_a_generated_password_that_is_kept_for_the_owner_only(
    store: Store, tmp_path: Path
) -> None:
    local = settings(tmp_path)
    notice = ensure_first_admin(store, local, CHEAP)
    password = local.admin_password_file.read_text().strip()
    assert local.admin_password_file.stat().st_mode & 0o777 == 0o600
    assert notice is not None
    assert password in notice
    assert str(local.admin_password_file) in notice
    assert admin_password_is(store, "admin", password)


def test_the_first_admin_is_made_once(store: Store, tmp_path: Path) -> None:
    ensure_first_admin(store, settings(tmp_path), CHEAP)
    assert ensure_first_admin(store, settings(tmp_path), CHEAP) is None
    assert usernames(store) == ["admin"]


@pytest.mark.parametrize("mode", ["local", "production"])
def test_the_first_admin_takes_name_and_password_of_the_settings(
    store: Store, tmp_path: Path, mode: str
) -> None:
    given = settings(
        tmp_path,
        DIRECTOR_MODE=mode,
        DIRECTOR_SECRET_KEY="k" * 32,
        DIRECTOR_ADMIN_USERNAME="ada",
        DIRECTOR_ADMIN_PASSWORD=PASSWORD,
    )
    notice = ensure_first_admin(store, given, CHEAP)
    assert notice is not None
    assert PASSWORD not in notice
    assert not given.admin_password_file.exists()
    assert admin_password_is(store, "ada", PASSWORD)


@pytest.mark.parametrize(("name", "value"), [("PASSWORD", "short"), ("USERNAME", "a b")])
def test_a_first_admin_that_the_api_would_refuse_is_refused(
    store: Store, tmp_path: Path, name: str, value: str
) -> None:
    given = settings(tmp_path, **{f"DIRECTOR_ADMIN_{name}": value})
    with pytest.raises(SettingsError, match=f"DIRECTOR_ADMIN_{name}: ") as caught:
        ensure_first_admin(store, given, CHEAP)
    assert value not in str(caught.value)
    assert usernames(store) == []


@pytest.mark.both
def test_processes_that_start_at_once_make_one_admin(
    store: Store, url: str, tmp_path: Path
) -> None:
    local = settings(tmp_path)
    stores = [Store(url) for _ in range(4)]
    start = threading.Barrier(len(stores))

    def begin(own: Store) -> str | None:
        start.wait(20)
        return ensure_first_admin(own, local, CHEAP)

    with ThreadPoolExecutor(len(stores)) as pool:
        notices = [notice for notice in pool.map(begin, stores) if notice]
    for own in stores:
        own.close()
    assert len(notices) == 1
    assert usernames(store) == ["admin"]
    assert admin_password_is(store, "admin", local.admin_password_file.read_text().strip())
