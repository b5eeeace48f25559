"""The database: what does not fit is refused, and reading does not wait for writing."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlmodel import Session, select

from director.store.engine import SchemaError, Store


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


def test_a_database_of_another_version_is_refused_with_what_it_lacks(path: Path) -> None:
    store = opened(path)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE runs DROP COLUMN priority")
        connection.exec_driver_sql("DROP TABLE tickets")

    with pytest.raises(SchemaError, match=r"another version.*runs\.priority.*move it away"):
        store.create_tables()

    with store.engine.begin() as connection:
        names = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name = 'tickets'")
        assert names.all() == [], "nothing was made in it"
    store.close()


async def test_reading_does_not_wait_for_a_write_that_another_process_holds_up(path: Path) -> None:
    store = opened(path)

    def one(session: Session) -> int:
        return session.exec(select(1)).one()

    with closing(sqlite3.connect(path, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        writing = asyncio.create_task(store.run(one))
        assert await asyncio.wait_for(store.fetch(one), 5) == 1
        assert not writing.done()
        frozen.execute("ROLLBACK")
        assert await writing == 1
    store.close()
