"""Whoever waits for commits hears of each, whichever process made it."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
from sqlmodel import select, update

from director.store import sqlite
from director.store.database import Changes
from director.store.engine import Store
from director.store.tables import SessionRow

Make = Callable[[], str]


@asynccontextmanager
async def closing(store: Store) -> AsyncIterator[Changes]:
    changes = store.changes()
    try:
        yield changes
    finally:
        await changes.close()


def changed(store: Store) -> None:
    with store.write() as session:
        session.exec(update(SessionRow).values(name="another"))


async def woken(store: Store, change: Callable[[], None]) -> None:
    """A change ends the waiting that has begun before it."""
    async with closing(store) as changes:
        await asyncio.wait_for(changes.wait(), 60)
        waiting = asyncio.create_task(changes.wait())
        await asyncio.sleep(0.3)  # a first look may find what was done before
        if waiting.done():
            waiting = asyncio.create_task(changes.wait())
            await asyncio.sleep(0.05)
        assert not waiting.done(), "nothing was changed"
        await asyncio.to_thread(change)
        await asyncio.wait_for(waiting, 60)


async def test_the_first_wait_returns_at_once(store: Store) -> None:
    async with closing(store) as changes:
        await asyncio.wait_for(changes.wait(), 60)


async def test_a_commit_of_another_process_ends_the_waiting(
    store: Store, url: str, new_run: Make
) -> None:
    new_run()
    other = Store(url)
    try:
        await woken(store, lambda: changed(other))
    finally:
        other.close()


async def test_a_commit_of_the_same_process_ends_the_waiting(store: Store, new_run: Make) -> None:
    new_run()
    await woken(store, lambda: changed(store))


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_commits_are_found_though_the_kernel_cannot_tell_of_them(
    store: Store, new_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left() -> None:
        raise OSError(errno.EMFILE, "inotify instances are used up")

    monkeypatch.setattr(sqlite, "Inotify", none_left)
    new_run()
    await woken(store, lambda: changed(store))


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_what_nobody_announces_is_found_by_looking(
    store: Store, url: str, new_run: Make
) -> None:
    """A process may die between its commit and the announcement."""
    new_run()

    def unannounced() -> None:
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE sessions SET name = 'another'")

    await woken(store, unannounced)


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_connection_that_is_cut_is_made_again(
    store: Store, url: str, new_run: Make
) -> None:
    new_run()
    mine = "pid <> pg_backend_pid() AND datname = current_database()"
    async with closing(store) as changes:
        await changes.wait()
        with psycopg.connect(url, autocommit=True) as connection:
            cut = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}"
            assert connection.execute(cut.encode()).rowcount > 0
        for _ in range(3):
            await asyncio.wait_for(changes.wait(), 60)
    await woken(store, lambda: changed(store))


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
async def test_a_transaction_that_writes_nothing_is_announced_to_nobody(
    store: Store, url: str, new_run: Make
) -> None:
    new_run()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("LISTEN director")
        changed(store)
        assert list(connection.notifies(timeout=2, stop_after=1))
        for _ in range(20):  # what was written before may be announced only now
            if not list(connection.notifies(timeout=0.3)):
                break
        with store.write() as session:
            session.exec(select(SessionRow)).all()
        assert list(connection.notifies(timeout=0.3)) == []
