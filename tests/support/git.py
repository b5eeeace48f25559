"""A git server of our own: smart HTTP over TLS, with a certificate that nobody else trusts."""

import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from networks.spaces import Space
from support.waiting import until

PORT = 8443
NAME = "git.test"
BIG = 6_000_000
"""Bytes of a file that git cannot make smaller."""

_AUTHOR = {
    **{f"GIT_{who}_NAME": "A" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "a@example.com" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
}


class Repository:
    """`project.git` with the branches `main` and `feature`, the tag `v1` behind them, and a
    submodule that lies in `inner.git`."""

    def __init__(self, folder: Path) -> None:
        self.root, self._work = folder / "served", folder / "work"
        self.commits: dict[str, str] = {}
        for name in ("project", "inner"):
            self._git("init", "-q", "--bare", "-b", "main", str(self.root / f"{name}.git"))
        self._git("init", "-q", "-b", "main", str(self._work))
        self._work.joinpath("a.txt").write_text("first\n")
        self.commits["v1"] = self._committed("first")
        self._git("tag", "-a", "-m", "one", "v1")
        self._work.joinpath("run.sh").write_text("#!/bin/sh\n")
        self._work.joinpath("run.sh").chmod(0o755)
        self._work.joinpath("big").write_bytes(os.urandom(BIG))
        self._work.joinpath("link").symlink_to("a.txt")
        module = f'[submodule "inner"]\n\tpath = inner\n\turl = https://{NAME}:{PORT}/inner.git\n'
        self._work.joinpath(".gitmodules").write_text(module)
        inner = f"160000,{self.commits['v1']},inner"
        self._git("update-index", "--add", "--cacheinfo", inner)
        self.commits["main"] = self._committed("second")
        self._git("checkout", "-q", "-b", "feature")
        self._work.joinpath("a.txt").write_text("feature\n")
        self.commits["feature"] = self._committed("third")
        self._git("push", "-q", "--all", str(self.root / "project.git"))
        self._git("push", "-q", "--tags", str(self.root / "project.git"))

    def _committed(self, message: str) -> str:
        self._git("add", "-A", "--", ":!inner")
        self._git("commit", "-q", "-m", message)
        return self._git("rev-parse", "HEAD")

    def _git(self, *words: str) -> str:
        self._work.mkdir(parents=True, exist_ok=True)
        command = ["git", "-C", str(self._work), *words]
        environ = {**os.environ, **_AUTHOR}
        return subprocess.run(
            command, env=environ, check=True, capture_output=True, text=True
        ).stdout.strip()


class GitServer:
    """What is served, who asked for it, and whether a pack stops in its middle for now."""

    def __init__(self, repository: Repository, space: Space, address: str, ca_file: Path) -> None:
        self.repository, self.space = repository, space
        self.address, self.ca_file = address, ca_file
        self.asked: list[str] = []
        self.waiting = 0
        self._go = threading.Event()
        self._go.set()

    def url(self, path: str = "project.git", host: str | None = None) -> str:
        return f"https://{host or self.address}:{PORT}/{path}"

    def hold(self) -> None:
        """Let whoever clones from now on wait in the middle of it."""
        self._go.clear()

    def held(self) -> None:
        """Wait until somebody does."""
        until(lambda: self.waiting > 0, "somebody waits in the middle of a clone")

    def release(self) -> None:
        """Let them go on."""
        self._go.set()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        self.asked.append(path)
        if path.startswith("/moved/"):
            request.send_response(302)
            request.send_header("Location", request.path.removeprefix("/moved"))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        answered = self._backend(request, path, query, body)
        head, _, content = answered.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        request.send_response(int(fields.pop("Status", "200").split()[0]))
        for name, value in fields.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        half = len(content) // 2 if len(content) > BIG else len(content)
        request.wfile.write(content[:half])
        if half < len(content):
            self.waiting += 1
            self._go.wait(60)
            self.waiting -= 1
        request.wfile.write(content[half:])

    def _backend(
        self, request: BaseHTTPRequestHandler, path: str, query: str, body: bytes
    ) -> bytes:
        environ = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.repository.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        }
        command = ["git", "http-backend"]
        return subprocess.run(
            command, env=environ, input=body, check=True, capture_output=True
        ).stdout


def certified(folder: Path, address: str) -> tuple[Path, Path]:
    """A certificate of its own authority for a machine, and its key."""
    certificate, key = folder / "git.pem", folder / "git.key"
    names = f"subjectAltName=DNS:{NAME},IP:{address}"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    made += ["-subj", f"/CN={NAME}", "-addext", names, "-keyout", str(key), "-out"]
    subprocess.run([*made, str(certificate)], check=True, capture_output=True)
    return certificate, key


@contextmanager
def git_server(space: Space, address: str, folder: Path) -> Iterator[GitServer]:
    """Serve a repository on a machine."""
    certificate, key = certified(folder, address)
    served = GitServer(Repository(folder), space, address, certificate)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.answer(self)

        do_POST = do_GET  # noqa: N815 - the library names it

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """Who is killed while it clones hangs up."""

    server = space.run(lambda: Server(("0.0.0.0", PORT), Handler))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.release()
        server.shutdown()
        thread.join()
        server.server_close()
