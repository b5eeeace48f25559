"""Which repositories may be asked for; what is refused says why, and never repeats a password."""

import subprocess
from typing import Any

import pytest
from pydantic import ValidationError

from director.domain.archives import WorkspaceSource
from director.domain.git import GitSource

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def source(url: str = "https://git.example.com/a.git", **fields: Any) -> GitSource:
    return GitSource.model_validate({"url": url, **fields})


@pytest.mark.parametrize(
    ("url", "kept", "host", "port"),
    [
        ("https://git.example.com/a/b.git", None, "git.example.com", 443),
        ("https://Git.Example.com/A.git", "https://git.example.com/A.git", "git.example.com", 443),
        ("HTTPS://a.example:443/b", "https://a.example/b", "a.example", 443),
        ("https://a.example.:8443/b", "https://a.example:8443/b", "a.example", 8443),
        ("https://198.51.100.7/~me/b%20c.git", None, "198.51.100.7", 443),
        ("https://a.example/x@y", None, "a.example", 443),
    ],
)
def test_a_url_is_kept_as_it_is_connected_to(
    url: str, kept: str | None, host: str, port: int
) -> None:
    found = source(url)
    assert (found.url, found.host, found.port) == (kept or url, host, port)
    assert source(found.url) == found


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://a.example/b", "https"),
        ("ssh://a.example/b", "https"),
        ("git@a.example:b.git", "https"),
        ("/etc", "https"),
        ("ext::sh -c id", "printable"),
        ("https://ann:canary77@a.example/b", "must not name a user"),
        ("https://canary77@a.example/b", "must not name a user"),
        ("https://a.example/b?token=canary77", "query"),
        ("https://a.example/b#canary77", "fragment"),
        ("https://a.example/b?", "query"),
        ("https://a.example", "path"),
        ("https://a.example/", "path"),
        ("https://a.example/b|c", "path"),
        ("https:///b", "host"),
        ("https://a_b!/b", "host"),
        ("https://-a/b", "host"),
        ("https://127.1/b", "host"),
        ("https://[::1]/b", "IPv4 only"),
        ("https://[::1/b", "no URL"),
        ("https://a.example:0/b", "port"),
        ("https://a.example:65536/b", "port"),
        ("https://a.example:x/b", "port"),
        ("https://a.example/b\n", "printable"),
        ("https://a.example/b c", "printable"),
        ("https://a.example\\@b.example/c", "printable"),
        ("https://bücher.example/b", "xn--"),
        ("https://a.example/" + "b" * 2000, "2000"),
    ],
)
def test_a_url_that_is_not_taken_says_why_and_is_not_repeated(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as raised:
        source(url)
    (problem,) = raised.value.errors()
    assert problem["loc"] == ("url",)
    assert "canary77" not in problem["msg"]


REFS = ["main", "v1.0", "feature/a-b", "refs/pull/7/head", "ü", "a.b", "@a", "HEAD", COMMIT]
NO_REFS = [
    *("", "-b", "--upload-pack=id", "a..b", "a b", "a\nb", "a\x7f", "a~1", "a^", "a:b", "a?", "a*"),
    *("a[", "a\\b", "/a", "a/", "a//b", ".a", "a/.b", "a.lock", "a.lock/b", "a.", "@", "a@{1}"),
]


@pytest.mark.parametrize("ref", REFS)
def test_a_ref_is_taken_as_git_takes_it(ref: str) -> None:
    assert source(ref=ref).ref == ref
    assert _git_takes(ref)


@pytest.mark.parametrize("ref", NO_REFS)
def test_what_git_takes_for_no_ref_is_refused(ref: str) -> None:
    with pytest.raises(ValidationError, match="as git has them"):
        source(ref=ref)
    assert ref.startswith("-") or ref == "@" or not _git_takes(ref)


def _git_takes(ref: str) -> bool:
    command = ["git", "check-ref-format", f"refs/heads/{ref}"]
    return subprocess.run(command, check=False).returncode == 0


def test_a_commit_and_a_whole_ref_are_told_from_a_name() -> None:
    exact = {ref: source(ref=ref).exact for ref in ("main", "refs/heads/main", COMMIT, COMMIT[:7])}
    assert list(exact.values()) == [False, True, True, False]
    assert source(ref=COMMIT.upper()).ref == COMMIT


def test_a_repository_does_not_stand_beside_an_archive_but_below_files() -> None:
    git = {"url": "https://a.example/b"}
    WorkspaceSource.model_validate({"git": git, "files": {"a.txt": "a"}})
    with pytest.raises(ValidationError, match="name one of them"):
        WorkspaceSource.model_validate({"git": git, "archiveId": "arc_1"})
