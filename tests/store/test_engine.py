"""The database: what does not fit is refused, and reading does not wait for writing."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import Session, select

from director.store.engine import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "director.db"


def opened(path: Path) -> Store:
    store = Store(f"sqlite:///{path}")
    store.create_tables()
    return store


def test_a_database_of_this_version_is_opened_again(path: Path) -> None:
    opened(path).close()
    opened(path).close()


async def test_reading_does_not_wait_for_a_write_that_another_process_holds_up(path: Path) -> None:
    store = opened(path)

    def one(session: Session) -> int:
        return session.exec(select(1)).one()

    with closing(sqlite3.connect(path, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(store.run(one))
        assert await asyncio.wait_for(store.fetch(one), 60) == 1
        assert not writing.done()
        frozen.execute("ROLLBACK")
        assert await writing == 1
    store.close()
