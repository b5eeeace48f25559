"""What a worker remembers of the checkpoints it took, and what it does while blobs are away."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session, update

from director.activities import checkpoints as activities
from director.activities.checkpoints import Previous
from director.activities.steps import _ended_by
from director.blobs.captures import Captured, capture
from director.blobs.store import LocalBlobs
from director.domain.errors import UnavailableError
from director.domain.sessions import SessionCreate
from director.domain.times import utc_now
from director.domain.users import Principal, Role
from director.store import blobs, sessions
from director.store.engine import Store
from director.store.tables import BlobRow, CheckpointRow

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")


@pytest.fixture
def captured(tmp_path: Path) -> Captured:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("a")
    return capture(source, LocalBlobs(tmp_path / "blobs", fsync=False))


def checkpoint(session: Session, id: str) -> None:
    parent = sessions.create(session, ADA, SessionCreate(type="a", name="s")).id
    session.add(CheckpointRow(id=id, session_id=parent, owner_id="usr_ada", name="c"))


def test_a_capture_is_gone_on_from_only_while_its_blobs_stay(
    store: Store, captured: Captured
) -> None:
    previous = Previous()
    assert previous.get(store, "sbx_1") is None
    previous.keep("sbx_1", "ckp_1", captured)
    assert previous.get(store, "sbx_1") is None, "its checkpoint is gone"
    with store.write() as session:
        checkpoint(session, "ckp_1")
        blobs.touch(session, captured.tree.blobs.items())
        session.flush()
        session.exec(update(BlobRow).values(touched_at=utc_now() - timedelta(days=9)))
    assert previous.get(store, "sbx_1") is captured
    with store.read() as session:
        assert blobs.unused(session, utc_now() - timedelta(days=1), 10) == []


def test_captures_that_were_made_longest_ago_are_forgotten_first(
    store: Store, captured: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activities, "_ENTRIES", 2)
    with store.write() as session:
        checkpoint(session, "ckp_1")
    previous = Previous()
    for number in (1, 2, 3):
        previous.keep(f"sbx_{number}", "ckp_1", captured)
    remembered = [previous.get(store, f"sbx_{number}") is not None for number in (1, 2, 3)]
    assert remembered == [False, True, True]


def test_a_step_waits_for_blobs_that_are_away() -> None:
    """Temporal tries an activity again that raises this."""
    with pytest.raises(UnavailableError):
        _ended_by(None, UnavailableError("the blob store is away"))  # type: ignore[arg-type]
