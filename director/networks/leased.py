"""Networks that last as long as whoever asked for them lives: each a file that its holder keeps
locked, so that the kernel tells when a holder has died, however that came."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import IO

from director.networks.rules import Grant, Network

_SUFFIX = ".json"


class LeasedNetworks:
    """Networks of all processes of a home. A leased network reaches some addresses at one port of
    TCP, and nothing else; nobody reaches into it."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "leased"

    @contextmanager
    def held(self, network: Network) -> Iterator[None]:
        """Let a network be wanted while the block lasts, or until this process dies."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(network.id)
        staged = path.with_suffix(".new")
        with staged.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # before it has its name: none is seen unlocked
            json.dump(_told(network), file)
            file.flush()
            staged.replace(path)
            try:
                yield
            finally:
                path.unlink(missing_ok=True)

    def is_held(self, network_id: str) -> bool:
        """Whether somebody lives who wants a network."""
        with suppress(FileNotFoundError), self._path(network_id).open() as file:
            return _is_locked(file)
        return False

    def living(self) -> list[Network]:
        """The networks whose holders live. What others have left is forgotten."""
        found = []
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            with suppress(FileNotFoundError), path.open() as file:  # it is given back just now
                if _is_locked(file):
                    found.append(_network(path.stem, json.load(file)))
                else:
                    path.unlink(missing_ok=True)
        return found

    def _path(self, network_id: str) -> Path:
        return self._folder / f"{network_id}{_SUFFIX}"


def lease(
    id: str, bridge: str, subnet: IPv4Network, addresses: tuple[IPv4Address, ...], port: int
) -> Network:
    """A network that reaches these addresses at one port of TCP, and nothing else. Whoever asks
    for it has judged them: they are open also where they are private, or this host's own."""
    grant = Grant(id=f"{id}_to", addresses=addresses, port=port, privileged=True)
    return Network(id, bridge, subnet, isolated=True, nameless=True, grants=(grant,))


def _told(network: Network) -> dict[str, object]:
    (grant,) = network.grants
    return {
        "bridge": network.bridge,
        "subnet": str(network.subnet),
        "addresses": [str(each) for each in grant.addresses],
        "port": grant.port,
    }


def _network(id: str, told: dict[str, object]) -> Network:
    addresses = told["addresses"]
    assert isinstance(addresses, list)  # noqa: S101 - we have written it
    return lease(
        id,
        str(told["bridge"]),
        IPv4Network(str(told["subnet"])),
        tuple(IPv4Address(each) for each in addresses),
        int(str(told["port"])),
    )


def _is_locked(file: IO[str]) -> bool:
    """Whether a holder has it: a lock that is shared is what everybody takes who only looks."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
