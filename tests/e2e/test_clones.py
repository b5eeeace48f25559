"""Repositories on the whole stack: a clone that is killed in its middle is made anew, and whole."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.installation import Installation, execute
from networks.spaces import may, outside
from support.git import GitServer, git_server
from support.waiting import until

from director.host import installation_id
from director.networks.filter import Names, run_nft

pytestmark = [pytest.mark.docker, pytest.mark.e2e]


PRIVATE = "https://localhost/a.git"


@contextmanager
def serving(folder: Path) -> Iterator[GitServer]:
    with outside() as (world, address), git_server(world, address, folder) as served:
        yield served


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    if not may():
        pytest.skip("needs root, which may filter packets")
    with serving(tmp_path) as served:
        yield served


@pytest.fixture
def cloner(
    server: GitServer, sandbox_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A Director that trusts the server's certificate."""
    environ = {"DIRECTOR_GIT_CA_FILE": str(server.ca_file)}
    home = tmp_path_factory.mktemp("home")
    with Installation(home, sandbox_image, environ=environ) as running:
        yield running


def traces(director: Installation) -> list[str]:
    """What clones have left on the machine."""
    names = Names(installation_id(director.home))
    bridges = (each for each in os.listdir("/sys/class/net") if each.startswith(names.prefix))
    folders = (each.name for each in director.home.glob("sandboxes/*"))
    leased = (each.name for each in director.home.glob("leased/*"))
    tables = [names.table] if names.table in run_nft("list tables") else []
    return [*director.containers(), *bridges, *folders, *leased, *tables]


def test_a_clone_whose_worker_is_killed_is_made_anew_and_whole_and_leaves_nothing(
    cloner: Installation, server: GitServer
) -> None:
    user, commits = cloner.user, server.repository.commits
    git = {"url": server.url(), "ref": "feature"}
    server.hold()
    workflow = user.workflow(
        "git fsck --strict && git status --porcelain && cat a.txt own.txt && ls -A inner",
        workspace={"git": git, "files": {"own.txt": "ours\n"}},
    )
    user.start(workflow)
    server.held()
    cloner.end("worker")
    assert user.status(workflow)["workspace"] is None
    server.release()
    cloner.heal()

    run = user.ended(workflow)
    assert run["status"] == "completed", run["error"]
    assert run["workspace"] == {"git": {**git, "commit": commits["feature"]}}
    said = user.output(run, 1, "stdout").splitlines()
    assert said == ["?? own.txt", "feature", "ours"]

    made = user.call("POST", "/sandboxes?wait=60", {"workspace": {"git": {"url": server.url()}}})
    assert made["status"] == "running", made["error"]
    assert made["workspace"]["git"] == {"url": server.url(), "ref": None, "commit": commits["main"]}
    assert execute(cloner, made["id"], "cat a.txt; git log --oneline | wc -l")["stdout"] == (
        "first\n1\n"
    )
    user.call("DELETE", f"/sandboxes/{made['id']}")

    lost = user.call("POST", "/sandboxes?wait=60", {"workspace": {"git": {"url": PRIVATE}}})
    assert lost["status"] == "failed"
    assert "localhost is refused: 127.0.0.1 is loopback" in lost["error"]["message"]
    until(lambda: traces(cloner) == [], "nothing is left", seconds=90)
