"""Files of a sandbox on their way out, while a reader is slow or the worker is killed."""

import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from e2e.installation import Installation, execute
from support.waiting import until

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

MIB = 1024**2
SIZE = 200 * MIB


@pytest.fixture(scope="module")
def sandbox(director: Installation) -> Iterator[str]:
    """A sandbox with a large file, and with another in a folder."""
    director.user.token()
    small = {"resourceLimits": {"memory": 128}}
    id = str(director.user.call("POST", "/sandboxes?wait=30", small)["id"])
    laid = execute(
        director, id, f"mkdir in; head -c {SIZE} /dev/zero >big; ln big in/big; echo >small"
    )
    assert laid["exitCode"] == 0, laid
    yield id
    director.heal()
    director.user.token()
    director.user.call("DELETE", f"/sandboxes/{id}")


def memory(pid: int) -> int:
    """Bytes that a process has in memory."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) * 1024


def written(pid: int) -> int:
    """Bytes that a process has written so far, to whomever."""
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar:")[1].split()[0])


def rests(pid: int) -> bool:
    """Whether a process sends hardly anything any more."""
    before = written(pid)
    try:
        until(lambda: written(pid) - before > MIB, "it sends", seconds=1)
    except AssertionError:
        return True
    return False


def test_a_slow_reader_costs_no_memory_and_gets_all_of_it(
    director: Installation, sandbox: str
) -> None:
    pids = [director.stack.pid(part) for part in ("api", "worker")]
    path = f"/sandboxes/{sandbox}/files?path=in"
    before = [memory(pid) for pid in pids]
    with director.user.http.stream("GET", path) as answer:
        assert answer.headers["content-type"] == "application/x-tar"
        blocks = answer.iter_raw()
        size = len(next(blocks))
        until(lambda: all(rests(pid) for pid in pids), "nothing is sent to whoever takes nothing")
        grown = [memory(pid) - was for pid, was in zip(pids, before, strict=True)]
        assert max(grown) < 40 * MIB, grown
        size += sum(map(len, blocks))
    assert SIZE < size < SIZE + MIB


def test_a_transfer_whose_worker_is_killed_is_seen_to_be_broken_and_can_be_repeated(
    director: Installation, sandbox: str, tmp_path: Path
) -> None:
    http, url = director.user.http, f"/sandboxes/{sandbox}/files"
    for path in ("big", "in"):
        director.heal()
        until(lambda: http.get(url, params={"path": "small"}).is_success, "a worker answers")
        with http.stream("GET", url, params={"path": path}) as answer:
            blocks = answer.iter_raw()
            next(blocks)
            director.end("worker")
            with pytest.raises(httpx.RemoteProtocolError):
                for _ in blocks:
                    pass
    refused = http.get(url, params={"path": "big"})
    assert refused.status_code == 503, refused.text
    assert "no worker of the sandbox's host answers" in refused.json()["error"]["message"]
    director.heal()
    until(lambda: http.get(url, params={"path": "small"}).is_success, "a worker answers")
    target = tmp_path / "read"
    with http.stream("GET", url, params={"path": "in"}) as answer, target.open("wb") as file:
        for block in answer.iter_raw():
            file.write(block)
    with tarfile.open(target) as tar:
        assert [(member.name, member.size) for member in tar] == [("big", SIZE)]


def test_a_worker_may_open_as_many_files_as_it_needs(director: Installation) -> None:
    limits = Path(f"/proc/{director.stack.pid('worker')}/limits").read_text()
    soft, hard = limits.split("Max open files")[1].split()[:2]
    assert int(soft) == min(int(hard), 65_536)
