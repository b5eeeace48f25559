"""What a worker serves to the API: who may ask, where it is found, and what becomes of a reader."""

import asyncio
import io
import os
import socket
import stat
import tarfile
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from support.server import free_port
from support.waiting import until_so

from director.api.tokens import Tokens
from director.api.transfers import Transfers
from director.domain.errors import (
    AuthenticationError,
    BrokenOffError,
    ConflictError,
    HostAwayError,
    NotFoundError,
    UnavailableError,
)
from director.domain.sandboxes import SandboxSpec
from director.domain.times import utc_now
from director.domain.users import Role
from director.endpoint.app import Routes
from director.endpoint.passes import LIFE, Passes
from director.endpoint.places import Address, Places
from director.endpoint.server import Endpoint
from director.sandbox.scripted import ScriptedRuntime

KEY, OTHER = "k" * 32, "o" * 32
MIB = 1024**2

Serving = Callable[..., AbstractAsyncContextManager[None]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose name is longer than the path of a socket may be."""
    home = tmp_path / ("long" * 30)
    home.mkdir(mode=0o700)
    return home


@pytest.fixture
def workspace(home: Path, runtime: ScriptedRuntime) -> Path:
    runtime.create(SandboxSpec(id="sbx_1", image="image", owner_id="sbx_1", epoch=1))
    root = Path(runtime.workspace("sbx_1").path())
    (root / "a.txt").write_text("hello")
    return root


@pytest.fixture
def runtime(home: Path) -> ScriptedRuntime:
    return ScriptedRuntime(home / "sandboxes")


@pytest.fixture
def serving(home: Path, runtime: ScriptedRuntime, workspace: Path) -> Serving:
    """Serve as a worker of the host `here` does."""

    @asynccontextmanager
    async def serve(address: Address | None = None, **bounds: float) -> AsyncIterator[None]:
        routes = Routes("here", runtime, Passes([KEY]), **bounds)  # type: ignore[arg-type]
        async with Endpoint(routes.app(), Places(home, "here"), address).serving():
            yield

    return serve


async def read(home: Path, path: bytes = b"a.txt", key: str = KEY, host: str = "here") -> bytes:
    """What the API gets of the sandbox, without waiting for a worker."""
    transfer = await Transfers(home, Passes([key]), patience=0).read(host, "sbx_1", path)
    try:
        return b"".join([block async for block in transfer.blocks()])
    finally:
        await transfer.close()


async def has_room(home: Path) -> bool:
    """Whether a worker takes on another transfer."""
    try:
        return await read(home) == b"hello"
    except UnavailableError:
        return False


async def asked(home: Path, shown: str | None) -> httpx.Response:
    """The bare answer to whoever shows something."""
    with Places(home, "here").announced() as (place,):
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=place.path)) as http:
            headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
            return await http.get("http://worker/sandboxes/sbx_1/files?path=a.txt", headers=headers)


async def test_only_a_fresh_pass_for_the_thing_itself_is_good(home: Path, serving: Serving) -> None:
    passes, late = Passes([KEY]), utc_now() - LIFE - timedelta(seconds=6)
    wrong = {
        None: 401,
        "garbled": 401,
        Tokens([KEY]).access("usr_1", "log_1", Role.ADMIN): 401,
        Passes([OTHER]).make("here", "sbx_1", "read"): 401,
        passes.make("here", "sbx_1", "read", late): 401,
        passes.make("there", "sbx_1", "read"): 403,
        passes.make("here", "sbx_2", "read"): 403,
        passes.make("here", "sbx_1", "write"): 403,  # type: ignore[arg-type]
    }
    async with serving():
        for shown, status in wrong.items():
            response = await asked(home, shown)
            assert response.status_code == status, (shown, response.text)
            assert "hello" not in response.text
        good = await asked(home, passes.make("here", "sbx_1", "read"))
        assert (good.status_code, good.text) == (200, "hello")


def test_a_pass_is_no_token_of_a_user() -> None:
    with pytest.raises(AuthenticationError):
        Tokens([KEY]).verify(Passes([KEY]).make("here", "usr_1", "read"))


async def test_a_key_that_signs_no_more_still_counts(home: Path, serving: Serving) -> None:
    Passes([OTHER, KEY]).check(Passes([KEY]).make("h", "o", "read"), "h", "o", "read")
    async with serving():
        with pytest.raises(HostAwayError, match="DIRECTOR_SECRET_KEY"):
            await read(home, key=OTHER)


async def test_files_and_folders_come_and_what_is_not_there_is_told(
    home: Path, workspace: Path, serving: Serving, runtime: ScriptedRuntime
) -> None:
    odd = os.fsencode(workspace) + b"/\xff %20+"
    os.mkdir(odd)
    async with serving():
        assert await read(home) == b"hello"
        with tarfile.open(fileobj=io.BytesIO(await read(home, b""))) as tar:
            assert sorted(tar.getnames()) == ["a.txt", "\udcff %20+"]
        assert await read(home, b"\xff %20+") == bytes(10240)
        with pytest.raises(NotFoundError):
            await read(home, b"none")
        runtime.remove("sbx_1")
        with pytest.raises(ConflictError, match="not on this host"):
            await read(home)


async def test_any_worker_of_the_host_answers_whatever_killed_ones_have_left(
    home: Path, serving: Serving
) -> None:
    folder = Places(home, "here").folder
    async with serving():
        (alive,) = folder.iterdir()
        about = alive.stat()
        assert (stat.S_ISSOCK(about.st_mode), about.st_mode & 0o777) == (True, 0o600)
        assert folder.stat().st_mode & 0o777 == 0o700
        descriptor = os.open(folder, os.O_PATH)
        for number in range(5):
            with socket.socket(socket.AF_UNIX) as killed:
                killed.bind(f"/proc/self/fd/{descriptor}/{number}.sock")
        os.close(descriptor)
        for _ in range(10):
            assert await read(home) == b"hello"
        async with serving():
            assert len(list(folder.iterdir())) == 2, "those of the killed are removed"
        assert await read(home) == b"hello"
    assert not list(folder.iterdir())


async def test_workers_share_an_address(home: Path, serving: Serving) -> None:
    address = Address("127.0.0.1", free_port())
    async with serving(address):
        async with serving(address):
            assert await read(home) == b"hello"
        assert await read(home) == b"hello"
    with pytest.raises(HostAwayError, match="DIRECTOR_WORKER_ADDRESS"):
        await read(home)
    async with serving():
        assert await read(home) == b"hello"
        assert [path.suffix for path in Places(home, "here").folder.iterdir()] == [".sock"]


async def test_where_nobody_answers_it_is_said_what_to_look_for(
    home: Path, serving: Serving
) -> None:
    async with serving():
        with pytest.raises(HostAwayError, match="is it running"):
            await read(home, host="elsewhere")


async def test_whoever_waits_for_a_worker_gets_the_next_one(home: Path, serving: Serving) -> None:
    waiting = asyncio.create_task(Transfers(home, Passes([KEY])).read("here", "sbx_1", b"a.txt"))
    await asyncio.sleep(0)
    async with serving():
        transfer = await waiting
        assert [block async for block in transfer.blocks()] == [b"hello"]
        await transfer.close()


@pytest.mark.parametrize("path", [b"big", b""])
async def test_what_cannot_come_to_its_end_breaks_off(
    home: Path, workspace: Path, serving: Serving, path: bytes
) -> None:
    (workspace / "big").write_bytes(b"x" * 16 * MIB)
    async with serving():
        transfer = await Transfers(home, Passes([KEY])).read("here", "sbx_1", path)
        blocks = transfer.blocks()
        assert await anext(blocks)
        if path:
            os.truncate(workspace / "big", MIB)
        else:
            (workspace / "big").unlink()
            (workspace / "a.txt").unlink()
            workspace.rmdir()
        with pytest.raises(BrokenOffError, match="worker's stream"):
            async for _ in blocks:
                pass
        await transfer.close()


async def test_a_reader_that_takes_nothing_is_given_up_and_makes_room(
    home: Path, workspace: Path, serving: Serving
) -> None:
    with (workspace / "big").open("wb") as file:
        file.truncate(64 * MIB)
    async with serving(at_once=1, stall_seconds=0.5):
        stalled = await Transfers(home, Passes([KEY])).read("here", "sbx_1", b"big")
        with pytest.raises(UnavailableError, match="too many transfers"):
            await read(home)
        await until_so(lambda: has_room(home), "it has made room")
        with pytest.raises(BrokenOffError):
            async for _ in stalled.blocks():
                pass
        await stalled.close()


async def test_a_reader_that_goes_makes_room(home: Path, workspace: Path, serving: Serving) -> None:
    with (workspace / "big").open("wb") as file:
        file.truncate(64 * MIB)
    async with serving(at_once=1):
        gone = await Transfers(home, Passes([KEY])).read("here", "sbx_1", b"big")
        await gone.close()
        await until_so(lambda: has_room(home), "it has made room")


@pytest.mark.parametrize("text", ["x", ":7", "x:", "x:0", "x:70000", "x:y", "a/b:7", ""])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["worker:7400", "10.0.0.5:7400", "[fd00::1]:7400"])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(Address.parse(text)) == text
