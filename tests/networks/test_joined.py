"""Sandboxes on real networks: whom they ask for names, and what holds when the engine dies."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from ipaddress import IPv4Address
from pathlib import Path

import docker
import pytest
from networks.places import ADMIN, Place, place
from networks.spaces import may, outside, resolving
from support.engine import IMAGE, OwnEngine
from support.waiting import until

from director.domain.errors import UnavailableError
from director.domain.networks import Destination, PolicyCreate
from director.store import networks

pytestmark = pytest.mark.docker

DENY = PolicyCreate.model_validate({"name": "deny", "outbound": [{"action": "deny"}]})

ASK = """
import socket, sys
lines = [line.split() for line in open("/etc/resolv.conf")]
mine = [words[1] for words in lines if words[0] == "nameserver"]
for number, server in enumerate((mine[0], "127.0.0.11", sys.argv[1])):
    name = b"\\x04via%d\\x04test\\0" % number
    query = b"\\x12\\x34\\1\\0\\0\\1" + bytes(6) + name + b"\\0\\1\\0\\1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.settimeout(0.5)
        try:
            made.sendto(query, (server, 53))
            made.recv(512)
        except OSError:
            pass
try:
    print(socket.gethostbyname("some.test"))
except OSError:
    print("nobody knows")
"""
CONNECT = """
import socket, sys
made = socket.socket()
made.settimeout(1)
print(made.connect_ex((sys.argv[1], int(sys.argv[2]))) == 0)
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Place]:
    if not may():
        pytest.skip("needs root, which may filter packets")
    if (image := os.environ.get("DIRECTOR_TEST_IMAGE")) is None:
        pytest.skip("needs DIRECTOR_TEST_IMAGE, an image with python")
    client = docker.from_env()
    with place(client, tmp_path, image) as made:
        yield made
    client.close()


def test_a_sandbox_that_may_not_ask_for_names_asks_nobody(here: Place) -> None:
    with outside() as (world, address), resolving(world, "192.0.2.7") as heard:
        here.resolvers.append(IPv4Address(address))
        asking = here.network()
        asker = here.sandbox(asking.id)
        deaf = here.sandbox(here.network(enableDNS=False).id)
        inner = here.sandbox(here.network(internal=True).id)

        def asked(sandbox_id: str) -> str:
            return here.said(sandbox_id, "python3", "-c", ASK, address).strip()

        assert asked(asker) == "192.0.2.7"
        assert any(b"via0" in query for query in heard)
        assert any(b"via2" in query for query in heard)
        assert not any(b"via1" in query for query in heard), "the engine asks for nobody"
        count = len(heard)
        assert {asked(deaf), asked(inner)} == {"nobody knows"}
        here.change(lambda s: networks.put_policy(s, ADMIN, asking.id, DENY))
        assert asked(asker) == "nobody knows"
        here.change(lambda s: networks.isolate(s, ADMIN, asking.id, isolated=True))
        assert asked(asker) == "nobody knows"
        assert len(heard) == count


def test_a_name_that_is_open_is_known_and_followed_by_who_may_ask_nobody(here: Place) -> None:
    with outside() as (world, address), world.serving(8443, 8080):
        here.names["api.test"] = [address]
        shut = here.network(enableDNS=False)
        here.change(lambda s: networks.put_policy(s, ADMIN, shut.id, DENY))
        sandbox_id = here.sandbox(shut.id)

        def reached(port: int) -> bool:
            said = here.said(sandbox_id, "python3", "-c", CONNECT, "api.test", str(port))
            return said.strip() == "True"

        assert not reached(8443)
        api = Destination(host="api.test", port=8443)
        here.change(lambda s: networks.allow(s, ADMIN, shut.id, [api]))
        assert reached(8443)
        assert not reached(8080)
        here.names["api.test"] = ["192.0.2.9"]
        here.now += timedelta(minutes=11)
        here.run(here.networks.enforce)
        known = here.said(sandbox_id, "cat", "/etc/hosts")
        assert "192.0.2.9 api.test\n" in known
        assert address not in known
        here.said(sandbox_id, "sh", "-c", "echo 192.0.2.1 api.test >> /etc/hosts")
        assert here.said(sandbox_id, "cat", "/etc/hosts") == known


def test_a_sandbox_on_a_network_has_no_ipv6_and_counts_what_comes_and_goes(here: Place) -> None:
    one, two = here.network(), here.network()
    sandbox_id = here.sandbox(one.id)
    assert here.said(sandbox_id, "cat", "/proc/net/if_inet6") == ""
    assert here.runtime.metrics(sandbox_id).network.tx == 0
    here.said(sandbox_id, "python3", "-c", CONNECT, one.gateway, "80")
    found = here.runtime.metrics(sandbox_id).network
    assert found.tx > 0
    assert found.rx > 0
    assert here.networks.bridges.members(two.id) == {}


HEAR = """
import socket, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.bind(("", 5353))
while True:
    data = made.recv(99)
    with open(sys.argv[1], "ab") as file:
        file.write(data + b"\\n")
"""
SEND = """
import itertools, socket, sys, time
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in itertools.count(1):
    with open(sys.argv[1], "a") as file:
        file.write(f"{number}\\n")
    for address in sys.argv[2:]:
        try:
            made.sendto(str(number).encode(), (address, 5353))
        except OSError:
            pass
    time.sleep(0.01)
"""


def _last(path: Path) -> int:
    """The number of the last packet; each is written before it is sent."""
    if not path.exists():
        return 0
    return max((int(each) for each in path.read_text().split("\n")[:-1]), default=0)


def _enter(pid: int) -> None:
    with Path(f"/proc/{pid}/ns/net").open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # cut connections
@pytest.mark.alone  # an engine starts twice beside who sends without end
def test_a_killed_engine_leaves_no_window_for_a_denied_packet(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if not may() or not shutil.which("dockerd") or not shutil.which("unshare"):
        pytest.skip("only root, with dockerd installed, starts an engine of its own")
    notes = tmp_path_factory.mktemp("notes")
    running: list[subprocess.Popen[bytes]] = []

    def start(pid: int, program: str, *words: str) -> None:
        enter = ["nsenter", "-t", str(pid), "-n", sys.executable, "-c", program]
        running.append(subprocess.Popen([*enter, *words]))

    with OwnEngine(tmp_path_factory.mktemp("engine")) as engine:
        thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(engine.inside,))
        client = engine.client()
        home = tmp_path_factory.mktemp("home")
        try:
            with place(client, home, IMAGE, lambda work: thread.submit(work).result(60)) as there:
                one, two = there.network(), there.network()
                sender, peer = there.sandbox(one.id), there.sandbox(one.id)
                stranger = there.sandbox(two.id)
                heard = {name: notes / name for name in ("peer", "stranger", "host")}
                start(there.pid(peer), HEAR, str(heard["peer"]))
                start(there.pid(stranger), HEAR, str(heard["stranger"]))
                start(engine.inside, HEAR, str(heard["host"]))
                targets = [there.address(one.id, peer), there.address(two.id, stranger)]
                sent = notes / "sent"
                start(there.pid(sender), SEND, str(sent), *targets, one.gateway)
                until(lambda: _last(heard["peer"]), "it passes at first")
                there.change(lambda s: networks.put_policy(s, ADMIN, one.id, DENY))
                count = _last(sent)

                engine.kill()
                until(lambda: _last(sent) > count + 50, "it goes on without an engine")
                with pytest.raises(UnavailableError):
                    there.run(there.networks.enforce)
                engine.start()
                there.run(there.networks.enforce)
                back = _last(sent)
                until(lambda: _last(sent) > back + 100, "it goes on")
                assert _last(heard["peer"]) <= count
                assert [_last(heard[name]) for name in ("stranger", "host")] == [0, 0]
                third = there.sandbox(one.id)
                assert third in there.networks.bridges.members(one.id)
        finally:
            for each in running:
                each.kill()
                each.wait()
            thread.shutdown()
            client.close()
