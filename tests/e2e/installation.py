"""A whole Director of real processes and real sandboxes, and what its user does with it."""

import io
import os
import secrets
import signal
import socket
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import httpx
from support.waiting import until

from director.cli.stack import Ports, Stack
from director.host import installation_id

Data = dict[str, Any]

EXAMPLES = Path(__file__).parents[2] / "examples"


def quiet_ports() -> Ports:
    """Ports that are free now and below those that the kernel gives to connections."""
    found: set[int] = set()
    while len(found) < 3:
        port = 10_000 + secrets.randbelow(10_000)
        if not listening(port):
            found.add(port)
    return Ports(*found)


def listening(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def packed(folder: Path) -> bytes:
    """A folder as a tar.gz, as a user would make one; caches stay out."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        tar.add(folder, arcname=".", filter=lambda m: None if "__pycache__" in m.name else m)
    return content.getvalue()


_FRESH = 300.0
"""Seconds for which a token is used again."""


class User:
    """A client of the API that is logged in."""

    def __init__(self, api: str, password_file: Path, username: str = "admin") -> None:
        self.http = httpx.Client(base_url=f"{api}/v1", timeout=70, verify=False)
        self._login = {"username": username, "password": password_file.read_text().strip()}
        self.login()

    def login(self) -> str:
        """Log in and give the token."""
        token = str(self.call("POST", "/auth/login", self._login)["token"])
        self.http.headers["Authorization"] = f"Bearer {token}"
        self._since = time.monotonic()
        return token

    def token(self) -> str:
        """A token that is good for some minutes, an old one if there is one: to check a password
        costs a good part of a second, on purpose."""
        if time.monotonic() - self._since > _FRESH:
            return self.login()
        return str(self.http.headers["Authorization"]).removeprefix("Bearer ")

    def close(self) -> None:
        """Close the connection."""
        self.http.close()

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """Call a route; gives `data`, or fails the test with the error."""
        response = self.http.request(method, path, json=body, **options)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()["data"]

    def session(self) -> str:
        """Make a session and give its id."""
        body = {"type": "director", "name": "A session"}
        return str(self.call("POST", "/sessions", body)["id"])

    def archive(self, content: bytes) -> str:
        """Upload an archive and give its id."""
        response = self.http.post(
            "/archives", content=content, headers={"Content-Type": "application/gzip"}
        )
        assert response.status_code == 201, response.text
        return str(response.json()["data"]["id"])

    def workflow(self, *steps: Any, session_id: str | None = None, **fields: Any) -> str:
        """Make a workflow and give its id; a step that is a command is an `execute` of it."""
        full = [
            step if isinstance(step, dict) else {"type": "execute", "command": step}
            for step in steps
        ]
        body = {"sessionId": session_id or self.session(), "name": "A workflow", "steps": full}
        return str(self.call("POST", "/workflows", body | fields)["id"])

    def start(self, workflow_id: str, body: Any = None) -> Data:
        """Start a run without waiting for it."""
        return dict(self.call("POST", f"/workflows/{workflow_id}/start", body or {}))

    def status(self, workflow_id: str) -> Data:
        """Where the latest run stands."""
        return dict(self.call("GET", f"/workflows/{workflow_id}/status"))

    def ended(self, workflow_id: str) -> Data:
        """Wait for the end of the latest run."""
        run = self.call("GET", f"/workflows/{workflow_id}/status?wait=60")
        assert run["completedAt"], f"the run has not ended: {run['status']}"
        return dict(run)

    def run(self, *steps: Any, start: Any = None, **fields: Any) -> Data:
        """Make a workflow, run it to its end and give the run."""
        workflow_id = self.workflow(*steps, **fields)
        self.start(workflow_id, start)
        return self.ended(workflow_id)

    def output(self, run: Data, step: int, stream: str = "both") -> str:
        """The whole output of a step, counted from 1."""
        path = f"/workflows/{run['workflowId']}/runs/{run['runId']}/steps/{step}/output"
        return self.http.get(f"{path}?stream={stream}").raise_for_status().text


class Installation:
    """A `Stack` in a home of its own; what it made on the engine goes with it."""

    def __init__(
        self,
        home: Path,
        image: str,
        ports: Ports | None = None,
        *,
        workers: int = 1,
        environ: dict[str, str] | None = None,
    ) -> None:
        self.home, self.image = home, image
        self.environ = {"DIRECTOR_SANDBOX_IMAGE": image, **(environ or {})}
        self.stack = Stack(home, ports or quiet_ports(), self.environ, workers=workers)
        self.user: User
        self.keep = False
        """Leave the containers where they are, since the test goes on in the same home."""

    def __enter__(self) -> Self:
        self.stack.__enter__()
        try:
            self.user = User(self.stack.api, self.home / "admin-password")
        except BaseException:
            self.stack.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.user.close()
        self.stack.stop()
        if error is not None or not self.keep:
            remove_containers(self.home, self.environ)

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a part and wait until it has ended."""
        os.kill(self.stack.pid(name), number)
        until(lambda: name in self.stack.ended(), f"{name} ends after {number.name}")

    def heal(self) -> None:
        """Start again what has ended and wait until everything answers."""
        for name in self.stack.ended():
            self.stack.begin(name)
        until(self.stack.ready, "all parts answer")

    def containers(self) -> list[str]:
        """The names of this installation's containers, in whatever state they are."""
        return containers(self.home, self.environ)

    def logs(self) -> str:
        """What all parts have logged."""
        return "".join(path.read_text() for path in sorted((self.home / "logs").iterdir()))


@contextmanager
def healed(director: Installation) -> Iterator[None]:
    """A Director with all its parts up, before the block and behind it."""
    director.heal()
    director.user.token()
    yield
    director.heal()


def execute(director: Installation, id: str, command: Any, **fields: Any) -> Data:
    """Run a command in a sandbox and give the execution."""
    body = {"command": command, **fields}
    return dict(director.user.call("POST", f"/sandboxes/{id}/execute", body))


def containers(home: Path, environ: dict[str, str] | None = None) -> list[str]:
    """The names of the containers of the installation that lives in a home."""
    client = docker.from_env(environment={**os.environ, **(environ or {})})
    try:
        found = client.api.containers(all=True, filters={"label": _label(home)})
    finally:
        client.close()
    return [container["Names"][0].lstrip("/") for container in found]


def remove_containers(home: Path, environ: dict[str, str] | None = None) -> None:
    """Remove what a failed test left on the engine."""
    client = docker.from_env(environment={**os.environ, **(environ or {})})
    try:
        for container in client.api.containers(all=True, filters={"label": _label(home)}):
            client.api.remove_container(container["Id"], force=True)
    finally:
        client.close()


def _label(home: Path) -> str:
    return f"director.installation={installation_id(home)}"
