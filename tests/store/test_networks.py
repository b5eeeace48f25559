"""Networks in the store: where sandboxes must be for them, and those that are made on demand."""

from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Network

import pytest

from director.domain.errors import ConflictError
from director.domain.lifetimes import SandboxCreate, SandboxEnd, SandboxStatus
from director.domain.networks import NetworkCreate
from director.domain.users import Principal, Role
from director.store import networks, placement, sandboxes
from director.store.engine import Store
from director.store.networks import Seat
from director.store.placement import Claim
from director.store.tables import NetworkRow, SandboxRow

ANN = Principal(user_id="usr_1", username="ann", role=Role.OPERATOR, login_id="lgn_1")


@pytest.fixture
def network(store: Store, host: Callable[..., str]) -> str:
    """A network on host `one`."""
    host("one")
    with store.write() as session:
        return networks.create(session, ANN, NetworkCreate(name="n")).id


def made(store: Store, mode: str) -> str:
    with store.write() as session:
        return sandboxes.create(session, ANN, SandboxCreate(network_mode=mode)).id


@pytest.mark.parametrize(
    ("lease", "wanted"),
    [
        (timedelta(seconds=10), Seat.ELSEWHERE),
        (timedelta(seconds=-20), Seat.AWAY),
        (timedelta(minutes=-2), Seat.GONE),
    ],
)
def test_a_sandbox_follows_its_network_while_that_one_s_host_may_come_back(
    store: Store, host: Callable[..., str], network: str, lease: timedelta, wanted: Seat
) -> None:
    id = made(store, network)
    host("one", lease=lease)
    with store.read() as session:
        row = session.get_one(SandboxRow, id)
        assert networks.seat(session, row, "one")[0] is Seat.HERE
        assert networks.seat(session, row, "two")[0] is wanted


def test_a_sandbox_of_a_deleted_network_has_nowhere_to_be(store: Store, network: str) -> None:
    id, free = made(store, network), made(store, "bridge")
    with store.write() as session:
        networks.remove(session, network)
    with store.read() as session:
        assert networks.seat(session, session.get_one(SandboxRow, id), "one")[0] is Seat.DELETED
        assert networks.seat(session, session.get_one(SandboxRow, free), "two")[0] is Seat.HERE


def test_more_memory_than_the_networks_host_has_is_impossible_although_another_has_it(
    store: Store, host: Callable[..., str], network: str
) -> None:
    host("large", memory_mib=8192)
    id = made(store, network)
    with store.write() as session:
        row = session.get_one(SandboxRow, id)
        assert placement.claim(session, row, "one", 6000, only_here=True) is Claim.IMPOSSIBLE
        assert placement.claim(session, row, "one", 6000) is Claim.FULL


def test_a_network_on_demand_is_one_for_each_owner_and_host_and_goes_with_its_last_sandbox(
    store: Store, host: Callable[..., str], network: str
) -> None:
    with store.write() as session:
        networks.create(session, ANN, NetworkCreate(name="bridge-one"))
    ids = [made(store, "bridge"), made(store, "bridge")]
    with store.write() as session:
        for id in ids:
            row = session.get_one(SandboxRow, id)
            row.network_id = networks.on_demand(session, ANN.user_id, "one").id
            session.add(row)
        there = networks.on_demand(session, ANN.user_id, "one")
        assert networks.sandboxes(session, "one") == {there.id: sorted(ids)}
        assert there.name.startswith("bridge-one-"), "the plain name is taken"
        assert networks.on_demand(session, ANN.user_id, "two").id != there.id
        assert networks.on_demand(session, "usr_2", "one").id != there.id
        mine = there.id
    for id in ids:
        with store.write() as session:
            assert mine not in networks.unused(session, "one")
            end = SandboxEnd(sandbox_id=id, status=SandboxStatus.EXPIRED)
            sandboxes.settle(session, end)
    with store.write() as session:
        networks.drop_unused(session, "one")
        assert session.get_one(NetworkRow, mine).deleted_at is not None
        assert session.get_one(NetworkRow, network).deleted_at is None


def test_networks_are_taken_from_the_pool_as_many_as_the_quota(
    store: Store, host: Callable[..., str], network: str
) -> None:
    pool = IPv4Network("192.168.16.0/20")
    with store.write() as session:
        made = networks.create(session, ANN, NetworkCreate(name="m"), pool, 2)
        assert made.subnet == "192.168.16.0/24"
        assert networks.on_demand(session, "usr_2", "one", pool).subnet == "192.168.17.0/24"
        networks.move(session, network, [IPv4Network("192.168.18.0/24")], pool)
        assert session.get_one(NetworkRow, network).subnet == "192.168.19.0/24"
    with pytest.raises(ConflictError) as refused, store.write() as session:
        networks.create(session, ANN, NetworkCreate(name="o"), pool, 2)
    assert refused.value.details == {"quota": "networks", "limit": 2}
