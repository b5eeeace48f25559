"""Host names as addresses, followed as they change."""

import socket
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from director.domain.addresses import literal

Resolver = Callable[[str], Iterable[str]]
"""Gives the IPv4 addresses of a name. Raises OSError where it has none, or nobody can tell."""

KEPT = timedelta(minutes=10)
"""How long an address stays open after its name last had it: whoever answers for a name rarely
names all of its addresses at a time."""

PERIOD = timedelta(seconds=30)
"""Between two looks at a name."""

PATIENCE = 4.0
"""Seconds that a look takes at the most."""

_AT_ONCE = 16


def system_resolver(name: str) -> list[str]:
    """Ask as this host's programs do."""
    found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Names:
    """Looks names up, several at once and within seconds: one that cannot be had now keeps the
    addresses that it had, until they are too old."""

    def __init__(
        self,
        resolver: Resolver = system_resolver,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._resolver, self._clock = resolver, clock
        self._looked: dict[str, datetime] = {}
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="names")

    def followed(self, known: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
        """The addresses of names, each with the moment when the name last had it, given what was
        known of them. Those that were looked at less than `PERIOD` ago stay as they are."""
        now = self._clock()
        recent = ((name, at) for name, at in self._looked.items() if now - at < PERIOD)
        self._looked = {name: at for name, at in recent if name in known}
        due = [name for name in known if name not in self._looked]
        self._looked |= dict.fromkeys(due, now)
        asked = {name: self._threads.submit(self._look_up, name) for name in due}
        wait(asked.values(), timeout=PATIENCE)
        found = {name: dict(seen) for name, seen in known.items()}
        for name, answer in asked.items():
            if answer.done():
                found[name] |= dict.fromkeys(answer.result(), now.isoformat())
        return {name: _young(seen, now) for name, seen in found.items()}

    def addresses(self, name: str) -> list[IPv4Address]:
        """The addresses that a name has now, an address being its own; without the patience of
        `followed`. Raises OSError where it has none, or nobody can tell."""
        if isinstance(address := literal(name), IPv4Address):
            return [address]
        if found := [IPv4Address(each) for each in dict.fromkeys(self._resolver(name))]:
            return found
        raise OSError("it has no IPv4 address")

    def _look_up(self, name: str) -> list[str]:
        with suppress(OSError, ValueError):
            return [str(IPv4Address(each)) for each in self._resolver(name)]
        return []


def _young(seen: Mapping[str, str], now: datetime) -> dict[str, str]:
    return {
        address: at
        for address, at in sorted(seen.items())
        if now - datetime.fromisoformat(at) < KEPT
    }
