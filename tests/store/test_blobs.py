"""Blobs that nothing needs go a day after anybody has touched them; others stay, whoever does what
at the same moment, on both databases."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from sqlmodel import col, select, update

from director.activities.collection import Collection
from director.blobs.captures import capture
from director.blobs.store import LocalBlobs, get_tree, put_tree
from director.blobs.touched import TouchedBlobs
from director.domain.checkpoints import Manifest, Part
from director.domain.sessions import SessionCreate
from director.domain.times import utc_now
from director.domain.trees import Tree
from director.domain.users import Principal, Role
from director.store import blobs as rows
from director.store import checkpoints, outputs, sessions
from director.store.engine import Store
from director.store.tables import BlobLinkRow, BlobRow, CheckpointRow, OutputRow

ADA = Principal(user_id="usr_ada", username="ada", role=Role.OPERATOR, login_id="lgn_1")
NONE = timedelta(0)


class Kept:
    """A database and blobs, with a writer's and a collector's view of them."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.local = LocalBlobs(folder / "blobs", fsync=False)
        self.blobs = TouchedBlobs(self.local, partial(rows.touch_now, store))

    def collect(self, age: timedelta = timedelta(hours=24)) -> None:
        assert Collection(self.store, self.blobs, age).collect_for(30)

    def age(self) -> None:
        """Let two days pass for every blob."""
        with self.store.write() as session:
            session.exec(update(BlobRow).values(touched_at=utc_now() - timedelta(days=2)))

    def tree(self, text: str) -> Tree:
        source = self.folder / text
        source.mkdir()
        (source / "a").write_text(text)
        (source / "b").write_text(text * 2)
        return capture(source, self.blobs).tree

    def checkpoint(self, tree: Tree, id: str) -> str:
        hash = put_tree(self.blobs, tree)
        state = self.blobs.put(b"{}")
        manifest = Manifest(filesystem=Part(hash=hash, bytes=1), state=Part(hash=state, bytes=2))
        with self.store.write() as session:
            parent = sessions.create(session, ADA, SessionCreate(type="a", name="s")).id
            session.add(CheckpointRow(id=id, session_id=parent, owner_id="usr_ada", name="c"))
            session.flush()
            rows.hold(session, hash, tree.blobs)
            checkpoints.finish(session, id, manifest, [])
        return hash


@pytest.fixture
def kept(store: Store, tmp_path: Path) -> Kept:
    return Kept(store, tmp_path)


def test_what_a_checkpoint_names_stays_and_goes_with_it(kept: Kept) -> None:
    first, second = kept.tree("first"), kept.tree("second")
    hash = kept.checkpoint(first, "ckp_1")
    kept.age()
    kept.collect()
    assert get_tree(kept.blobs, hash) == first
    assert all(kept.blobs.exists(blob) for blob in first.blobs)
    assert not any(kept.blobs.exists(blob) for blob in second.blobs), "nothing names them"
    with kept.store.write() as session:
        rows.release(session, "ckp_1")
    kept.collect()
    assert not kept.blobs.exists(hash)
    assert list(kept.local.names(timedelta(seconds=-60))) == []
    with kept.store.read() as session:
        assert list(session.exec(select(BlobRow))) == list(session.exec(select(BlobLinkRow))) == []


def test_what_two_trees_share_stays_for_the_other(kept: Kept) -> None:
    tree = kept.tree("shared")
    kept.checkpoint(tree, "ckp_1")
    fewer = Tree.of(tree.entries[:1], tree.sizes)
    other = kept.checkpoint(fewer, "ckp_2")
    kept.age()
    with kept.store.write() as session:
        rows.release(session, "ckp_1")
    kept.collect()
    assert get_tree(kept.blobs, other) == fewer
    assert all(kept.blobs.exists(blob) for blob in fewer.blobs)


def test_what_an_output_names_stays(kept: Kept) -> None:
    hash = kept.blobs.put(b"said" * 1000)
    row = OutputRow(run_id="run_1", step=0, attempt=1, stream="stdout", offset=0, size=4000)
    row.hash = hash
    with kept.store.write() as session:
        outputs.append(session, row)
    kept.age()
    kept.collect()
    assert kept.blobs.exists(hash)


def test_what_was_touched_not_long_ago_stays(kept: Kept) -> None:
    hash = kept.blobs.put(b"to be named soon")
    kept.collect()
    assert kept.blobs.exists(hash)


def test_a_blob_without_a_row_is_found_and_goes_a_day_later(kept: Kept) -> None:
    hash = kept.local.put(b"its writer was killed")
    collection = Collection(kept.store, kept.blobs, NONE, listing=NONE)
    collection._adopt()
    with kept.store.read() as session:
        assert [row.hash for row in session.exec(select(BlobRow))] == [hash]
    kept.collect()
    assert kept.blobs.exists(hash)
    kept.age()
    kept.collect()
    assert not kept.blobs.exists(hash)


def test_a_writer_that_meets_collection_has_its_blob_afterwards(kept: Kept, url: str) -> None:
    """The writer comes while the blob, unused till now, is being removed."""
    hash = kept.blobs.put(b"content")
    kept.age()
    other = Store(url)
    try:
        with ThreadPoolExecutor(1) as pool:
            with kept.store.write() as session:
                assert rows.drop(session, hash, utc_now())
                theirs = TouchedBlobs(kept.local, partial(rows.touch_now, other))
                writing = pool.submit(theirs.put, b"content")
                with pytest.raises(TimeoutError):
                    writing.result(0.2)
                kept.local.delete(hash)
            assert writing.result(30) == hash
    finally:
        other.close()
    assert kept.blobs.get(hash) == b"content"
    with kept.store.read() as session:
        assert session.get(BlobRow, hash) is not None


def test_a_blob_that_is_touched_before_it_is_removed_stays(kept: Kept) -> None:
    hash = kept.blobs.put(b"content")
    kept.age()
    with kept.store.read() as session:
        assert rows.unused(session, utc_now(), 10) == [hash]
    rows.touch_now(kept.store, {hash: 7})
    with kept.store.write() as session:
        assert not rows.drop(session, hash, utc_now() - timedelta(hours=1))


@pytest.fixture
def stores(url: str) -> Iterator[list[Store]]:
    found = [Store(url) for _ in range(2)]
    yield found
    for one in found:
        one.close()


def test_collection_races_writers_of_checkpoints_and_none_loses_a_blob(
    kept: Kept, stores: list[Store]
) -> None:
    """Each writes the same few contents again and again, as checkpoints of a folder do, and lets
    the former ones go, while all is removed that was touched last before they have begun."""
    stop = threading.Event()
    collector = Collection(stores[0], kept.local)
    began = [utc_now()] * 2
    sources = [kept.folder / f"source-{number}" for number in range(3)]
    for source in sources:
        source.mkdir()
        (source / "a").write_text(source.name)

    def collect() -> int:
        removed = 0
        while not stop.is_set():
            collector.age = utc_now() - min(began)
            with collector.store.read() as session:
                found = rows.unused(session, utc_now() - collector.age, 100)
            removed += sum(collector._remove(hash) for hash in found)
        return removed

    def write(number: int) -> None:
        store = stores[1]
        blobs = TouchedBlobs(kept.local, partial(rows.touch_now, store))
        for turn in range(40):
            began[number] = utc_now()
            tree = capture(sources[(number + turn) % 3], blobs).tree
            hash = put_tree(blobs, tree)
            with store.write() as session:
                rows.release(session, f"ckp_{number}")
                rows.hold(session, hash, tree.blobs)
                rows.hold(session, f"ckp_{number}", {hash: 1})
            assert get_tree(kept.local, hash) == tree
            assert all(kept.local.exists(blob) for blob in tree.blobs)

    with ThreadPoolExecutor(3) as pool:
        removing = pool.submit(collect)
        try:
            list(pool.map(write, range(2)))
        finally:
            stop.set()
        assert removing.result(30) > 0, "they have met"
    with kept.store.read() as session:
        named = session.exec(select(col(BlobLinkRow.blob)))
        assert all(kept.local.exists(blob) for blob in set(named))
