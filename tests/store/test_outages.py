"""Postgres is killed in the middle of work: what was committed stays, and the next one goes on."""

import asyncio
import ctypes
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, func, select, text
from support.postgres import PostgresServer

from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.store import sessions
from director.store.database import AwayError
from director.store.engine import Store
from director.store.tables import SessionRow

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def mortal(server: PostgresServer) -> Iterator[Store]:
    """A store on a server that may be killed."""
    store = Store(server.database())
    yield store
    store.close()


def write(store: Store) -> None:
    with store.write() as session:
        sessions.create(session, ADA, SessionCreate(type="a", name="s"))


def stored(store: Store) -> int:
    with store.read() as session:
        return session.exec(select(func.count()).select_from(SessionRow)).one()


def test_a_write_that_is_cut_off_fails_and_the_next_one_goes_on(
    server: PostgresServer, mortal: Store
) -> None:
    write(mortal)

    def cut_off(session: Session) -> None:
        sessions.create(session, ADA, SessionCreate(type="a", name="s"))
        session.flush()
        server.kill()

    with pytest.raises(OperationalError):
        mortal.transact(cut_off)
    with pytest.raises(AwayError):
        mortal.check()
    with pytest.raises(OperationalError):
        stored(mortal)
    server.start()

    assert stored(mortal) == 1
    write(mortal)
    assert stored(mortal) == 2


async def test_a_look_after_a_restart_of_the_server_sees_what_is_there_at_the_first_try(
    server: PostgresServer, mortal: Store
) -> None:
    def count(session: Session) -> int:
        return session.exec(select(func.count()).select_from(SessionRow)).one()

    write(mortal)
    assert await mortal.look(count) == 1
    server.kill()
    with pytest.raises(OperationalError):
        await mortal.look(count)
    server.start()
    assert await mortal.look(count) == 1
    await asyncio.gather(*(mortal.look(count) for _ in range(8)))
    server.kill()
    server.start()
    assert await asyncio.gather(*(mortal.look(count) for _ in range(8))) == [1] * 8


async def test_who_waits_for_commits_hears_of_those_after_the_outage(
    server: PostgresServer, mortal: Store
) -> None:
    changes, woken = mortal.changes(), 0

    async def watch() -> None:
        nonlocal woken
        while True:
            await changes.wait()
            woken += 1

    watching = asyncio.create_task(watch())
    try:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        while woken < 2:  # it has seen the outage, or its end
            await asyncio.sleep(0.05)
        for _ in range(3):
            await asyncio.sleep(0.5)
            before = woken
            await asyncio.to_thread(write, mortal)
            async with asyncio.timeout(60):
                while woken == before:
                    await asyncio.sleep(0.01)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await changes.close()


def test_a_transaction_that_stands_still_is_cut_off(mortal: Store) -> None:
    def stand_still(session: Session) -> None:
        session.exec(text("SET idle_in_transaction_session_timeout = '50ms'"))
        write(mortal)  # others go on meanwhile
        time.sleep(0.5)
        sessions.create(session, ADA, SessionCreate(type="a", name="s"))

    with pytest.raises(OperationalError):
        mortal.transact(stand_still)
    assert stored(mortal) == 1


def test_a_server_that_was_killed_leaves_nothing() -> None:
    server = PostgresServer()
    server.database()
    folder = Path(str(server).removeprefix("Postgres in "))
    segment = int((folder / "data/postmaster.pid").read_text().splitlines()[6].split()[1])
    assert is_there(segment)
    server.kill()
    server.close()

    assert not folder.exists()
    assert not is_there(segment)


def is_there(segment: int) -> bool:
    """Whether a segment of shared memory exists."""
    described = ctypes.create_string_buffer(256)
    return ctypes.CDLL(None).shmctl(segment, 2, described) == 0
