"""Networks on the whole stack: the kernel has what the API answers, through kills of the worker."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from e2e.installation import Installation
from networks.spaces import outside
from support.waiting import until

from director.host import installation_id
from director.networks.filter import Names, run_nft

pytestmark = [pytest.mark.docker, pytest.mark.e2e, pytest.mark.alone]


@pytest.fixture
def whole(director: Installation) -> Iterator[Installation]:
    """The shared Director, with all its parts up before and after, and without networks."""
    if os.geteuid() != 0:
        pytest.skip("needs root, which may filter packets")
    director.heal()
    director.user.token()
    yield director
    director.heal()
    director.user.token()
    for sandbox in director.user.call("GET", "/sandboxes?limit=100"):
        director.user.call("DELETE", f"/sandboxes/{sandbox['id']}")
    for network in director.user.call("GET", "/networks"):
        director.user.call("DELETE", f"/networks/{network['id']}?force=true")


def test_a_network_is_in_the_kernel_when_it_is_answered_and_through_a_kill_of_the_worker(
    whole: Installation,
) -> None:
    user, names = whole.user, Names(installation_id(whole.home))

    def rules(chain: str) -> str:
        return run_nft(f"list chain inet {names.table} {chain}")

    network = user.call("POST", "/networks", {"name": "e2e"})
    path, id = f"/networks/{network['id']}", network["id"]
    assert (network["status"], network["enforced"]) == ("active", True)
    assert names.bridge(id) in os.listdir("/sys/class/net")
    assert "isolated" not in rules(f"out_{id}")
    user.call("POST", f"{path}/isolate")
    assert "isolated" in rules(f"out_{id}")

    whole.end("worker")
    assert "isolated" in rules(f"out_{id}")
    run_nft(f"flush table inet {names.table}")
    whole.heal()
    until(lambda: "isolated" in rules(f"out_{id}"), "the next worker brings it back")

    user.token()
    user.call("DELETE", path)
    assert names.bridge(id) not in os.listdir("/sys/class/net")
    assert names.table not in run_nft("list tables")


SERVE = """
import socket
made = socket.create_server(("0.0.0.0", 80), backlog=50)
while True:
    made.accept()
"""
CONNECT = """
import json, socket, sys
ends = []
for target in json.loads(sys.argv[1]):
    made = socket.socket()
    made.settimeout(2)
    ends.append(made.connect_ex(tuple(target)))
print(json.dumps(ends))
"""
OPEN, REFUSED = 0, 111
METADATA = "169.254.169.254"


@contextmanager
def listening() -> Iterator[int]:
    """A port on which this machine takes connections, at all its addresses."""
    with socket.create_server(("0.0.0.0", 0)) as made:
        thread = threading.Thread(target=_accept, args=(made,), daemon=True)
        thread.start()
        yield made.getsockname()[1]
        made.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(listener: socket.socket) -> None:
    taken = []
    while True:
        try:
            taken.append(listener.accept()[0])
        except OSError:
            break
    for each in taken:
        each.close()


def test_a_sandbox_reaches_what_its_network_allows_and_nothing_of_the_host(
    whole: Installation,
) -> None:
    user = whole.user

    def sandbox(mode: str, **fields: Any) -> dict[str, Any]:
        body = {"networkMode": mode, "resourceLimits": {"memory": 64}, **fields}
        made = user.call("POST", "/sandboxes?wait=30", body)
        assert made["status"] == "running", made["error"]
        return dict(made)

    def ends(one: dict[str, Any], *targets: tuple[str, int]) -> list[int]:
        """How connections from a sandbox end, by the kernel's numbers."""
        body = {"command": ["python3", "-c", CONNECT, json.dumps(targets)]}
        ran = user.call("POST", f"/sandboxes/{one['id']}/execute", body)
        return list(json.loads(ran["stdout"]))

    one, two = (user.call("POST", "/networks", {"name": name}) for name in ("one", "two"))
    server = sandbox(one["id"], command=["python3", "-c", SERVE])
    peer, stranger, out = sandbox(one["id"]), sandbox(two["id"]), sandbox("bridge")
    way_out = user.call("GET", f"/networks/{out['networkId']}")
    members = user.call("GET", f"/networks/{one['id']}")["sandboxes"]
    addresses = {each["sandboxId"]: each["address"] for each in members}
    assert addresses.keys() == {server["id"], peer["id"]}
    served = (addresses[server["id"]], 80)

    until(lambda: ends(peer, served) == [OPEN], "peers reach each other")
    assert [ends(each, served) for each in (stranger, out)] == [[REFUSED], [REFUSED]]
    with listening() as port, socket.create_connection(("127.0.0.1", port)):
        gateways = [each["gateway"] for each in (one, two, way_out)]
        host = [(at, port) for at in (*gateways, "172.17.0.1")]
        for each in (peer, out):
            assert ends(each, *host, (METADATA, 80)) == [REFUSED] * 5
    with outside() as (world, address), world.serving(8443):
        assert [ends(each, (address, 8443)) for each in (peer, out)] == [[OPEN], [OPEN]]
        user.call("POST", f"/networks/{one['id']}/isolate")
        assert OPEN not in ends(peer, (address, 8443), served)
        user.call("DELETE", f"/networks/{one['id']}/isolate")

    kept = user.http.delete(f"/networks/{one['id']}")
    assert kept.status_code == 409
    attached = kept.json()["error"]["details"]["sandboxes"]
    assert set(attached) == addresses.keys()
    assert ends(peer, served) == [OPEN]
    user.call("DELETE", f"/networks/{one['id']}?force=true")
    assert OPEN not in ends(peer, served), "it goes on, detached"

    user.call("DELETE", f"/sandboxes/{out['id']}")
    until(
        lambda: way_out["id"] not in {each["id"] for each in user.call("GET", "/networks")},
        "the way out goes with the last who used it",
    )
    names = Names(installation_id(whole.home))
    until(lambda: names.bridge(way_out["id"]) not in os.listdir("/sys/class/net"), "and its bridge")
