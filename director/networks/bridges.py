"""Networks on the Docker engine: each a bridge whose interface has a name that the packet filter
knows.

None of them is `internal` in the engine's sense: such a one has no way out that could be opened
later, and keeps nobody from the host. What is closed, the packet filter closes."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.types import IPAMConfig, IPAMPool
from requests.exceptions import RequestException

from director.domain.errors import ConflictError, UnavailableError
from director.networks.filter import Names

_INSTALLATION, _NETWORK, _SANDBOX = (
    "director.installation",
    "director.network",
    "director.sandbox",
)
_ROUTES = Path("/proc/net/route")


class Bridges:
    """The networks of an installation on one engine, which must be on this very machine."""

    def __init__(self, client: docker.DockerClient, installation: str, names: Names) -> None:
        self._api, self._installation, self._names = client.api, installation, names

    @staticmethod
    def engine_name(network_id: str) -> str:
        """What the engine calls a network."""
        return f"director-{network_id}"

    def there(self) -> set[str]:
        """The networks that have a bridge. Raises UnavailableError."""
        return {each["Labels"][_NETWORK] for each in self._ours()}

    def create(self, network_id: str, subnet: str, gateway: str) -> None:
        """Make a network; idempotent. Its rules must be in force already.

        Raises ConflictError where the subnet overlaps one that this machine uses."""
        if network_id in self.there():
            return
        wanted = IPv4Network(subnet)
        if overlapping := [each for each in self.used() if each.overlaps(wanted)]:
            raise ConflictError(
                f"subnet {subnet} overlaps {overlapping[0]}, which the network's host uses",
                subnet=subnet,
            )
        bridge = self._names.bridge(network_id)
        with _engine_errors(f"make network {network_id}"):
            try:
                self._api.create_network(
                    self.engine_name(network_id),
                    driver="bridge",
                    options={"com.docker.network.bridge.name": bridge},
                    ipam=IPAMConfig(pool_configs=[IPAMPool(subnet=subnet, gateway=gateway)]),
                    check_duplicate=True,
                    labels={_INSTALLATION: self._installation, _NETWORK: network_id},
                )
            except APIError as error:
                if "overlap" not in str(error.explanation):
                    raise
                raise ConflictError(
                    f"subnet {subnet} overlaps another network of its host", subnet=subnet
                ) from error

    def used(self) -> list[IPv4Network]:
        """What this machine has routes to, but for the default, and what its engine gave away."""
        with _engine_errors("list its networks"):
            listed = self._api.networks()
        configured = [
            pool["Subnet"]
            for network in listed
            for pool in ((network.get("IPAM") or {}).get("Config") or [])
            if ":" not in pool.get("Subnet", ":")
        ]
        return [*(IPv4Network(each) for each in configured), *_routes()]

    def attached(self, network_id: str) -> list[str]:
        """The sandboxes whose container is in a network, running or not."""
        return sorted(self._containers(network_id))

    def here(self, network_id: str) -> bool:
        """Whether the bridge of a network is among the interfaces of this very process, whose
        packet filter would else be another one than the bridge's."""
        try:
            socket.if_nametoindex(self._names.bridge(network_id))
        except OSError:
            return False
        return True

    def members(self, network_id: str) -> dict[str, str]:
        """The sandboxes that have an address in a network, and the address."""
        name, found = self.engine_name(network_id), {}
        for id, container in self._containers(network_id).items():
            address = container["NetworkSettings"]["Networks"].get(name, {}).get("IPAddress")
            if address:
                found[id] = address
        return found

    def connect(self, network_id: str, container: str) -> None:
        """Put a container into a network, whose rules must be in force already; idempotent."""
        with _engine_errors(f"connect {container} to network {network_id}"):
            try:
                self._api.connect_container_to_network(container, self.engine_name(network_id))
            except APIError as error:
                if "already exists" not in str(error.explanation):
                    raise

    def disconnect(self, network_id: str, container: str) -> None:
        """Take a container out of a network; idempotent."""
        name = self.engine_name(network_id)
        with _engine_errors(f"disconnect {container} from network {network_id}"):
            try:
                self._api.disconnect_container_from_network(container, name, force=True)
            except APIError as error:
                if error.status_code != 404 and "is not connected" not in str(error.explanation):
                    raise

    def detach(self, network_id: str, sandbox_id: str) -> None:
        """Take a sandbox out of a network; idempotent."""
        if (container := self._containers(network_id).get(sandbox_id)) is not None:
            self.disconnect(network_id, container["Id"])

    def remove(self, network_id: str) -> None:
        """Detach everybody and remove a network; idempotent."""
        for container in self._containers(network_id).values():
            self.disconnect(network_id, container["Id"])
        with _engine_errors(f"remove network {network_id}"), suppress(NotFound):
            self._api.remove_network(self.engine_name(network_id))

    def _ours(self) -> list[Any]:
        mine = [f"{_INSTALLATION}={self._installation}", _NETWORK]
        with _engine_errors("list its networks"):
            return list(self._api.networks(filters={"label": mine}))

    def _containers(self, network_id: str) -> dict[str, Any]:
        """By sandbox; a container that is no sandbox goes by its name."""
        with _engine_errors(f"list who is in network {network_id}"):
            listed = self._api.containers(
                all=True, filters={"network": self.engine_name(network_id)}
            )
        return {
            (each.get("Labels") or {}).get(_SANDBOX) or each["Names"][0].lstrip("/"): each
            for each in listed
        }


@contextmanager
def _engine_errors(doing: str) -> Iterator[None]:
    """Turn whatever the engine answers into an UnavailableError that says what we were doing."""
    try:
        yield
    except APIError as error:
        text = str(error.explanation or error)[-500:]
        raise UnavailableError(f"the Docker engine failed to {doing}: {text}") from error
    except (DockerException, RequestException, OSError) as error:
        message = f"the Docker engine does not answer (to {doing}): {error}"
        raise UnavailableError(message) from error


def _routes() -> Iterator[IPv4Network]:
    """What the machine reaches without its default route."""
    for line in _ROUTES.read_text().splitlines()[1:]:
        fields = line.split()
        network, mask = (
            socket.inet_ntoa(struct.pack("=L", int(field, 16))) for field in (fields[1], fields[7])
        )
        if mask != "0.0.0.0":  # noqa: S104 - a mask, nothing to listen on
            yield IPv4Network(f"{network}/{mask}", strict=False)
