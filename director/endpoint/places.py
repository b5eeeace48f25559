"""Where the workers of a host listen: announced in the home, which API and workers share.

A worker has a socket in there, under a name of its own; with an address, it leaves a file of that
name instead, and all workers of the host listen at the same one."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from director.blobs.folders import opened

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_BACKLOG = 256
_SOCKET = ".sock"
_TRY_SECONDS = 1.0


class Address(NamedTuple):
    """A host name or an IP address, and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `HOST:PORT`, where an IPv6 address stands in brackets. Raises ValueError."""
        host, _, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or "/" in host or not port.isascii() or not port.isdigit():
            raise ValueError(f"{text!r} is not HOST:PORT")
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"{port} is not a port")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Place(NamedTuple):
    """Where a worker listens: at an address, or at a socket."""

    address: Address | None = None
    path: str | None = None


@dataclass(frozen=True)
class Places:
    """Where the workers of one host listen."""

    home: Path
    host_id: str

    @property
    def folder(self) -> Path:
        """The folder in which they announce themselves."""
        return self.home / "endpoints" / self.host_id

    @contextmanager
    def announced(self) -> Iterator[list[Place]]:
        """All that are announced, in no order; of workers that were killed too. A socket's path is
        good inside the block: it goes by a descriptor, or a home might be too long for it."""
        if not self.folder.exists():
            yield []
            return
        with opened(os.open(self.folder, _FOLDER)) as folder:
            names = [path.name for path in self.folder.iterdir()]
            secrets.SystemRandom().shuffle(names)
            yield [place for name in names if (place := _place(folder, name))]

    @contextmanager
    def listening(self, address: Address | None) -> Iterator[socket.socket]:
        """Listen, and be announced while the block lasts. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._forget(address)
        if address is not None:
            with _at(address) as listener:
                (self.folder / str(address)).touch()
                yield listener  # it stays announced: others may listen there
            return
        with (
            opened(os.open(self.folder, _FOLDER)) as folder,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            name = f"{secrets.token_hex(4)}{_SOCKET}"
            listener.bind(_below(folder, f".{name}"))
            os.chmod(f".{name}", 0o600, dir_fd=folder)
            listener.listen(_BACKLOG)
            os.rename(f".{name}", name, src_dir_fd=folder, dst_dir_fd=folder)
            try:
                yield listener
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)

    def _forget(self, address: Address | None) -> None:
        """Remove what workers have announced that were killed, or had another address."""
        with self.announced() as places:
            for place in places:
                if place.path is not None and not _answers(place.path):
                    Path(place.path).unlink(missing_ok=True)
                elif place.address not in (None, address):
                    (self.folder / str(place.address)).unlink(missing_ok=True)


def _below(folder: int, name: str) -> str:
    return f"/proc/self/fd/{folder}/{name}"


def _place(folder: int, name: str) -> Place | None:
    if name.startswith("."):
        return None  # whoever it is does not listen yet
    if name.endswith(_SOCKET):
        return Place(path=_below(folder, name))
    try:
        return Place(address=Address.parse(name))
    except ValueError:
        return None


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_TRY_SECONDS)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


@contextmanager
def _at(address: Address) -> Iterator[socket.socket]:
    """Listen at an address, also where another worker of this machine does."""
    (family, kind, protocol, _, where), *_ = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM
    )
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
        yield listener
