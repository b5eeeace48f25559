"""A host lives as long as its lease, and its epoch tells when a lease ran out."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from director.domain.departments import TicketState
from director.domain.errors import NotFoundError
from director.domain.events import EventType
from director.domain.hosts import Capacity
from director.domain.pages import PageQuery
from director.domain.runs import RunStatus, SettleInput
from director.store import hosts, placement, settling, standing, tickets
from director.store.engine import Store
from director.store.tables import HostRow, RunRow

GONE = timedelta(seconds=-1)


def row_of(store: Store, id: str) -> HostRow:
    with store.read() as session:
        return session.get_one(HostRow, id)


def renewed(store: Store, id: str) -> int | None:
    with store.write() as session:
        row = hosts.renew(session, id)
        return row.epoch if row is not None else None


def test_several_workers_of_a_host_share_its_lease_and_its_epoch(
    store: Store, host: Callable[..., str]
) -> None:
    host("one")
    host("one")

    assert renewed(store, "one") == 1
    assert row_of(store, "one").epoch == 1


def test_a_renewed_lease_lasts_longer_and_never_shorter(
    store: Store, host: Callable[..., str]
) -> None:
    host("one")
    before = row_of(store, "one").lease_until
    renewed(store, "one")
    longer = row_of(store, "one").lease_until
    with store.write() as session:
        hosts.renew(session, "one", timedelta(seconds=1))

    assert before < longer == row_of(store, "one").lease_until


def test_a_lease_that_ran_out_is_not_renewed_and_a_new_one_raises_the_epoch(
    store: Store, host: Callable[..., str]
) -> None:
    host("one", lease=GONE)

    assert renewed(store, "one") is None
    host("one")
    assert renewed(store, "one") == 2


def test_a_host_that_nobody_registered_has_no_lease(store: Store) -> None:
    assert renewed(store, "one") is None
    with store.read() as session:
        assert not hosts.is_living(session, "one")


def test_places_count_on_hosts_that_live_and_are_not_draining(
    store: Store, host: Callable[..., str]
) -> None:
    host("one", places=3)
    host("two", places=5)
    host("dead", places=7, lease=GONE)
    with store.write() as session:
        hosts.set_draining(session, "two", True)

    with store.read() as session:
        assert [row.id for row in hosts.living(session)] == ["one", "two"]
        assert hosts.total_places(session) == 3


def test_what_a_host_holds_that_takes_nothing_new_costs_the_others_no_place(
    store: Store, host: Callable[..., str], new_run: Callable[[], str]
) -> None:
    host("full", places=2)
    first, second, third = (new_run() for _ in range(3))
    with store.write() as session:
        for id in (first, second):
            tickets.take_place(session, session.get_one(RunRow, id), hosts.total_places(session))
            placement.claim(session, session.get_one(RunRow, id), "full", 512)
        hosts.set_draining(session, "full", True)
    host("empty", places=1)

    with store.write() as session:
        run = session.get_one(RunRow, third)
        taken = tickets.take_place(session, run, hosts.total_places(session))

    assert taken.state is TicketState.HELD
    fourth = new_run()
    with store.write() as session:
        run = session.get_one(RunRow, fourth)
        taken = tickets.take_place(session, run, hosts.total_places(session))
    assert taken.state is TicketState.WAITING


def test_the_place_of_a_run_that_ends_on_a_host_that_takes_nothing_new_goes_to_nobody(
    store: Store, host: Callable[..., str], new_run: Callable[[], str]
) -> None:
    host("full", places=1)
    first, second = new_run(), new_run()
    for id in (first, second):
        with store.write() as session:
            run = session.get_one(RunRow, id)
            tickets.take_place(session, run, hosts.total_places(session))
            placement.claim(session, run, "full", 512)
    with store.write() as session:
        hosts.set_draining(session, "full", True)

    with store.write() as session:
        granted = settling.settle(session, SettleInput(run_id=first, status=RunStatus.COMPLETED))

    assert granted == []


def test_a_host_that_registers_again_goes_on_draining_and_tells_its_new_size(
    store: Store, host: Callable[..., str]
) -> None:
    host("one", places=3, lease=GONE)
    with store.write() as session:
        hosts.set_draining(session, "one", True)
        hosts.register(session, "one", Capacity(places=9, memory_mib=512))

    row = row_of(store, "one")
    assert (row.draining, row.places, row.memory_mib) == (True, 9, 512)


def test_hosts_are_listed_with_what_open_runs_hold_of_them(
    store: Store, host: Callable[..., str], new_run: Callable[[], str]
) -> None:
    host("one")
    host("two", lease=GONE)
    going, ended = new_run(), new_run()
    with store.write() as session:
        for id, memory in ((going, 512), (ended, 1024)):
            placement.claim(session, session.get_one(RunRow, id), "one", memory)
        run = session.get_one(RunRow, ended)
        standing.move(session, run, RunStatus.FAILED, EventType.WORKFLOW_FAILED)

    with store.read() as session:
        shown, pagination = hosts.listed(session, PageQuery(limit=1, offset=1, cursor=None))
        newest, more = hosts.listed(session, PageQuery(limit=1, offset=0, cursor=None))

    assert [(each.id, each.used, each.used_memory_mib, each.living) for each in shown] == [
        ("one", 1, 512, True)
    ]
    assert [(each.id, each.used, each.living) for each in newest] == [("two", 0, False)]
    assert (pagination.total, pagination.has_more, more.has_more) == (2, False, True)


def test_an_unknown_host_cannot_be_drained(store: Store) -> None:
    with store.write() as session, pytest.raises(NotFoundError):
        hosts.set_draining(session, "nobody", True)
