"""Which installation and which host this is."""

import hashlib
from pathlib import Path

import docker

from director.settings import kept_secret


def installation_id(home: Path) -> str:
    """Which containers are ours: a marker in the home folder, made once."""
    return kept_secret(home / "installation")


def host_id(home: Path, engine: docker.DockerClient) -> str:
    """The host: its engine and its home folder, so that a restarted worker is the same host."""
    seen = f"{engine.info()['ID']} {installation_id(home)}"
    return hashlib.sha256(seen.encode()).hexdigest()[:12]
