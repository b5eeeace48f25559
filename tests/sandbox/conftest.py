"""A real engine, and a small image made from this host's busybox and bash."""

import io
import os
import re
import subprocess
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest
from support.hosts import Canary, unharmed

from director.domain.sandboxes import Command, CommandResult, SandboxSpec
from director.sandbox.docker import DockerRuntime
from director.sandbox.folders import sandbox_uid
from director.sandbox.runtime import Execution

BUSYBOX = Path("/bin/busybox")
BASH = Path("/bin/bash")


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="session")
def image(engine: docker.DockerClient) -> Iterator[str]:
    """The name of an image that holds at least a shell and the usual small programs."""
    given = os.environ.get("DIRECTOR_TEST_IMAGE")
    if given:
        yield given
        return
    tag = f"director-test-{uuid.uuid4().hex[:12]}"
    changes = ["ENV PATH=/usr/bin:/bin", "ENV FROM_IMAGE=yes", "LABEL director.test=1"]
    engine.api.import_image_from_data(_root_file_system(), repository=tag, changes=changes)
    yield f"{tag}:latest"
    engine.api.remove_image(f"{tag}:latest", force=True)


def _root_file_system() -> bytes:
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True)
    libraries = subprocess.run(["ldd", BASH], check=True, capture_output=True, text=True).stdout
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for program in (BUSYBOX, BASH, *re.findall(r"(/\S+) \(0x", libraries)):
            tar.add(Path(program).resolve(), arcname=str(program).lstrip("/"))
        for name in set(applets.stdout.split()) - {"busybox", "bash"}:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return content.getvalue()


@pytest.fixture(scope="session")
def installation() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def runtime(
    engine: docker.DockerClient, image: str, home: Path, installation: str
) -> Iterator[DockerRuntime]:
    """A runtime with a grace of half a second; everything it made is removed at the end."""
    aliases = {"node:22-alpine": image, "nowhere:1": "neither:here"}
    runtime = DockerRuntime(engine, home, installation, aliases, term_grace_ms=500)
    yield runtime
    for sandbox in runtime.sandboxes():
        runtime.remove(sandbox.id)


@pytest.fixture(scope="session")
def make(runtime: DockerRuntime, image: str) -> Callable[..., str]:
    """Make a sandbox and give its id."""

    def make(**fields: object) -> str:
        spec = {"id": f"sbx_{uuid.uuid4().hex[:16]}", "image": image, "owner_id": "run_1"}
        return runtime.create(SandboxSpec.model_validate(spec | fields)).id

    return make


@pytest.fixture(scope="session")
def shared(make: Callable[..., str]) -> str:
    """A sandbox that tests share which leave it as it was."""
    return make()


@pytest.fixture
def sandbox(runtime: DockerRuntime, make: Callable[..., str]) -> Iterator[str]:
    """A sandbox of the test's own."""
    sandbox_id = make()
    yield sandbox_id
    runtime.remove(sandbox_id)


@pytest.fixture(scope="session")
def command() -> Callable[..., Command]:
    """Make a command; a string goes to the shell."""

    def command(argv: str | list[str], **more: object) -> Command:
        words = ["/bin/sh", "-c", argv] if isinstance(argv, str) else argv
        fields = {"id": f"exec_{uuid.uuid4().hex[:16]}", "timeout_ms": 20_000} | more
        return Command.model_validate({"argv": words, **fields})

    return command


class Outcome:
    """What a command that has ended left."""

    def __init__(self, execution: Execution, result: CommandResult) -> None:
        self.result = result
        self.code, self.cause = result.exit_code, result.cause
        self.stdout = execution.read("stdout", 0, 1 << 30)
        self.stderr = execution.read("stderr", 0, 1 << 30)


@pytest.fixture(scope="session")
def ended() -> Callable[[Execution], Outcome]:
    """Wait for a command's end."""

    def ended(execution: Execution) -> Outcome:
        result = execution.wait(30)
        assert result is not None, "the command goes on"
        return Outcome(execution, result)

    return ended


@pytest.fixture(scope="session")
def start(runtime: DockerRuntime, command: Callable[..., Command]) -> Callable[..., Execution]:
    """Start a command in a sandbox."""

    def start(sandbox_id: str, argv: str | list[str], **more: object) -> Execution:
        return runtime.run(sandbox_id, command(argv, **more))

    return start


@pytest.fixture(scope="session")
def run(
    start: Callable[..., Execution], ended: Callable[[Execution], Outcome]
) -> Callable[..., Outcome]:
    """Run a command in a sandbox to its end."""
    return lambda *arguments, **more: ended(start(*arguments, **more))


@pytest.fixture(scope="session")
def processes(engine: docker.DockerClient) -> Callable[[str], list[str]]:
    """The command lines that live in a sandbox, seen from outside; the dead have none."""

    def processes(sandbox_id: str) -> list[str]:
        first = engine.api.inspect_container(f"director-{sandbox_id}")["State"]["Pid"]
        inside, found = Path(f"/proc/{first}/ns/pid").readlink(), []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/pid").readlink() == inside:
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return [line for line in found if line]

    return processes


@pytest.fixture(scope="module")
def canary(cell: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canary]:
    """A process of the sandbox's own uid on the host, and a file that is none of its business."""
    canary = Canary(tmp_path_factory.mktemp("canary"), sandbox_uid(cell))
    yield canary
    canary.end()


@pytest.fixture
def host_unharmed(home: Path, canary: Canary) -> Iterator[None]:
    """Look at the host before and after."""
    with unharmed(home, canary):
        yield
