import hashlib

import pytest
from pydantic import ValidationError

from director.domain.trees import Entry, PathError, Tree, merge, normalise

HASH = hashlib.sha256(b"").hexdigest()


def file(path: bytes, mode: int = 0o644, hash: str = HASH) -> Entry:
    return Entry.file(path, mode, 0, 0, hash)


def paths(tree: Tree) -> list[bytes]:
    return [entry.raw_path for entry in tree.entries]


@pytest.mark.parametrize(
    ("raw", "path"),
    [(b"./a//b/", b"a/b"), (b"a/./b/../c", b"a/c"), (b".", b""), (b"\xff/a", b"\xff/a")],
)
def test_a_path_is_resolved_without_a_disk(raw: bytes, path: bytes) -> None:
    assert normalise(raw) == path


@pytest.mark.parametrize(
    "raw",
    [b"/etc", b"..", b"a/../../b", b"a\0b", b"x" * 256, b"a/" * 300, b"/".join([b"x" * 250] * 20)],
)
def test_a_path_that_linux_or_the_root_cannot_hold_is_refused(raw: bytes) -> None:
    with pytest.raises(PathError):
        normalise(raw)


def test_names_that_are_not_utf8_survive_json() -> None:
    tree = Tree.of([file(b"caf\xe9"), Entry.symlink(b"link", b"caf\xe9", 1), file("café".encode())])
    again = Tree.model_validate_json(tree.canonical_json())
    assert again == tree
    assert paths(again) == [b"caf\xc3\xa9", b"caf\xe9", b"link"]
    assert again.entries[2].raw_target == b"caf\xe9"
    assert again.entries[1].path == "caf\ufffd"


def test_a_name_is_not_normalised_to_another_spelling() -> None:
    composed, decomposed = "é".encode(), "e\u0301".encode()
    assert paths(Tree.of([file(composed), file(decomposed)])) == [decomposed, composed]


def test_only_permission_bits_are_kept() -> None:
    assert file(b"a", 0o106755).mode == 0o755
    assert Entry.directory(b"d", 0o41777, 0).mode == 0o777


def test_equal_trees_have_equal_hashes_in_whatever_order_they_came() -> None:
    entries = [file(b"a"), Entry.directory(b"d", 0o755, 5), file(b"d/x")]
    assert Tree.of(entries).hash == Tree.of(reversed(entries)).hash
    assert Tree.of(entries).hash != Tree.of([*entries[:2], file(b"d/x", 0o600)]).hash


def test_the_hash_of_a_tree_is_fixed_for_ever() -> None:
    tree = Tree.of([file(b"a")])
    assert tree.canonical_json() == (
        b'{"entries":[{"hash":"' + HASH.encode() + b'","kind":"file","mode":420,"mtimeNs":0,'
        b'"path":"a","size":0}],"version":1}'
    )
    assert tree.hash == hashlib.sha256(tree.canonical_json()).hexdigest()


def test_a_tree_counts_its_files() -> None:
    tree = Tree.of([Entry.file(b"a", 0, 0, 7, HASH), Entry.directory(b"d", 0o755, 0)])
    assert (tree.file_count, tree.total_bytes) == (1, 7)


@pytest.mark.parametrize(
    "entries",
    [
        [file(b"a"), file(b"a")],
        [file(b"a"), file(b"a/b")],
        [Entry.symlink(b"a", b"/etc", 0), file(b"a.x"), file(b"a/b/c")],
    ],
)
def test_a_tree_that_contradicts_itself_is_refused(entries: list[Entry]) -> None:
    with pytest.raises(ValidationError):
        Tree.of(entries)


@pytest.mark.parametrize(
    "change",
    [{"path": "../a"}, {"path": "/a"}, {"path": ""}, {"mode": 0o4755}, {"hash": None},
     {"hash": "../../etc"}, {"target": "b"}, {"kind": "symlink"}, {"path_bytes": "Li4v"}],
)  # fmt: skip
def test_a_manifest_with_a_dangerous_entry_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Entry.model_validate({**file(b"a").model_dump(by_alias=False), **change})


def test_the_later_tree_wins() -> None:
    first = Tree.of([file(b"a/x"), file(b"b"), file(b"c", 0o600), Entry.directory(b"e", 0o700, 0)])
    second = Tree.of([file(b"a"), file(b"b/y"), file(b"c", 0o755), file(b"e/z")])
    merged = merge([first, second])
    assert paths(merged) == [b"a", b"b/y", b"c", b"e", b"e/z"]
    assert merged.entries[2].mode == 0o755


def test_merging_nothing_gives_the_empty_tree() -> None:
    assert merge([]) == Tree()
