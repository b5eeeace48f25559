"""Network namespaces as machines: a host with bridges, sandboxes on them, and the world outside."""

import ctypes
import os
import random
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from director.networks.filter import run_nft

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

OPEN, REFUSED, SILENT = "open", "refused", "silent"


def ip(*words: str) -> None:
    """Run `ip`."""
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"


class Space:
    """A network namespace with a thread that lives in it."""

    def __init__(self, name: str) -> None:
        self.name = f"dt{uuid.uuid4().hex[:6]}{name}"
        ip("netns", "add", self.name)
        self._thread = ThreadPoolExecutor(1, initializer=self._enter)
        self.ip("link", "set", "lo", "up")

    def _enter(self) -> None:
        with Path(f"/run/netns/{self.name}").open() as file:
            if _LIBC.setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def ip(self, *words: str) -> None:
        ip("-n", self.name, *words)

    def run(self, work: Callable[[], T]) -> T:
        """Do something in the namespace; sockets made there stay there."""
        return self._thread.submit(work).result(30)

    def write(self, path: str, value: str) -> None:
        """Set a switch of the kernel, in this namespace."""
        self.run(lambda: Path(path).write_text(value))

    def shell(self, command: str) -> str:
        done = ["ip", "netns", "exec", self.name, "sh", "-c", command]
        return subprocess.run(done, check=True, capture_output=True, text=True).stdout

    def nft(self, *commands: str) -> None:
        """Have the packet filter of the namespace do more than what is tested."""
        self.run(lambda: run_nft("\n".join(commands)))

    def endpoint(
        self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET
    ) -> socket.socket:
        return self.run(lambda: socket.socket(family, kind))

    def close(self) -> None:
        self._thread.shutdown()
        with suppress(AssertionError):
            ip("netns", "del", self.name)

    def tcp(self, address: str, port: int, seconds: float = 0.4) -> str:
        """How a connection to an address ends: open, refused or silent."""
        with self.endpoint(family=_family(address)) as made:
            made.settimeout(seconds)
            try:
                made.connect((address, port))
                made.sendall(b"hello")
                return OPEN if made.recv(16) == b"hello" else SILENT
            except TimeoutError:
                return SILENT
            except OSError:
                return REFUSED

    def udp(self, address: str, port: int, seconds: float = 0.4) -> str:
        """The same for a datagram that is answered."""
        with self.endpoint(socket.SOCK_DGRAM, _family(address)) as made:
            made.settimeout(seconds)
            try:
                made.connect((address, port))
                made.send(b"hello")
                return OPEN if made.recv(16) == b"hello" else SILENT
            except TimeoutError:
                return SILENT
            except OSError:
                return REFUSED

    def ping(self, address: str) -> bool:
        with suppress(subprocess.CalledProcessError):
            self.shell(f"busybox ping -c 1 -W 1 {address}")
            return True
        return False

    @contextmanager
    def serving(self, *ports: int, udp: tuple[int, ...] = ()) -> Iterator["Heard"]:
        """Echo on all addresses, IPv6 as well, and note who came."""
        heard, over = Heard(), threading.Event()
        threads: list[threading.Thread] = []
        with ExitStack() as stack:
            for port in ports:
                listener = stack.enter_context(self._listener(port))
                threads.append(_spawn(_accept, listener, heard, over))
            for port in udp:
                made = stack.enter_context(self.endpoint(socket.SOCK_DGRAM, socket.AF_INET6))
                made.bind(("::", port))
                made.settimeout(0.1)
                threads.append(_spawn(_answer, made, heard, over))
            try:
                yield heard
            finally:
                over.set()
                for thread in threads:
                    thread.join()

    def _listener(self, port: int) -> socket.socket:
        made = self.endpoint(family=socket.AF_INET6)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        made.listen(64)
        made.settimeout(0.1)
        return made


@contextmanager
def outside() -> Iterator[tuple[Space, str]]:
    """A machine beside this one, and its address, which is a public one."""
    space, first = Space("w"), _free()
    here, there = f"198.51.100.{first + 1}", f"198.51.100.{first + 2}"
    port = f"p{space.name}"
    try:
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space.name)
        ip("addr", "add", f"{here}/30", "dev", port)
        ip("link", "set", port, "up")
        space.ip("addr", "add", f"{there}/30", "dev", "eth0")
        space.ip("link", "set", "eth0", "up")
        yield space, there
    finally:
        space.close()


def _free() -> int:
    """Where in 198.51.100.0 no other machine is now: others run tests beside us."""
    listed = subprocess.run(["ip", "-4", "-o", "addr"], check=True, capture_output=True, text=True)
    firsts = [4 * at for at in range(64) if f" 198.51.100.{4 * at + 1}/30 " not in listed.stdout]
    return random.choice(firsts)


@contextmanager
def resolving(space: Space, address: str) -> Iterator[list[bytes]]:
    """A resolver that has one address for all names; gives the queries that it hears."""
    heard: list[bytes] = []
    over = threading.Event()
    with space.endpoint(socket.SOCK_DGRAM) as made:
        made.bind(("", 53))
        made.settimeout(0.1)
        thread = _spawn(_resolve, made, address, heard, over)
        try:
            yield heard
        finally:
            over.set()
            thread.join()


def _resolve(made: socket.socket, address: str, heard: list[bytes], over: threading.Event) -> None:
    while not over.is_set():
        with suppress(TimeoutError):
            query, peer = made.recvfrom(1024)
            heard.append(query)
            end = query.index(b"\0", 12) + 5
            is_a = query[end - 4 : end - 2] == b"\0\1"
            record = b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(address)
            head = query[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_a else b"\0\0") + bytes(4)
            made.sendto(head + query[12:end] + (record if is_a else b""), peer)


class Heard:
    """What a listener has heard: the sender and the bytes."""

    def __init__(self) -> None:
        self.packets: list[tuple[float, str, bytes]] = []

    def add(self, peer: str, data: bytes) -> None:
        self.packets.append((time.monotonic(), peer, data))

    def __len__(self) -> int:
        return len(self.packets)


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _spawn(work: Callable[..., None], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=work, args=arguments, daemon=True)
    thread.start()
    return thread


def _accept(listener: socket.socket, heard: Heard, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(TimeoutError, OSError):
            connection, _ = listener.accept()
            _spawn(_echo, connection, heard, over)


def _echo(connection: socket.socket, heard: Heard, over: threading.Event) -> None:
    connection.settimeout(0.1)
    with connection:
        while not over.is_set():
            with suppress(TimeoutError):
                try:
                    data = connection.recv(1024)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not data:
                    return
                heard.add(connection.getpeername()[0], data)
                with suppress(OSError):
                    connection.sendall(data)


def _answer(made: socket.socket, heard: Heard, over: threading.Event) -> None:
    while not over.is_set():
        with suppress(TimeoutError, OSError):
            data, peer = made.recvfrom(1024)
            heard.add(peer[0], data)
            made.sendto(data, peer)


def forget_connections() -> None:
    """Empty conntrack's table of the namespace that the caller is in."""
    delete = 1 << 8 | 2
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as made:
        made.settimeout(5)
        made.send(struct.pack("=IHHIIBBH", 20, delete, 1 | 4, 1, 0, 0, 0, 0))
        assert struct.unpack_from("=i", made.recv(1024), 16)[0] == 0


def may() -> bool:
    """Whether this process may make namespaces."""
    return os.geteuid() == 0
