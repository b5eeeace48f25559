"""A real engine and a small image, made from this host's busybox and bash, for the sandbox floor."""

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

from director.domain.sandboxes import Command, CommandResult, SandboxSpec
from director.sandbox.docker import DockerRuntime
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
    for sandbox_id, _ in runtime.sandboxes():
        runtime.remove(sandbox_id)


@pytest.fixture(scope="session")
def shared(runtime: DockerRuntime, image: str) -> str:
    """A sandbox that tests share which leave it as it was."""
    return make(runtime, image)


@pytest.fixture
def sandbox(runtime: DockerRuntime, image: str) -> Iterator[str]:
    """A sandbox of the test's own."""
    sandbox_id = make(runtime, image)
    yield sandbox_id
    runtime.remove(sandbox_id)


def make(runtime: DockerRuntime, image: str, **limits: int) -> str:
    spec = SandboxSpec(id=f"sbx_{uuid.uuid4().hex[:16]}", image=image, owner_id="run_1", **limits)
    return runtime.create(spec).id


class Outcome:
    """What a command that has ended left."""

    def __init__(self, execution: Execution, result: CommandResult) -> None:
        self.result = result
        self.stdout = execution.read("stdout", 0, 1 << 30)
        self.stderr = execution.read("stderr", 0, 1 << 30)


Run = Callable[..., Outcome]


@pytest.fixture(scope="session")
def run(runtime: DockerRuntime) -> Run:
    """Run a command to its end; a string goes to the shell."""

    def run(sandbox_id: str, argv: str | list[str], **more: object) -> Outcome:
        execution = runtime.run(sandbox_id, command(argv, **more))
        return ended(execution)

    return run


def command(argv: str | list[str], **more: object) -> Command:
    words = ["/bin/sh", "-c", argv] if isinstance(argv, str) else argv
    fields = {"id": f"exec_{uuid.uuid4().hex[:16]}", "timeout_ms": 20_000} | more
    return Command.model_validate({"argv": words, **fields})


def ended(execution: Execution) -> Outcome:
    result = execution.wait(30)
    assert result is not None, "the command goes on"
    return Outcome(execution, result)
