"""Hosts that are given up, and sandboxes that end without theirs."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from director.domain.errors import ConflictError, HostAwayError, NotFoundError
from director.domain.lifetimes import ExecuteBody, SandboxStatus
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.store import away, hosts, losses, placement, sandboxes, tickets
from director.store.engine import Store
from director.store.placement import Claim, Decision
from director.store.tables import HostRow, RunRow, SandboxRow

ANN = Principal(user_id="usr_1", username="ann", role=Role.OPERATOR, login_id="lgn_1")


def leave(store: Store, id: str) -> None:
    """Let the lease of a host run out."""
    with store.write() as session:
        row = session.get_one(HostRow, id)
        row.lease_until = utc_now() - timedelta(seconds=1)
        session.add(row)


def row_of(store: Store, id: str) -> SandboxRow:
    with store.read() as session:
        return session.get_one(SandboxRow, id)


def test_a_host_that_lives_or_that_nobody_knows_is_not_given_up(
    store: Store, host: Callable[..., str]
) -> None:
    host("h")
    with store.write() as session, pytest.raises(ConflictError, match="lives"):
        losses.forget(session, "h")
    with store.write() as session, pytest.raises(NotFoundError):
        losses.forget(session, "nobody")


def test_a_host_that_is_given_up_gives_its_places_to_those_who_wait(
    store: Store, host: Callable[..., str], made: Callable[..., str], running: Callable[..., str]
) -> None:
    host("h", places=1)
    lost, waiting = running(), made()
    with store.write() as session:
        assert sandboxes.take_place(session, waiting, "h").state == "queued"
    leave(store, "h")
    host("other", places=1)
    with store.write() as session:
        assert tickets.grant_places(session, hosts.total_places(session)) == [waiting]
    late = made()
    with store.write() as session:
        assert sandboxes.take_place(session, late, "other").state == "queued"

    with store.write() as session:
        forgotten = losses.forget(session, "h")

    assert (forgotten.sandboxes, forgotten.runs) == ([lost], [])
    row = row_of(store, lost)
    assert (row.status, row.host_id, row.sandbox_epoch) == ("failed", None, 1)
    with store.write() as session:
        assert placement.is_displaced(row, "h", 0)
        sandboxes.check_quota(session, ANN.user_id, 2)


def test_what_was_still_being_made_there_is_made_elsewhere(
    store: Store, host: Callable[..., str], made: Callable[..., str]
) -> None:
    host("h")
    id = made()
    with store.write() as session:
        sandboxes.take_place(session, id, "h")
        placement.claim(session, session.get_one(SandboxRow, id), "h", 1)
    leave(store, "h")
    host("other")

    with store.write() as session:
        assert losses.forget(session, "h").sandboxes == []
    with store.write() as session:
        assert sandboxes.take_place(session, id, "other").state == "held"
        row = session.get_one(SandboxRow, id)
        assert placement.claim(session, row, "other", 1) is Claim.MINE


def test_a_run_is_lost_with_a_host_that_is_given_up_though_no_other_has_room(
    store: Store, host: Callable[..., str], new_run: Callable[[], str]
) -> None:
    host("h")
    id = new_run()
    with store.write() as session:
        placement.claim(session, session.get_one(RunRow, id), "h", 1)
    leave(store, "h")
    with store.write() as session:
        assert placement.decide(session, session.get_one(RunRow, id)) is Decision.WAIT
        assert losses.forget(session, "h").runs == [id]
    with store.write() as session:
        assert placement.decide(session, session.get_one(RunRow, id)) is Decision.LOST


def test_what_is_asked_of_a_sandbox_whose_host_is_away_is_refused_and_not_written(
    store: Store, host: Callable[..., str], running: Callable[..., str]
) -> None:
    host("h")
    id = running()
    leave(store, "h")
    with store.write() as session, pytest.raises(HostAwayError, match="does not answer since"):
        sandboxes.execute(session, ANN, id, ExecuteBody(command="x"))
    with store.read() as session:
        shown = sandboxes.view(session, session.get_one(SandboxRow, id))
    assert shown.host is not None
    assert (shown.host.id, shown.host.reachable) == ("h", False)


def test_only_force_ends_a_sandbox_before_its_host_is_back_and_only_while_that_is_away(
    store: Store, host: Callable[..., str], running: Callable[..., str]
) -> None:
    host("h")
    id = running()

    def ended() -> SandboxStatus:
        with store.write() as session:
            row = sandboxes.locked(session, ANN, id, ending=True)
            sandboxes.want_delete(session, row)
            losses.end_without_host(session, row)
            return SandboxStatus(row.status)

    assert ended() is SandboxStatus.RUNNING
    leave(store, "h")
    with store.read() as session:
        assert not away.is_reachable(session, session.get_one(SandboxRow, id))
    assert ended() is SandboxStatus.DELETED
    with pytest.raises(NotFoundError):
        ended()
