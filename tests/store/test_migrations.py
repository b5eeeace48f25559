"""The schema of a database follows the code: whole or not at all, and with every row."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hatchling.builders.wheel import WheelBuilder
from sqlalchemy import JSON, Connection, Engine, MetaData, create_engine, inspect, text
from sqlmodel import SQLModel, select
from support.server import free_port

from director.domain.departments import TicketState
from director.domain.outputs import OutputCursor
from director.domain.pages import PageQuery
from director.domain.runs import RunStatus
from director.domain.sessions import SessionCreate
from director.domain.users import Principal, Role
from director.store import (
    checkpoints,
    events,
    outputs,
    runs,
    schema,
    sessions,
    standing,
    tickets,
    users,
    workflows,
)
from director.store.engine import Store
from director.store.schema import OURS, Revisions, SchemaError
from director.store.tables import CheckpointRow, DepartmentRow, IdempotencyRow, RunRow, WorkflowRow

ROOT = Path(__file__).parents[2]
RELEASES = sorted((Path(__file__).parent / "schemas").glob("*.sql"))

ADDED = """
import os, signal
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{before}"


def upgrade() -> None:
    with op.batch_alter_table("sessions") as table:
        table.add_column(sa.Column("added", sa.String()))
        table.alter_column("name", existing_type=sa.String(), nullable=True)
    {then}
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'director.db'}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    store = Store(url)
    yield store
    store.close()


def used(store: Store, release: Path) -> None:
    """Fill a database with what a release has left in it."""
    with closing(sqlite3.connect(":memory:")) as memory:
        memory.executescript(release.read_text())
        if store.engine.dialect.name == "sqlite":
            with closing(sqlite3.connect(store.engine.url.database or "")) as file:
                memory.backup(file)
            return
    _copied(store, release)


def _copied(store: Store, release: Path) -> None:
    """No release before 0002 knew Postgres: there the revisions make its tables."""
    source = create_engine("sqlite://")
    source_tables, tables = MetaData(), MetaData()
    with source.connect() as old, store.engine.begin() as new:
        old.connection.driver_connection.executescript(
            release.read_text() + "DROP INDEX uq_users_username;"  # it cannot be reflected
        )
        source_tables.reflect(old)
        schema.upgrade(new, OURS, release.stem)
        tables.reflect(new)
        for table in tables.sorted_tables:
            if table.name == "alembic_version":
                continue
            for column in table.columns:
                if isinstance(column.type, JSON):
                    column.type.none_as_null = True
            rows = old.execute(source_tables.tables[table.name].select()).mappings()
            new.execute(table.insert(), [_aware(dict(row)) for row in rows])
            if table.name in ("events", "outputs"):
                last = f"(SELECT max(id) FROM {table.name})"
                new.execute(text(f"SELECT setval('{table.name}_id_seq', {last})"))
    source.dispose()


def _aware(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.replace(tzinfo=UTC) if hasattr(value, "tzinfo") else value
        for name, value in row.items()
    }


def content(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, as the driver gives it."""
    with engine.connect() as connection:
        return {
            name: sorted(_rows(connection, name), key=repr)
            for name in inspect(connection).get_table_names()
        }


def _rows(connection: Connection, table: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(text(f'SELECT * FROM "{table}"')).mappings()]


def structure(connection: Connection) -> list[str]:
    """The indexes of a database as it tells them itself."""
    of = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE schemaname = current_schema()"
        " AND tablename <> 'alembic_version'",
    }
    return sorted(
        " ".join(sql.split()) for sql in connection.scalars(text(of[connection.dialect.name]))
    )


@pytest.mark.filterwarnings("ignore:autogenerate skipping metadata-specified expression-based")
@pytest.mark.filterwarnings("ignore:Skipped unsupported reflection of expression-based index")
def test_an_empty_database_becomes_what_the_tables_say(store: Store) -> None:
    done = store.create_tables()
    assert (done.before, done.after) == (None, schema.HEAD)

    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []
        migrated = structure(connection)
    with store.engine.connect() as connection, connection.begin():
        SQLModel.metadata.drop_all(connection)
        SQLModel.metadata.create_all(connection)
        assert structure(connection) == migrated


def test_the_version_of_the_code_is_the_last_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(OURS.folder))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def test_the_revisions_are_in_the_wheel() -> None:
    shipped = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    scripts = {str(path.relative_to(ROOT)) for path in OURS.folder.rglob("*.py")}
    assert len(scripts) > 1
    assert scripts <= shipped


def test_a_database_that_is_up_to_date_is_opened_without_alembic(tmp_path: Path) -> None:
    code = f"""
        import sys
        from director.store.engine import Store
        store = Store("sqlite:///{tmp_path / "director.db"}")
        print(store.create_tables().changed, "alembic" in sys.modules)
    """
    assert (ran(code), ran(code)) == ("True True", "False False")


def test_who_has_a_file_holds_no_driver_of_a_server() -> None:
    code = """
        import sys
        import director.worker, director.api.__main__
        print("psycopg" in sys.modules)
    """
    assert ran(code) == "False"


def test_a_database_that_is_up_to_date_is_opened_while_another_process_writes(
    tmp_path: Path,
) -> None:
    path = tmp_path / "director.db"
    store = Store(f"sqlite:///{path}")
    store.create_tables()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not store.create_tables().changed
    store.close()


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_a_release_s_database_keeps_every_row(store: Store, release: Path) -> None:
    used(store, release)
    before = content(store.engine)
    assert all(before.values())

    done = store.create_tables()

    assert (done.before, done.after) == (release.stem, schema.HEAD)
    after = content(store.engine)
    for table, rows in before.items():
        if table == "alembic_version":
            continue
        kept = [{name: row[name] for name in rows[0]} for row in after[table]]
        assert sorted(kept, key=repr) == rows
    assert not store.create_tables().changed


def test_what_the_first_release_left_is_read_and_goes_on(store: Store) -> None:
    used(store, RELEASES[0])
    store.create_tables()
    with store.read() as session:
        admin = users.by_username(session, "ADMIN")
        assert admin is not None
        principal = Principal(user_id=admin.id, username="admin", role=Role.ADMIN, login_id="lgn_1")
        shown, page = sessions.listed(session, principal, PageQuery(), None)
        assert page.total == 3, "one of four was deleted"
        assert sum(one.metrics.running_tasks for one in shown) == 4
        listed, _ = workflows.listed(session, principal, PageQuery(), None, None)
        named = {one.name: one for one in listed}
        done = runs.latest(session, principal, named["renamed"].id)
        assert (named["renamed"].version, done.version, done.status) == (2, 1, "completed")
        view = standing.view(session, done)
        assert [step.status for step in view.steps] == ["completed"] * 3
        assert view.result == {
            "success": True,
            "output": 'the output contains "hé"',
            "checkpointIds": [row.id for row in session.exec(select(CheckpointRow))],
        }
        (kept,), _ = checkpoints.listed(session, principal, PageQuery(), done.session_id)
        assert (kept.description, kept.status) == ("after the first step", "ready")
        said = outputs.look(session, done.id, 0, OutputCursor(0, 1)).pieces
        assert [(piece.stream, piece.size) for piece in said] == [("stdout", 4), ("stderr", 3)]
        log = events.after(session, 0, 1000)
        assert (log[-1].id, len(log)) == (events.newest(session), 46)
        pool = session.exec(select(DepartmentRow.id)).one()
        assert tickets.counts(session, pool) == {TicketState.HELD: 1, TicketState.WAITING: 1}
        once = session.exec(select(IdempotencyRow)).all()
        assert {(row.key, row.done, row.status) for row in once} == {("recorded", True, 201)}
    with store.write() as session:
        sessions.create(session, principal, SessionCreate(type="a", name="new"))
        waiting = session.exec(select(RunRow).where(RunRow.status == RunStatus.WAITING)).one()
        runs.want_cancel(session, waiting)
        assert session.get_one(WorkflowRow, waiting.workflow_id).status == RunStatus.CANCELLING
    with store.read() as session:
        assert events.newest(session) > log[-1].id


def test_processes_that_start_at_once_migrate_it_once(store: Store, url: str) -> None:
    used(store, RELEASES[0])
    code = f"""
        from director.store.engine import Store
        print(Store("{url}").create_tables().changed)
    """
    started = [started_process(code) for _ in range(4)]
    said = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 4, said
    assert sorted(out.split()[-1] for out, _ in said) == ["False"] * 3 + ["True"]
    assert not store.create_tables().changed


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(store: Store) -> None:
    store.create_tables()
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    before = content(store.engine)

    with pytest.raises(SchemaError, match=r"schema 9999.*newer.*restore the backup") as raised:
        store.create_tables()

    assert content(store.engine) == before
    assert (store.engine.url.database or "") in str(raised.value)


def test_a_database_of_an_unknown_version_is_refused_with_what_it_lacks(store: Store) -> None:
    used(store, RELEASES[0])
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
        connection.execute(text("ALTER TABLE runs DROP COLUMN priority"))
        connection.execute(text("DROP TABLE tickets"))
    before = content(store.engine)

    with pytest.raises(SchemaError, match=r"lacks runs\.priority, tickets\..*move it away"):
        store.create_tables()

    assert content(store.engine) == before


def test_tables_of_others_are_no_hindrance(store: Store) -> None:
    with store.engine.begin() as connection:
        connection.execute(text("CREATE TABLE theirs (id INTEGER)"))
    assert store.create_tables().before is None


def later(folder: Path, then: str) -> Revisions:
    """Our revisions and one more, which replaces a table that others refer to."""
    scripts = folder / "100% later"
    shutil.copytree(OURS.folder, scripts)
    added = ADDED.format(before=schema.HEAD, then=then)
    (scripts / "versions" / "v9999.py").write_text(added)
    return Revisions(scripts, "9999")


def test_a_later_revision_replaces_a_table_that_others_refer_to(
    store: Store, tmp_path: Path
) -> None:
    used(store, RELEASES[0])
    store.create_tables()
    before = content(store.engine)

    schema.migrate(store.engine, later(tmp_path, "pass"))

    after = content(store.engine)
    assert after["sessions"] == [{**row, "added": None} for row in before["sessions"]]
    assert after["workflows"] == before["workflows"]
    with store.engine.connect() as connection:
        found = inspect(connection).get_foreign_keys("workflows")
        assert [key["referred_table"] for key in found] == ["sessions"]
        if connection.dialect.name == "sqlite":
            assert connection.scalar(text("PRAGMA foreign_keys")) == 1


def test_a_migration_that_is_killed_leaves_the_old_schema_whole(
    store: Store, url: str, tmp_path: Path
) -> None:
    used(store, RELEASES[0])
    before = content(store.engine)
    revisions = later(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    code = f"""
        from pathlib import Path
        from director.store import schema
        from director.store.engine import Store
        revisions = schema.Revisions(Path("{revisions.folder}"), "9999")
        schema.migrate(Store("{url}").engine, revisions)
    """
    process = started_process(code)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors

    assert content(store.engine) == before
    store.create_tables()


def test_a_migration_that_fails_says_why_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    store.create_tables()
    before = content(store.engine)
    broken = later(tmp_path, "op.drop_table('nothing')")

    with pytest.raises(SchemaError, match=rf"from schema {schema.HEAD} to 9999: .*nothing"):
        schema.migrate(store.engine, broken)

    assert content(store.engine) == before


def test_a_row_that_refers_to_nothing_stops_the_migration(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path / 'director.db'}")
    used(store, RELEASES[0])
    with closing(sqlite3.connect(tmp_path / "director.db")) as careless:
        careless.execute("DELETE FROM logins")
        careless.commit()

    with pytest.raises(SchemaError, match=r"row 1 of refresh_tokens refers to none of logins"):
        store.create_tables()
    store.close()


def test_the_command_says_from_where_to_where_it_went(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if name[:9] != "DIRECTOR_"}
    environ |= {"DIRECTOR_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}

    def command() -> str:
        code = "from director.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, "migrate"],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr

    assert command() == f"the database was brought from nothing to schema {schema.HEAD}"
    assert command() == f"the database has schema {schema.HEAD}: nothing to do"
    with closing(sqlite3.connect(tmp_path / "director.db")) as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
        database.commit()
    assert command().startswith(f"director: {tmp_path / 'director.db'} has schema 9999")
    environ["DIRECTOR_DATABASE_URL"] = f"postgresql://ann:canary77@127.0.0.1:{free_port()}/away"
    (away,) = command().splitlines()
    assert away.startswith("director: database away on 127.0.0.1 does not answer: ")
    assert "canary77" not in away


def started_process(code: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(code)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ran(code: str) -> str:
    """What a program prints last; one that fails fails the test."""
    process = started_process(code)
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    return out.strip().splitlines()[-1]
