"""Blocked attempts, as the packet filter tells them through NFLOG."""

import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address

from director.networks.filter import FilterError
from director.networks.rules import Ground

_NETLINK_NETFILTER = 12
_ULOG = 4 << 8
_PACKET, _CONFIG = _ULOG | 0, _ULOG | 1
_ERROR = 2
_REQUEST, _ACK = 1, 4
_CFG_COMMAND, _CFG_MODE, _BIND, _COPY_PACKET = 1, 2, 1, 2
_PAYLOAD, _PREFIX = 9, 10
_SNAP = 128
_HEADER = struct.Struct("=IHHII")
_GENERAL = 4
_RECEIVE = 1 << 16
_BUFFER = 1 << 20

_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_WITH_PORTS = (6, 17)


@dataclass(frozen=True)
class Attempt:
    """A connection that was refused, and why."""

    ground: Ground
    source: str
    destination: str
    protocol: str
    port: int | None


class Listener:
    """Hears of one group. Only one can at a time: another worker of the host, perhaps."""

    def __init__(self, group: int) -> None:
        """Raises FilterError where the group is taken, or the kernel or its rights refuse it."""
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
            self._socket.settimeout(5)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            self._configure(group, _CFG_COMMAND, struct.pack("=B", _BIND))
            self._configure(group, _CFG_MODE, struct.pack(">IBx", _SNAP, _COPY_PACKET))
        except OSError as error:
            self._socket.close()
            raise FilterError(f"blocked attempts cannot be heard of: {error.strerror}") from error

    def attempts(self, seconds: float) -> list[Attempt]:
        """What was refused since, waiting for so long at the most."""
        self._socket.settimeout(seconds)
        try:
            data = self._socket.recv(_RECEIVE)
        except OSError:  # nothing came; or more than was read, and some of it is lost
            return []
        return list(_attempts(data))

    def close(self) -> None:
        """Let another listen."""
        self._socket.close()

    def _configure(self, group: int, kind: int, value: bytes) -> None:
        attribute = struct.pack("=HH", 4 + len(value), kind) + value
        body = struct.pack(">BBH", 0, 0, group) + attribute + b"\0" * (-len(attribute) % 4)
        header = _HEADER.pack(_HEADER.size + len(body), _CONFIG, _REQUEST | _ACK, 1, 0)
        self._socket.send(header + body)
        for what, answer in _messages(self._socket.recv(_RECEIVE)):
            if what == _ERROR and (code := struct.unpack_from("=i", answer)[0]):
                raise OSError(-code, os.strerror(-code))


class Tally:
    """Bounds what is told: each attempt once in `period`, with how often it was made since, and at
    most `most` different ones of a network. Others are dropped."""

    def __init__(
        self,
        period: float = 10.0,
        most: int = 20,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._period, self._most, self._clock = period, most, clock
        self._waiting: Counter[Attempt] = Counter()
        self._told: dict[Attempt, float] = {}

    def add(self, attempts: Iterable[Attempt]) -> None:
        """Count attempts."""
        for attempt in attempts:
            if attempt in self._waiting or self._room(attempt):
                self._waiting[attempt] += 1

    def due(self) -> list[tuple[Attempt, int]]:
        """The attempts to tell of now, and how often each was made."""
        now = self._clock()
        self._told = {each: at for each, at in self._told.items() if now - at < self._period}
        found = [(each, count) for each, count in self._waiting.items() if each not in self._told]
        for each, _ in found:
            self._told[each] = now
            del self._waiting[each]
        return found

    def _room(self, attempt: Attempt) -> bool:
        network = attempt.ground.network_id
        known = {*self._waiting, *self._told}
        return attempt in known or self._most > sum(
            1 for each in known if each.ground.network_id == network
        )


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind = struct.unpack_from("=IH", data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[(length + 3) & ~3 :]


def _attempts(data: bytes) -> Iterator[Attempt]:
    for kind, body in _messages(data):
        if kind != _PACKET:
            continue
        attributes = dict(_attributes(body[_GENERAL:]))
        prefix = attributes.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
        ground = Ground.read(prefix)
        if ground is None:
            continue
        with suppress(ValueError, struct.error):
            yield _attempt(ground, attributes.get(_PAYLOAD, b""))


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _attempt(ground: Ground, packet: bytes) -> Attempt:
    """Read the head of an IP packet. Raises ValueError or struct.error where it is none."""
    (first,) = struct.unpack_from("B", packet)
    if first >> 4 == 4:
        number, ends, offset = packet[9], (packet[12:16], packet[16:20]), (first & 15) * 4
    else:
        number, ends, offset = packet[6], (packet[8:24], packet[24:40]), 40
    port = struct.unpack_from(">H", packet, offset + 2)[0] if number in _WITH_PORTS else None
    source, destination = (str(ip_address(end)) for end in ends)
    return Attempt(ground, source, destination, _PROTOCOLS.get(number, str(number)), port)
