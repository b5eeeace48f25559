"""The kernel's packet filter: one table of ours, replaced as a whole through libnftables."""

import ctypes
import ctypes.util
import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from director.domain.errors import UnavailableError
from director.networks.rules import Existing, Network, script

_JSON = 1 << 4
_BRIDGED = ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables")
_SYSCTL = Path("/proc/sys/net/bridge")
_LIBRARY = "libnftables.so.1"


class FilterError(UnavailableError):
    """The packet filter does not do what it is told; what it did before still holds."""


class Names:
    """What an installation calls its own on a host, so that several do not meet."""

    def __init__(self, installation: str) -> None:
        digest = hashlib.sha256(installation.encode()).hexdigest()
        self.table = f"director_{digest[:12]}"
        self.prefix = f"dn{digest[:5]}"
        self.group = 1024 + int(digest[:8], 16) % 60_000

    def bridge(self, network_id: str) -> str:
        """The interface of a network's bridge: 15 characters, which is what Linux has for it."""
        return self.prefix + network_id[-8:]


class PacketFilter:
    """Our table in the network namespace of this process."""

    def __init__(self, names: Names, home: Path) -> None:
        self._names, self._lock = names, home / "networks.lock"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else of this home read what is wanted and apply it meanwhile: what was read
        first must not be applied last."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def apply(self, networks: Sequence[Network]) -> None:
        """Let exactly what the networks allow pass, from one packet to the next; idempotent.

        Raises FilterError where that cannot be enforced, and then nothing has changed."""
        _filter_bridged()
        names = self._names
        text = script(names.table, names.prefix, names.group, networks, self._existing())
        run_nft(text)

    def counters(self) -> dict[str, tuple[int, int]]:
        """Packets and bytes of each counter, by its name. Raises FilterError."""
        if not self._there():
            return {}
        found = _listed(f"list counters table inet {self._names.table}", "counter")
        return {each["name"]: (each["packets"], each["bytes"]) for each in found}

    def clear(self) -> None:
        """Take our table away, where there is one, once no bridge of ours is left. Idempotent."""
        with suppress(FilterError):  # who cannot filter has no table
            if self._there():
                run_nft(f"delete table inet {self._names.table}")

    def _there(self) -> bool:
        tables = _listed("list tables inet", "table")
        return any(each["name"] == self._names.table for each in tables)

    def _existing(self) -> Existing:
        if not self._there():
            return Existing()
        listed = _objects(f"list table inet {self._names.table}")
        named = {
            kind: frozenset(each[kind]["name"] for each in listed if kind in each)
            for kind in ("chain", "set", "counter")
        }
        return Existing(chains=named["chain"], sets=named["set"], counters=named["counter"])


def _filter_bridged() -> None:
    """Have what goes from one sandbox to another of the same network filtered as well, which the
    kernel leaves out unless it is told."""
    for name in _BRIDGED:
        switch = _SYSCTL / name
        try:
            if switch.read_text().strip() != "1":
                switch.write_text("1")
        except OSError as error:
            raise FilterError(
                f"{switch} cannot be set to 1 ({error.strerror}): without it the kernel does not"
                " filter between the sandboxes of a network; load the module br_netfilter and run"
                " the worker as root"
            ) from error


def _listed(command: str, kind: str) -> list[Any]:
    return [each[kind] for each in _objects(command) if kind in each]


def _objects(command: str) -> list[Any]:
    return list(json.loads(run_nft(command))["nftables"])


def installed() -> bool:
    """Whether the library is here that is needed for networks."""
    try:
        _library()
    except FilterError:
        return False
    return True


def trouble() -> str:
    """Why the packet filter cannot be used by this process; empty where it can."""
    try:
        run_nft("list tables inet")
    except FilterError as error:
        return error.message
    return ""


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise FilterError(
            f"{_LIBRARY} is missing, without which networks cannot be filtered: install it, on"
            " Debian and Ubuntu with `apt-get install libnftables1` as root"
        ) from error
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
    for name in (
        "nft_ctx_free",
        "nft_ctx_buffer_output",
        "nft_ctx_buffer_error",
        "nft_ctx_get_output_buffer",
        "nft_ctx_get_error_buffer",
    ):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    return library


def run_nft(command: str) -> str:
    """Run commands as one transaction; gives what they list, as JSON. Raises FilterError."""
    library = _library()
    context = library.nft_ctx_new(0)
    if not context:
        raise FilterError("the packet filter cannot be used: libnftables has no memory")
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, _JSON)
        failed = library.nft_run_cmd_from_buffer(context, command.encode())
        output = (library.nft_ctx_get_output_buffer(context) or b"").decode(errors="replace")
        error = (library.nft_ctx_get_error_buffer(context) or b"").decode(errors="replace")
    finally:
        library.nft_ctx_free(context)
    if failed:
        raise FilterError(f"the packet filter refused: {' '.join(error.split())[:500]}")
    return output
