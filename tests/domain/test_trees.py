import hashlib
import json

import pytest

from director.domain.manifests import manifest, parse
from director.domain.trees import (
    HOLE,
    Entry,
    PathError,
    Piece,
    Tree,
    TreeError,
    merge,
    normalise,
)

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


def test_names_that_are_not_utf8_survive_the_manifest() -> None:
    tree = Tree.of([file(b"caf\xe9"), Entry.symlink(b"link", b"caf\xe9", 1), file("café".encode())])
    again = parse(manifest(tree))
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


def test_the_hash_of_a_tree_says_nothing_of_where_its_files_lie() -> None:
    packed = file(b"a")._replace(size=3, pieces=(Piece("f" * 64, 9, 3),))
    whole = packed._replace(pieces=())
    assert Tree.of([packed], {"f" * 64: 20}).hash == Tree.of([whole]).hash
    assert Tree.of([packed], {"f" * 64: 20}).blobs == {"f" * 64: 20}
    assert Tree.of([whole]).blobs == {HASH: 3}


def test_the_manifest_of_a_tree_is_fixed_for_ever() -> None:
    pieces = (Piece("f" * 64, 9, 3), Piece(HOLE, 0, 4))
    sparse = Entry.file(b"b", 0o600, -1, 7, HASH)._replace(pieces=pieces)
    entries = [file(b"a"), sparse, Entry.directory(b"d", 0o755, 5), Entry.symlink(b"l", b"a", 6)]
    tree = Tree.of(entries, {"f" * 64: 20, "e" * 64: 1})
    assert manifest(tree) == (
        b'{"blobs":[["' + b"f" * 64 + b'",20]],"entries":[["file","a",420,0,0,"' + HASH.encode()
        + b'"],["file","b",384,-1,7,"' + HASH.encode() + b'",[0,9,3],[-1,0,4]],'
        b'["directory","d",493,5],["symlink","l",511,6,"a"]],"version":1}'
    )  # fmt: skip
    assert parse(manifest(tree)) == tree


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
    with pytest.raises(TreeError):
        Tree.of(entries)


DANGEROUS = [
    *(["file", path, 420, 0, 0, HASH] for path in ("../a", "/a", "", ".", "a//b", "a/", "a/../b")),
    *(["file", path, 420, 0, 0, HASH] for path in ("a\0b", "x" * 256, "x/" * 200 + "x")),
    ["file", "a", 0o4755, 0, 0, HASH],
    ["file", "a", 420, 0, -1, HASH],
    ["file", "a", 420, 0, 0, "../../etc"],
    ["file", "a", 420, 0, 0, None],
    ["file", "a", 420, 0, 3, HASH, [0, 0, 2]],
    ["file", "a", 420, 0, 3, HASH, [0, 18, 3]],
    ["file", "a", 420, 0, 3, HASH, [0, -1, 3]],
    ["file", "a", 420, 0, 3, HASH, [1, 0, 3]],
    ["file", "a", 420.5, 0, 0, HASH],
    ["symlink", "a", 511, 0, ""],
    ["symlink", "a", 511, 0, "a\0b"],
    ["directory", "a", 493, 2**63],
    ["directory", "a", 493, 0, "more"],
    ["fifo", "a", 420, 0],
    [],
    "file",
]


@pytest.mark.parametrize("entry", DANGEROUS, ids=str)
def test_a_manifest_with_a_dangerous_entry_is_refused(entry: object) -> None:
    told = {"blobs": [["f" * 64, 20]], "entries": [entry], "version": 1}
    with pytest.raises(TreeError):
        parse(json.dumps(told).encode())


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"version": 2}', '{"version": 1}'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(TreeError):
        parse(text.encode())


def test_the_later_tree_wins() -> None:
    first = Tree.of([file(b"a/x"), file(b"b"), file(b"c", 0o600), Entry.directory(b"e", 0o700, 0)])
    second = Tree.of([file(b"a"), file(b"b/y"), file(b"c", 0o755), file(b"e/z")])
    merged = merge([first, second])
    assert paths(merged) == [b"a", b"b/y", b"c", b"e", b"e/z"]
    assert merged.entries[2].mode == 0o755


def test_merging_nothing_gives_the_empty_tree() -> None:
    assert merge([]) == Tree()
