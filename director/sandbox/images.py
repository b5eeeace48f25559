"""Which image a sandbox gets: the one that was asked for, its alias, or a pulled one."""

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import docker
from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag
from requests.exceptions import RequestException

from director.sandbox.containers import engine_errors
from director.sandbox.runtime import SandboxError

PULL_SECONDS = 300.0


class Image(NamedTuple):
    """An image that is present."""

    id: str
    name: str
    """Its name with its digest, or with its id where it never had a registry."""
    environment: list[str]
    volumes: tuple[str, ...] = ()
    """Folders that it wants to be writable, whatever the rest of it is."""


class Images:
    """Finds images on one engine."""

    def __init__(self, client: docker.DockerClient, aliases: Mapping[str, str]) -> None:
        self._api = client.api
        self._aliases = aliases

    def present(self, asked: str) -> Image | None:
        """Find an image that is here: as asked, else by its alias."""
        return self._present(asked) or self._present_alias(asked)

    def pulled(self, asked: str) -> Image:
        """Pull an image that is not here. Raises SandboxError with the way out when it cannot be
        had."""
        reason = self._pull(asked)
        found = self._present(asked)
        if found is None:
            raise SandboxError(self._way_out(asked, reason), retryable=False)
        return found

    def _present_alias(self, asked: str) -> Image | None:
        alias = self._aliases.get(asked)
        return self._present(alias) if alias else None

    def _present(self, name: str) -> Image | None:
        with engine_errors(f"look for image {name}"):
            try:
                found: dict[str, Any] = self._api.inspect_image(name)  # type: ignore[no-untyped-call]
            except ImageNotFound:
                return None
            except APIError as error:
                if error.status_code == HTTPStatus.BAD_REQUEST:
                    raise _malformed(name) from error
                raise
        config = found.get("Config") or {}
        return Image(
            id=found["Id"],
            name=_full_name(name, found),
            environment=config.get("Env") or [],
            volumes=tuple(config.get("Volumes") or {}),
        )

    def _pull(self, name: str) -> str:
        """Pull an image and tell what went wrong, if anything did."""
        repository, tag = parse_repository_tag(name)
        deadline = time.monotonic() + PULL_SECONDS
        try:
            for line in self._api.pull(repository, tag or "latest", stream=True, decode=True):
                if "error" in line:
                    return str(line["error"])
                if time.monotonic() > deadline:
                    return f"it was not there after {PULL_SECONDS:.0f} s"
        except (APIError, RequestException) as error:
            return str(getattr(error, "explanation", None) or error)
        return "the engine named no reason"

    def _way_out(self, asked: str, reason: str) -> str:
        alias = self._aliases.get(asked)
        tried = f", its alias {alias} is not on this host either" if alias else ""
        known = ", ".join(sorted(self._aliases))
        return (
            f"image {asked} is not on this host{tried}, and pulling it failed"
            f" ({reason.strip()[-300:]}). Load it with `docker load` or `docker pull`, or use an"
            f" image with an alias ({known or 'none is set'}; DIRECTOR_IMAGE_ALIASES adds more)"
        )


def _full_name(name: str, found: Mapping[str, Any]) -> str:
    if "@" in name or name.startswith("sha256:"):
        return name
    repository, _ = parse_repository_tag(name)
    for digest in found.get("RepoDigests") or []:
        if str(digest).startswith(f"{repository}@"):
            return f"{name}@{str(digest).partition('@')[2]}"
    return f"{name}@{found['Id']}"


def _malformed(name: str) -> SandboxError:
    return SandboxError(
        f"{name[:200]!r} cannot be the name of an image: write it like node:22-alpine",
        retryable=False,
    )
