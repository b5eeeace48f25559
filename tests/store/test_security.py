"""Security profiles: whose they are, where they hold, and that nothing slips from under one."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError as InvalidBody
from sqlmodel import select

from director.domain.errors import ConflictError, NotFoundError, ValidationError
from director.domain.lifetimes import SandboxEnd, SandboxStatus
from director.domain.networks import NetworkCreate, PolicyCreate
from director.domain.pages import PageQuery
from director.domain.policies import EffectivePolicy
from director.domain.sandboxes import SandboxInfo, SandboxNetwork, SandboxSpec
from director.domain.security import EnforceBody, Enforcement, Profile, ProfileCreate, ProfileUpdate
from director.domain.sessions import SessionCreate, SessionUpdate
from director.domain.users import Principal, Role
from director.store import enforcement, networks, sandboxes, security, sessions
from director.store.enforcement import Begun, ChangedError
from director.store.engine import Store
from director.store.tables import EnforcementRow, SandboxRow

ANN = Principal(user_id="usr_1", username="ann", role=Role.OPERATOR, login_id="lgn_1")
BEN = Principal(user_id="usr_2", username="ben", role=Role.OPERATOR, login_id="lgn_2")
ADMIN = Principal(user_id="usr_3", username="adm", role=Role.ADMIN, login_id="lgn_3")
INFO = SandboxInfo(id="x", image="i", resolved_image="i@1", created=True)


@pytest.fixture
def profile(store: Store) -> Callable[..., str]:
    def profile(who: Principal = ANN, **fields: Any) -> str:
        body = ProfileCreate.model_validate({"name": "p", "level": "low", **fields})
        with store.write() as session:
            return security.create(session, who, body).id

    return profile


@pytest.fixture
def parent(store: Store) -> Callable[..., str]:
    def parent(**fields: Any) -> str:
        body = SessionCreate.model_validate({"type": "a", "name": "s", **fields})
        with store.write() as session:
            return sessions.create(session, ANN, body).id

    return parent


@pytest.fixture(autouse=True)
def _host(host: Callable[..., str]) -> None:
    host("h", places=16, memory_mib=1 << 20)


def policy(store: Store, id: str) -> EffectivePolicy:
    with store.read() as session:
        return sandboxes.policy_of(session.get_one(SandboxRow, id))


def enforce(store: Store, policy_id: str, who: Principal = ANN, **body: Any) -> Begun:
    asked = EnforceBody.model_validate(body)
    with store.write() as session:
        return enforcement.begin(session, who, policy_id, asked)


def applied(answer: Enforcement) -> dict[str, list[str]]:
    return {each.sandbox_id: each.fields for each in answer.applied}


def test_a_profile_is_its_owner_s_and_the_admin_s(
    store: Store, profile: Callable[..., str], made: Callable[..., str]
) -> None:
    id = profile()
    with store.read() as session:
        assert security.get(session, ADMIN, id).name == "p"
        assert [one.id for one in security.listed(session, ANN, PageQuery())[0]] == [id]
        assert security.listed(session, BEN, PageQuery())[0] == []
        with pytest.raises(NotFoundError):
            security.get(session, BEN, id)
    with pytest.raises(NotFoundError):
        made(who=BEN, securityProfileId=id)
    body = SessionCreate(type="a", name="s", security_profile_id=id)
    with pytest.raises(NotFoundError), store.write() as session:
        sessions.create(session, BEN, body)


def test_constraints_win_over_the_level_and_are_merged_by_key(
    store: Store, profile: Callable[..., str]
) -> None:
    id = profile(level="high", constraints={"maxProcesses": 500, "allowNetwork": True})

    def changed(**fields: Any) -> Profile:
        with store.write() as session:
            body = ProfileUpdate.model_validate(fields)
            return security.update(session, ANN, id, body, None)

    first = changed(name="q").policy
    assert (first.max_processes, first.allow_network, first.max_open_files) == (500, True, 1024)
    second = changed(constraints={"maxProcesses": None, "maxOpenFiles": 50})
    assert second.constraints.model_dump(exclude_none=True) == {
        "allowNetwork": True,
        "maxOpenFiles": 50,
    }
    assert second.policy.max_processes == 128
    assert changed(level="critical").policy.max_processes == 32


def test_the_strictest_of_profile_session_and_inline_counts(
    store: Store,
    profile: Callable[..., str],
    parent: Callable[..., str],
    made: Callable[..., str],
) -> None:
    of_session = profile(constraints={"maxProcesses": 10}, resourceLimits={"memory": 100})
    own = profile(constraints={"readOnlyRoot": True}, resourceLimits={"cpu": 0.5})
    id = made(
        sessionId=parent(securityProfileId=of_session),
        securityProfileId=own,
        securityPolicy={"maxProcesses": 20, "allowExec": False, "readOnlyRoot": False},
        resourceLimits={"memory": 1000, "cpu": 0.25},
    )
    found = policy(store, id)
    assert (found.resource_limits.memory, found.resource_limits.cpu) == (100, 0.25)
    assert found.security_policy.max_processes == 10
    assert found.security_policy.read_only_root is True
    assert found.security_policy.allow_exec is False
    with store.read() as session:
        row = session.get_one(SandboxRow, id)
        assert (row.memory_mib, sandboxes.view(session, row).security_profile_id) == (100, own)


def test_a_profile_that_somebody_is_under_is_not_deleted(
    store: Store,
    profile: Callable[..., str],
    parent: Callable[..., str],
    made: Callable[..., str],
) -> None:
    id = profile()
    session_id, sandbox_id = parent(securityProfileId=id), made(securityProfileId=id)
    other = made()
    enforce(store, id, scope={"sandboxId": other})

    def delete() -> None:
        with store.write() as session:
            security.delete(session, ANN, id, None)

    with pytest.raises(ConflictError) as refused:
        delete()
    assert sorted(refused.value.details["sandboxes"]) == sorted([sandbox_id, other])
    assert refused.value.details["sessions"] == [session_id]
    for gone in (sandbox_id, other):
        with store.write() as session:
            end = SandboxEnd(sandbox_id=gone, status=SandboxStatus.FAILED)
            sandboxes.settle(session, end)
    with pytest.raises(ConflictError):
        delete()
    with store.write() as session:
        body = SessionUpdate.model_validate({"securityProfileId": None})
        assert sessions.update(session, ANN, session_id, body, None).security_profile_id is None
    delete()
    with pytest.raises(NotFoundError):
        delete()


def test_a_session_means_its_sandboxes_now_and_later(
    store: Store,
    profile: Callable[..., str],
    parent: Callable[..., str],
    made: Callable[..., str],
    running: Callable[..., str],
) -> None:
    strict = profile(resourceLimits={"memory": 64}, constraints={"readOnlyRoot": True})
    session_id = parent()
    waiting, works = made(sessionId=session_id), running(sessionId=session_id)
    elsewhere = made()
    begun = enforce(store, strict, scope={"sessionId": session_id})
    assert applied(begun.answer) == {waiting: ["memory", "readOnlyRoot"]}
    assert [(asked.sandbox_id, host_id) for asked, host_id in begun.asked] == [(works, "h")]
    later = made(sessionId=session_id, resourceLimits={"memory": 512})
    for id in (waiting, later):
        assert policy(store, id).resource_limits.memory == 64
        assert policy(store, id).security_policy.read_only_root is True
    assert policy(store, elsewhere).resource_limits.memory == 2048
    with store.write() as session:
        row = session.get_one(SandboxRow, works)
        tight = enforcement.wanted(session, row, strict)
        assert (tight.live, tight.rest) == (["memory"], ["readOnlyRoot"])
        enforcement.apply(session, row, strict, tight.now)
    assert policy(store, works).resource_limits.memory == 64
    assert policy(store, works).security_policy.read_only_root is False


def test_two_who_enforce_at_once_do_not_undo_each_other(
    store: Store, profile: Callable[..., str], running: Callable[..., str]
) -> None:
    one = profile(resourceLimits={"memory": 64})
    other = profile(resourceLimits={"cpu": 0.1})
    id = running()
    with store.read() as session:
        seen = session.get_one(SandboxRow, id)
        first, second = (enforcement.wanted(session, seen, each) for each in (one, other))
    with store.write() as session:
        enforcement.apply(session, seen, one, first.now)
    with pytest.raises(ChangedError), store.write() as session:
        enforcement.apply(session, seen, other, second.now)
    assert policy(store, id).resource_limits.memory == 64


def test_a_scope_is_never_empty_and_both_mean_a_sandbox_of_that_session(
    store: Store, profile: Callable[..., str], parent: Callable[..., str], made: Callable[..., str]
) -> None:
    id, session_id = profile(), parent()
    inside, outside = made(sessionId=session_id), made()
    with pytest.raises(InvalidBody, match="is empty"):
        enforce(store, id, scope={})
    both = {"sessionId": session_id, "sandboxId": inside}
    assert list(applied(enforce(store, id, scope=both).answer)) == [inside]
    with pytest.raises(ValidationError, match="is not in session"):
        enforce(store, id, scope={**both, "sandboxId": outside})
    for who, scope in ((BEN, both), (ANN, {"sandboxId": "sbx_123"}), (ANN, {"sessionId": "x"})):
        with pytest.raises(NotFoundError):
            enforce(store, id, who, scope=scope)
    with store.write() as session:
        end = SandboxEnd(sandbox_id=inside, status=SandboxStatus.EXPIRED)
        sandboxes.settle(session, end)
    with pytest.raises(ConflictError, match="nothing runs"):
        enforce(store, id, scope=both)


def test_a_network_s_policy_in_a_session_keeps_its_sandboxes_from_other_networks(
    store: Store, parent: Callable[..., str], made: Callable[..., str]
) -> None:
    session_id = parent()
    inside = made(sessionId=session_id)
    with store.write() as session:
        network = networks.create(session, ANN, NetworkCreate(name="n"))
        body = PolicyCreate.model_validate({"name": "p", "outbound": [{"action": "deny"}]})
        added, _ = networks.put_policy(session, ANN, network.id, body)
    begun = enforce(store, added.id, scope={"sessionId": session_id})
    assert applied(begun.answer) == {inside: []}
    assert begun.network is not None
    assert begun.network.id == network.id
    with store.read() as session:
        for mode in ("none", "isolated", network.id):
            security.check_network(session, session_id, mode)
        security.check_network(session, None, "bridge")
        for mode in ("bridge", "net_other"):
            with pytest.raises(ConflictError, match="is enforced in session"):
                security.check_network(session, session_id, mode)
    with pytest.raises(NotFoundError):
        enforce(store, added.id, BEN, scope={"sessionId": session_id})


def test_a_network_s_policy_that_was_deleted_lets_nobody_out_that_it_kept_in(
    store: Store, parent: Callable[..., str]
) -> None:
    session_id = parent()
    with store.write() as session:
        network = networks.create(session, ANN, NetworkCreate(name="n"))
        body = PolicyCreate.model_validate({"name": "p", "outbound": [{"action": "deny"}]})
        added, _ = networks.put_policy(session, ANN, network.id, body)
    enforce(store, added.id, scope={"sessionId": session_id})
    with store.write() as session:
        networks.delete_policy(session, ANN, network.id, added.id)
    with store.read() as session:
        security.check_network(session, session_id, "isolated")
        for mode in ("bridge", network.id):
            with pytest.raises(ConflictError, match="which is gone"):
                security.check_network(session, session_id, mode)


def test_a_profile_that_was_made_stricter_and_enforced_again_is_left_to_do_again(
    store: Store,
    profile: Callable[..., str],
    parent: Callable[..., str],
    running: Callable[..., str],
) -> None:
    strict, session_id = profile(resourceLimits={"memory": 512}), parent()
    works = running(sessionId=session_id)

    def bring() -> None:
        with store.write() as session:
            row = session.get_one(SandboxRow, works)
            tight = enforcement.wanted(session, row, strict)
            enforcement.apply(session, row, strict, tight.now)

    def left() -> list[tuple[str, str]]:
        with store.read() as session:
            return enforcement.left(session, "h")

    enforce(store, strict, scope={"sessionId": session_id})
    assert left() == [(works, strict)]
    bring()
    assert left() == []
    body = ProfileUpdate.model_validate({"resourceLimits": {"memory": 64}})
    with store.write() as session:
        security.update(session, ANN, strict, body, None)
    enforce(store, strict, scope={"sessionId": session_id})
    assert left() == [(works, strict)]
    bring()
    assert left() == []
    assert policy(store, works).resource_limits.memory == 64


def test_a_sandbox_that_may_have_no_network_any_more_is_in_none(
    store: Store, profile: Callable[..., str], made: Callable[..., str]
) -> None:
    with store.write() as session:
        network = networks.create(session, ANN, NetworkCreate(name="n"))
    id = made(networkMode=network.id)
    forbids = profile(constraints={"allowNetwork": False})
    enforce(store, forbids, scope={"sandboxId": id})
    with store.read() as session:
        row = session.get_one(SandboxRow, id)
        assert (row.network_mode, row.network_id) == ("none", None)
    named = SandboxNetwork(name="n")
    spec = SandboxSpec(id=id, image="i", owner_id=id, network=named)
    assert spec.under(policy(store, id)).network is None


def test_what_was_enforced_is_forgotten_with_whatever_it_was_enforced_on(
    store: Store,
    profile: Callable[..., str],
    parent: Callable[..., str],
    running: Callable[..., str],
) -> None:
    strict, kept, gone = profile(), parent(), parent()
    works, inside, ended = running(), running(sessionId=gone), running(sessionId=kept)
    for scope in ({"sessionId": kept}, {"sessionId": gone}):
        enforce(store, strict, scope=scope)
    for id in (works, inside, ended):
        with store.write() as session:
            row = session.get_one(SandboxRow, id)
            enforcement.apply(session, row, strict, sandboxes.policy_of(row))

    def end(id: str) -> None:
        with store.write() as session:
            end = SandboxEnd(sandbox_id=id, status=SandboxStatus.EXPIRED)
            sandboxes.settle(session, end)

    def left() -> set[str]:
        with store.write() as session:
            while enforcement.purge(session, 1):
                pass
            return set(session.exec(select(EnforcementRow.subject)))

    end(ended)
    with store.write() as session:
        sessions.delete(session, ANN, gone, None, force=True)
        sandboxes.want_delete_all(session, gone)
    assert left() == {kept, gone, works, inside}, "nothing slips through while it ends"
    end(inside)
    assert left() == {kept, works}
