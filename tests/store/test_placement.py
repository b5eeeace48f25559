"""Claims never exceed a host, and a run is lost only where another host can take it over."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from director.domain.events import EventType
from director.domain.lifetimes import SandboxCreate, SandboxEnd, SandboxStatus
from director.domain.runs import RunStatus
from director.domain.users import Principal, Role
from director.store import hosts, placement, sandboxes, standing
from director.store.engine import Store
from director.store.placement import Claim, Decision
from director.store.tables import RunRow

SOMEBODY = Principal(user_id="usr_1", username="a", role=Role.OPERATOR, login_id="lgn_1")
GONE = timedelta(seconds=-1)

Host = Callable[..., str]
NewRun = Callable[[], str]


def claimed(store: Store, run_id: str, host_id: str, memory_mib: int = 512) -> Claim:
    with store.write() as session:
        run = session.get_one(RunRow, run_id)
        return placement.claim(session, run, host_id, memory_mib)


def decided(store: Store, run_id: str) -> Decision:
    with store.write() as session:
        return placement.decide(session, session.get_one(RunRow, run_id))


def settled_elsewhere(store: Store, run_id: str) -> bool:
    with store.write() as session:
        return placement.settle_elsewhere(session, session.get_one(RunRow, run_id))


def row_of(store: Store, run_id: str) -> RunRow:
    with store.read() as session:
        return session.get_one(RunRow, run_id)


def end(store: Store, run_id: str) -> None:
    with store.write() as session:
        run = session.get_one(RunRow, run_id)
        standing.move(session, run, RunStatus.FAILED, EventType.WORKFLOW_FAILED)


@pytest.fixture
def placed(store: Store, host: Host, new_run: NewRun) -> str:
    """A run whose sandbox is on host `one`, with its files."""
    run_id = new_run()
    host("one")
    assert claimed(store, run_id, "one") is Claim.MINE
    with store.write() as session:
        run = session.get_one(RunRow, run_id)
        run.workspace_ready = True
        session.add(run)
    return run_id


def test_a_claim_may_be_repeated_and_other_hosts_are_told_where_the_run_is(
    store: Store, host: Host, placed: str
) -> None:
    host("two")

    assert claimed(store, placed, "one") is Claim.MINE
    assert claimed(store, placed, "two") is Claim.ELSEWHERE
    assert (row_of(store, placed).host_id, row_of(store, placed).memory_mib) == ("one", 512)


def test_a_claim_sees_what_its_own_transaction_has_written(
    store: Store, host: Host, new_run: NewRun
) -> None:
    host("one")
    run_id = new_run()
    with store.write() as session:
        run = session.get_one(RunRow, run_id)
        run.image = "mine"
        session.add(run)
        assert placement.claim(session, run, "one", 512) is Claim.MINE

    assert (row_of(store, run_id).image, row_of(store, run_id).host_id) == ("mine", "one")


@pytest.mark.parametrize(("places", "memory_mib"), [(5, 1 << 20), (100, 5 * 512 + 511)])
def test_claims_at_once_never_exceed_places_or_memory(
    store: Store, url: str, host: Host, new_run: NewRun, places: int, memory_mib: int
) -> None:
    host("one", places=places, memory_mib=memory_mib)
    made = [new_run() for _ in range(20)]
    another_process = Store(url)

    with ThreadPoolExecutor(8) as pool:
        stores = [store, another_process] * 10
        results = list(pool.map(claimed, stores, made, ["one"] * 20))

    another_process.close()
    assert sorted(results) == [Claim.FULL] * 15 + [Claim.MINE] * 5
    with store.read() as session:
        assert hosts.reserved(session, "one") == (5, 5 * 512)


def test_a_run_that_has_ended_leaves_its_place_to_the_next(
    store: Store, host: Host, new_run: NewRun
) -> None:
    host("one", places=1)
    first, second = new_run(), new_run()
    assert claimed(store, first, "one") is Claim.MINE
    assert claimed(store, second, "one") is Claim.FULL

    end(store, first)

    assert claimed(store, second, "one") is Claim.MINE


def test_a_host_that_drains_takes_nothing_new_and_keeps_what_it_has(
    store: Store, host: Host, new_run: NewRun, placed: str
) -> None:
    with store.write() as session:
        hosts.set_draining(session, "one", True)

    assert claimed(store, new_run(), "one") is Claim.FULL
    assert claimed(store, placed, "one") is Claim.MINE
    assert decided(store, placed) is Decision.WAIT


def test_more_memory_than_any_host_has_is_impossible_and_not_just_missing_now(
    store: Store, host: Host, new_run: NewRun
) -> None:
    host("one", memory_mib=1024)
    host("dead", memory_mib=1 << 20, lease=GONE)
    run_id = new_run()
    assert claimed(store, run_id, "one", 1025) is Claim.IMPOSSIBLE

    host("two", memory_mib=2048)

    assert claimed(store, run_id, "one", 1025) is Claim.FULL
    assert claimed(store, run_id, "two", 1025) is Claim.MINE


def test_a_time_out_alone_never_loses_a_host(store: Store, host: Host, placed: str) -> None:
    host("two")

    assert decided(store, placed) is Decision.WAIT
    assert row_of(store, placed).host_id == "one"


def test_the_only_host_is_never_lost_to_itself(store: Store, host: Host, placed: str) -> None:
    host("one", lease=GONE)

    assert decided(store, placed) is Decision.WAIT
    assert not settled_elsewhere(store, placed)
    row = row_of(store, placed)
    assert (row.host_id, row.sandbox_epoch, row.workspace_ready) == ("one", 0, True)


def test_a_run_is_lost_with_its_host_where_another_has_room(
    store: Store, host: Host, placed: str
) -> None:
    host("one", lease=GONE)
    host("two")

    assert decided(store, placed) is Decision.LOST

    row = row_of(store, placed)
    assert (row.host_id, row.sandbox_epoch, row.workspace_ready) == (None, 1, False)
    assert decided(store, placed) is Decision.LOST, "the question may be repeated"
    assert row_of(store, placed).sandbox_epoch == 1
    assert claimed(store, placed, "two") is Claim.MINE
    assert decided(store, placed) is Decision.WAIT


@pytest.mark.parametrize("why", ["full", "small", "draining", "dead"])
def test_a_run_is_not_lost_while_no_other_host_has_room(
    store: Store, host: Host, new_run: NewRun, placed: str, why: str
) -> None:
    host("one", lease=GONE)
    host(
        "two",
        places=1,
        memory_mib=511 if why == "small" else 4096,
        lease=GONE if why == "dead" else hosts.LEASE,
    )
    other = new_run()
    if why == "full":
        assert claimed(store, other, "two") is Claim.MINE
    with store.write() as session:
        hosts.set_draining(session, "two", why == "draining")

    assert decided(store, placed) is Decision.WAIT
    if why == "full":
        end(store, other)
        assert decided(store, placed) is Decision.LOST


def test_a_host_that_has_no_row_is_lost_as_one_whose_lease_ran_out(
    store: Store, host: Host, placed: str
) -> None:
    with store.write() as session:
        run = session.get_one(RunRow, placed)
        run.host_id = "forgotten"
        session.add(run)

    assert decided(store, placed) is Decision.LOST


def test_a_run_that_has_no_host_yet_has_none_to_lose(store: Store, new_run: NewRun) -> None:
    assert decided(store, new_run()) is Decision.WAIT


def test_the_end_of_a_run_needs_another_host_but_no_room_on_it(
    store: Store, host: Host, new_run: NewRun, placed: str
) -> None:
    host("two", places=1)
    claimed(store, new_run(), "two")
    assert not settled_elsewhere(store, placed), "its host lives"

    host("one", lease=GONE)

    assert settled_elsewhere(store, placed)
    assert settled_elsewhere(store, placed), "the question may be repeated"
    row = row_of(store, placed)
    assert (row.host_id, row.sandbox_epoch) == (None, 1)


def test_a_sandbox_is_displaced_by_a_later_epoch_or_another_host(
    store: Store, host: Host, placed: str
) -> None:
    run = row_of(store, placed)
    assert not placement.is_displaced(run, "one", 0)
    assert placement.is_displaced(run, "two", 0)

    host("one", lease=GONE)
    host("two")
    decided(store, placed)

    assert placement.is_displaced(row_of(store, placed), "one", 0)


def test_a_run_in_somebody_s_sandbox_waits_for_its_host_until_that_sandbox_has_ended(
    store: Store, host: Host, new_run: NewRun
) -> None:
    host("one", lease=GONE)
    host("two")
    run_id = new_run()
    with store.write() as session:
        lent = sandboxes.create(session, SOMEBODY, SandboxCreate())
        lent.host_id, lent.status = "one", SandboxStatus.RUNNING
        run = session.get_one(RunRow, run_id)
        run.sandbox_id, run.host_id = lent.id, "one"
        session.add_all([lent, run])
        assert hosts.reserved(session, "one").places == 1, "the run takes no place of its own"

    assert decided(store, run_id) is Decision.WAIT
    assert not settled_elsewhere(store, run_id), "its commands may go on there"
    assert row_of(store, run_id).host_id == "one"
    with store.write() as session:
        sandboxes.settle(session, SandboxEnd(sandbox_id=lent.id, status=SandboxStatus.EXPIRED))
    assert decided(store, run_id) is Decision.WAIT
    assert row_of(store, run_id).host_id is None, "any host may say that it has ended"
    assert settled_elsewhere(store, run_id)
