import asyncio
import base64
import hashlib
import json
import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from fastapi import APIRouter, FastAPI
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlmodel import SQLModel

from director.api import auth
from director.api.errors import install_error_handlers
from director.api.middleware import RequestMiddleware
from director.api.principals import EditorDep, principal_of
from director.api.requests import StrictRoute
from director.api.tokens import Passwords, Tokens
from director.domain.errors import AuthenticationError
from director.domain.times import utc_now
from director.domain.users import Role
from director.store import users
from director.store.engine import Store

KEY, OTHER_KEY = "k" * 32, "o" * 32
KEY_ID = hashlib.sha256(KEY.encode()).hexdigest()[:8]
PASSWORD = "correct horse"
HOUR = timedelta(hours=1)


class CountingHasher(Argon2Hasher):
    """argon2id at its cheapest; remembers against what it compared."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.compared: list[str] = []

    def verify(self, password: str | bytes, hash: str | bytes) -> bool:
        self.compared.append(str(hash))
        return super().verify(password, hash)


@dataclass
class Api:
    client: httpx.AsyncClient
    store: Store
    tokens: Tokens
    hasher: CountingHasher

    def add_user(self, username: str, role: Role = Role.OPERATOR) -> str:
        hashed = self.tokens.passwords.hash_now(PASSWORD)
        with self.store.write() as session:
            return users.create_user(session, username, hashed, role).id

    def change(self, user_id: str, **changes: Any) -> None:
        with self.store.write() as session:
            users.update_user(session, user_id, **changes)

    async def login(self, username: str = "ada") -> dict[str, Any]:
        credentials = {"username": username, "password": PASSWORD}
        answer = await self.client.post("/v1/auth/login", json=credentials)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def me(self, token: str) -> httpx.Response:
        return await self.client.get("/v1/auth/me", headers=bearer(token))

    async def refresh(self, token: str) -> httpx.Response:
        return await self.client.post("/v1/auth/refresh", headers=bearer(token))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def refused(answer: httpx.Response) -> str:
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"] == "Bearer"
    body = answer.json()
    assert body["success"] is False
    assert body["error"]["code"] == "AUTHENTICATION_ERROR"
    return str(body["error"]["message"])


@pytest.fixture
def api(store: Store) -> Api:
    hasher = CountingHasher()
    tokens = Tokens([KEY], Passwords(hasher))
    things = APIRouter(route_class=StrictRoute)

    @things.post("/things")
    async def add_thing(principal: EditorDep) -> str:
        return principal.username

    app = FastAPI(redirect_slashes=False)
    app.add_middleware(RequestMiddleware)
    install_error_handlers(app)
    app.include_router(auth.router, prefix="/v1")
    app.include_router(things, prefix="/v1")
    app.state.store, app.state.tokens = store, tokens
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://director")
    return Api(client, store, tokens, hasher)


@pytest.mark.asyncio
async def test_a_login_gives_a_pair_that_says_how_long_it_is_good(api: Api) -> None:
    user_id = api.add_user("ada", Role.ADMIN)
    pair = await api.login("ADA")
    assert pair["token"] == pair["accessToken"]
    assert pair["refreshToken"].startswith("drt_")
    assert len(base64.urlsafe_b64decode(pair["refreshToken"][4:] + "=")) == 32
    assert (pair["tokenType"], pair["expiresIn"]) == ("Bearer", 900)
    assert pair["refreshExpiresIn"] == 30 * 24 * 3600
    assert pair["user"] == {"id": user_id, "username": "ada", "role": "admin"}


@pytest.mark.asyncio
async def test_an_access_token_has_the_agreed_claims_and_names_its_key(api: Api) -> None:
    user_id = api.add_user("ada")
    token = (await api.login())["accessToken"]
    claims = jwt.decode(token, KEY, algorithms=["HS256"], audience="director-api")
    assert set(claims) == {"iss", "aud", "sub", "iat", "nbf", "exp", "jti", "sid", "role"}
    assert (claims["sub"], claims["role"]) == (user_id, "operator")
    assert claims["exp"] - claims["iat"] == 900
    assert jwt.get_unverified_header(token)["kid"] == KEY_ID


@pytest.mark.both
@pytest.mark.asyncio
async def test_unknown_wrong_and_disabled_cost_one_comparison_and_look_the_same(
    api: Api,
) -> None:
    api.add_user("ada")
    api.change(api.add_user("bob"), disabled=True)
    attempts = [("nobody", PASSWORD), ("ada", "wrong"), ("bob", PASSWORD), ("\x00é", PASSWORD)]
    told = set()
    for username, password in attempts:
        credentials = {"username": username, "password": password}
        answer = await api.client.post("/v1/auth/login", json=credentials)
        told.add((refused(answer), json.dumps(answer.json()["error"]["details"])))
    assert told == {("wrong username or password", "{}")}
    assert len(api.hasher.compared) == len(attempts)
    assert len({hashed.rpartition("p=")[0] for hashed in api.hasher.compared}) == 1


def all_that_is_stored(store: Store) -> str:
    with store.read() as session:
        tables = SQLModel.metadata.sorted_tables
        return str([session.connection().execute(table.select()).all() for table in tables])


@pytest.mark.asyncio
async def test_no_stored_row_holds_a_password_or_a_refresh_token(api: Api) -> None:
    api.add_user("ada")
    pair = await api.login()
    written = all_that_is_stored(api.store)
    assert "ada" in written
    assert PASSWORD not in written
    assert pair["refreshToken"] not in written


@pytest.mark.asyncio
async def test_me_tells_who_the_token_stands_for(api: Api) -> None:
    user_id = api.add_user("ada")
    answer = await api.me((await api.login())["token"])
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert (data["id"], data["username"], data["disabled"]) == (user_id, "ada", False)
    assert "passwordHash" not in data


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("header", "told"),
    [
        (None, "is missing"),
        ("Basic YTpi", "not of the form"),
        ("Bearer", "not of the form"),
        ("Bearer x", "garbled"),
        ("Bearer a.b.c", "garbled"),
        ("Bearer \xe9.\xff.x", "garbled"),
        ("Bearer drt_abc", "this is a refresh token"),
    ],
)
async def test_a_401_says_what_is_wrong_with_the_token(
    api: Api, header: str | None, told: str
) -> None:
    headers = {} if header is None else {b"Authorization": header.encode("latin-1")}
    assert told in refused(await api.client.get("/v1/auth/me", headers=headers))


@pytest.mark.asyncio
async def test_an_expired_token_is_told_apart_from_a_garbled_one(api: Api) -> None:
    user_id = api.add_user("ada")
    token = api.tokens.access(user_id, "lgn_1", Role.OPERATOR, utc_now() - HOUR)
    assert "has expired" in refused(await api.me(token))


def encoded(header: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).decode().rstrip("=")


def forged(claims: dict[str, Any], key: str, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, key, algorithm, {"kid": KEY_ID})


@pytest.mark.asyncio
async def test_forged_tokens_are_refused(api: Api) -> None:
    api.add_user("ada")
    token = (await api.login())["token"]
    good = jwt.decode(token, KEY, algorithms=["HS256"], audience="director-api")
    body = token.split(".")[1]
    none = encoded({"alg": "none", "kid": KEY_ID})
    deep = base64.urlsafe_b64encode(b'{"a":' + b"[" * 9000).decode().rstrip("=")
    assert (await api.me(forged(good, KEY))).status_code == 200
    for bad in (
        forged(good, OTHER_KEY),
        forged(good, KEY * 2, "HS512"),
        forged({**good, "aud": "another"}, KEY),
        forged({**good, "iss": "another"}, KEY),
        forged({**good, "role": "root"}, KEY),
        forged({**good, "nbf": good["exp"]}, KEY),
        forged({name: value for name, value in good.items() if name != "exp"}, KEY),
        forged({name: value for name, value in good.items() if name != "sid"}, KEY),
        f"{none}.{body}.",
        f"{encoded({'alg': 'HS256'})}.{body}.x",
        f"{encoded({'alg': 'HS256', 'kid': [1]})}.{body}.x",
        f"{deep}.{body}.x",
        token[:-2],
    ):
        assert "garbled or not made by this server" in refused(await api.me(bad)), bad


@pytest.mark.asyncio
async def test_a_token_stands_for_its_user_and_login_only(api: Api) -> None:
    ada, bob = api.add_user("ada"), api.add_user("bob")
    login_id = api.tokens.verify((await api.login())["token"]).sid
    swapped = api.tokens.access(bob, login_id, Role.ADMIN)
    assert "has ended" in refused(await api.me(swapped))
    assert (await api.me(api.tokens.access(ada, login_id, Role.VIEWER))).status_code == 200


def test_an_old_key_verifies_until_it_is_taken_away() -> None:
    passwords = Passwords(CountingHasher())
    old = Tokens([KEY], passwords).access("usr_1", "lgn_1", Role.VIEWER)
    assert Tokens([OTHER_KEY, KEY], passwords).verify(old).sub == "usr_1"
    new = Tokens([OTHER_KEY, KEY], passwords).access("usr_1", "lgn_1", Role.VIEWER)
    assert Tokens([OTHER_KEY], passwords).verify(new).sub == "usr_1"
    with pytest.raises(AuthenticationError, match="a key that is not used any more"):
        Tokens([OTHER_KEY], passwords).verify(old)


@pytest.mark.asyncio
async def test_the_database_decides_the_role_not_the_token(api: Api) -> None:
    user_id = api.add_user("eve", Role.VIEWER)
    login_id = api.tokens.verify((await api.login("eve"))["token"]).sid
    token = api.tokens.access(user_id, login_id, Role.ADMIN)
    answer = await api.client.post("/v1/things", headers=bearer(token))
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "AUTHORIZATION_ERROR"
    assert "'viewer' may read only" in answer.json()["error"]["message"]


@pytest.mark.asyncio
@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
async def test_operators_and_admins_may_change_things(api: Api, role: Role) -> None:
    api.add_user("ada", role)
    headers = bearer((await api.login())["token"])
    assert (await api.client.post("/v1/things", headers=headers)).status_code == 200


@pytest.mark.asyncio
async def test_a_refresh_token_is_taken_as_bearer_or_in_the_body(api: Api) -> None:
    api.add_user("ada")
    first = await api.login()
    second = (await api.refresh(first["refreshToken"])).json()["data"]
    body = {"refreshToken": second["refreshToken"]}
    stale = bearer(first["accessToken"])
    answer = await api.client.post("/v1/auth/refresh", json=body, headers=stale)
    third = answer.json()["data"]
    assert len({pair["refreshToken"] for pair in (first, second, third)}) == 3
    assert len({pair["accessToken"] for pair in (first, second, third)}) == 3
    for pair in (first, second, third):
        assert (await api.me(pair["accessToken"])).status_code == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("content", [b"", b"{}", b"null", b'{"refreshToken": null}'])
async def test_a_refresh_without_a_token_is_a_401(api: Api, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await api.client.post("/v1/auth/refresh", content=content, headers=headers)
    assert "the refresh token is missing" in refused(answer)


@pytest.mark.asyncio
async def test_an_access_token_refreshes_nothing(api: Api) -> None:
    api.add_user("ada")
    token = (await api.login())["accessToken"]
    assert "is not known" in refused(await api.refresh(token))
    assert (await api.me(token)).status_code == 200


@pytest.mark.asyncio
async def test_a_refresh_that_is_sent_twice_at_once_gets_the_same_successor(api: Api) -> None:
    api.add_user("ada")
    token = (await api.login())["refreshToken"]
    one = (await api.refresh(token)).json()["data"]
    other = (await api.refresh(token)).json()["data"]
    assert one["refreshToken"] == other["refreshToken"]
    assert (await api.refresh(one["refreshToken"])).status_code == 200


@pytest.mark.asyncio
async def test_reuse_of_a_refresh_token_ends_the_login_for_good(api: Api) -> None:
    api.add_user("ada")
    first, elsewhere = await api.login(), await api.login()
    second = (await api.refresh(first["refreshToken"])).json()["data"]
    third = (await api.refresh(second["refreshToken"])).json()["data"]
    assert "used twice" in refused(await api.refresh(first["refreshToken"]))
    assert "this login has ended" in refused(await api.refresh(third["refreshToken"]))
    assert "this login has ended" in refused(await api.me(third["accessToken"]))
    assert (await api.me(elsewhere["accessToken"])).status_code == 200


@pytest.mark.asyncio
async def test_logout_ends_this_login_and_logout_all_the_others_too(api: Api) -> None:
    api.add_user("ada")
    one, two, three = [await api.login() for _ in range(3)]
    answer = await api.client.post("/v1/auth/logout", headers=bearer(one["token"]))
    assert answer.json()["data"] == {"endedLogins": 1}
    refused(await api.me(one["token"]))
    refused(await api.refresh(one["refreshToken"]))
    assert (await api.me(two["token"])).status_code == 200
    answer = await api.client.post("/v1/auth/logout-all", headers=bearer(two["token"]))
    assert answer.json()["data"] == {"endedLogins": 2}
    refused(await api.me(two["token"]))
    refused(await api.me(three["token"]))


@pytest.mark.asyncio
async def test_disabling_a_user_ends_what_is_open_at_once(api: Api) -> None:
    user_id = api.add_user("bob")
    pair = await api.login("bob")
    principal = await principal_of(pair["token"], api.store, api.tokens)
    login_id = principal.login_id
    assert await api.store.fetch(lambda s: users.live_logins(s, [login_id])) == {login_id}
    api.change(user_id, disabled=True)
    assert not await api.store.fetch(lambda s: users.live_logins(s, [login_id]))
    refused(await api.me(pair["token"]))
    refused(await api.refresh(pair["refreshToken"]))


@pytest.mark.both
@pytest.mark.asyncio
async def test_a_token_out_of_a_frame_may_hold_anything(api: Api) -> None:
    for token in ("", "\ud800", "a.\ud800.b", "\x00", "." * 70_000):
        with pytest.raises(AuthenticationError):
            await principal_of(token, api.store, api.tokens)


@pytest.mark.asyncio
async def test_a_rejected_login_never_echoes_the_password(api: Api) -> None:
    for body in ({"username": "ada", "pasword": "hunter2"}, {"password": 77123}, "hunter2"):
        answer = await api.client.post("/v1/auth/login", json=body)
        assert answer.status_code == 400
        assert "hunter2" not in answer.text
        assert "77123" not in answer.text


class WaitingHasher(CountingHasher):
    """Holds every comparison until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go, self.four_inside = threading.Event(), threading.Event()
        self.inside, self.most, self._lock = 0, 0, threading.Lock()

    def verify(self, password: str | bytes, hash: str | bytes) -> bool:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            if self.inside == 4:
                self.four_inside.set()
        self.let_go.wait(20)
        with self._lock:
            self.inside -= 1
        return super().verify(password, hash)


@pytest.mark.asyncio
async def test_at_most_four_passwords_are_hashed_at_once_and_the_loop_stays_free() -> None:
    hasher = WaitingHasher()
    passwords = Passwords(hasher)
    checks = [asyncio.create_task(passwords.verify("x", None)) for _ in range(9)]
    assert await asyncio.to_thread(hasher.four_inside.wait, 20)
    hasher.let_go.set()
    assert await asyncio.gather(*checks) == [False] * 9
    assert hasher.most == 4
