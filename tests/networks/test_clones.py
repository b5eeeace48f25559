"""Repositories cloned on a real engine from a real server, and what a clone does not reach."""

import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, ip_network
from pathlib import Path
from typing import Any

import docker
import pytest
from networks.places import Place, place
from networks.spaces import ip, may, outside
from support.git import NAME, PORT, GitServer, git_server

from director.activities.clones import Clones
from director.blobs.contents import Reading
from director.blobs.store import LocalBlobs
from director.domain.git import GitSource, GitTerms
from director.domain.ids import NETWORK, new_id
from director.domain.sandboxes import SandboxSpec
from director.sandbox.runtime import SandboxError

pytestmark = pytest.mark.docker

CONNECT = """
import json, socket, sys
ends = []
for host, port in json.loads(sys.argv[1]):
    made = socket.socket()
    made.settimeout(1)
    ends.append(made.connect_ex((host, port)) == 0)
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if not may():
        pytest.skip("needs root, which may filter packets")
    if (image := os.environ.get("DIRECTOR_TEST_IMAGE")) is None:
        pytest.skip("needs DIRECTOR_TEST_IMAGE, an image with git")
    client = docker.from_env()
    with place(client, tmp_path_factory.mktemp("home"), image) as made:
        yield made
    client.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    folder = tmp_path_factory.mktemp("git")
    with outside() as (world, address), git_server(world, address, folder) as served:
        yield served


class Cloner:
    """Clones for a sandbox that is never made, and reads what is there."""

    def __init__(self, here: Place, **terms: Any) -> None:
        home = Path(here.store.engine.url.database or "").parent
        self._clones = Clones(here.runtime, here.image, GitTerms(**terms), here.networks)
        self._blobs = LocalBlobs(home / "blobs")

    @contextmanager
    def cloned(self, url: str, ref: str | None = None, **limits: Any) -> Iterator[Any]:
        spec = SandboxSpec(id="sbx_1", image="none", owner_id="run_1", **limits)
        source = GitSource(url=url, ref=ref)
        with self._clones.cloned(source, spec, self._blobs, lambda: None) as clone:
            yield clone

    def files(self, url: str, ref: str | None = None) -> tuple[str, dict[str, str]]:
        """The commit, and what lies beside `.git`."""
        with self.cloned(url, ref) as clone:
            reading = Reading(clone.blobs)
            found = {
                each.path: each.target or b"".join(reading.chunks(each))[:20].decode("latin-1")
                if each.kind != "directory"
                else ""
                for each in clone.tree.entries
                if not each.path.startswith(".git/")
            }
            return clone.of.commit, found

    def refused(self, url: str, ref: str | None = None, **limits: Any) -> str:
        """Why it is not cloned, now or later."""
        with pytest.raises(SandboxError) as raised, self.cloned(url, ref, **limits):
            pass
        assert not raised.value.retryable
        return raised.value.message


def left(here: Place) -> list[Any]:
    """What clones have left behind."""
    leased = Path(here.store.engine.url.database or "").parent / "leased"
    return [*here.runtime.sandboxes(), *here.networks.bridges.there(), *leased.glob("*")]


def test_a_branch_a_tag_a_commit_and_a_whole_ref_are_cloned_without_submodules(
    here: Place, server: GitServer
) -> None:
    here.names[NAME] = [server.address]
    cloner, commits = Cloner(here, ca_file=server.ca_file), server.repository.commits
    url = server.url(host=NAME)

    commit, found = cloner.files(url)
    assert commit == commits["main"]
    assert found.pop("big")
    assert found.pop(".gitmodules")
    assert found == {
        **{".git": "", "inner": ""},
        **{"a.txt": "first\n", "run.sh": "#!/bin/sh\n", "link": "a.txt"},
    }
    for ref in ("feature", "refs/heads/feature", commits["feature"]):
        commit, found = cloner.files(url, ref)
        assert (commit, found["a.txt"]) == (commits["feature"], "feature\n"), ref
    for ref in ("v1", "refs/tags/v1"):
        commit, found = cloner.files(server.url(), ref)
        assert (commit, found["a.txt"], "run.sh" in found) == (commits["v1"], "first\n", False), ref

    assert not any("inner" in path for path in server.asked)
    assert left(here) == []


def test_what_cannot_be_cloned_says_why_and_leaves_nothing(here: Place, server: GitServer) -> None:
    here.names |= {NAME: [server.address], "inside.test": [server.address, "10.0.0.1"]}
    cloner = Cloner(here, ca_file=server.ca_file)
    url, asked = server.url(host=NAME), len(server.asked)

    assert "10.0.0.1 is private" in cloner.refused(server.url(host="inside.test"))
    assert "127.0.0.1 is loopback" in cloner.refused(server.url(host="127.0.0.1"))
    assert "could not be looked up" in cloner.refused(server.url(host="nobody.test"))
    assert "DIRECTOR_GIT_CA_FILE" in Cloner(here).refused(url)
    assert len(server.asked) == asked
    assert "redirects are not followed" in cloner.refused(server.url("moved/project.git", NAME))
    assert server.asked[-1].startswith("/moved/")
    assert "nope" in cloner.refused(url, "nope")
    assert "not found" in cloner.refused(server.url("nothing.git", NAME))
    assert "fatal" in cloner.refused(url, "0" * 40)
    assert "do they fit a disk of 4 MiB?" in cloner.refused(url, disk_mib=4)
    with empty_image(here.client) as image:
        message = Cloner(here, image=image).refused(url)
    assert f"image {image} has no git or no shell" in message
    assert "DIRECTOR_GIT_IMAGE" in message
    assert left(here) == []


@contextmanager
def empty_image(client: docker.DockerClient) -> Iterator[str]:
    """An image of nothing but an empty folder."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        folder = tarfile.TarInfo("etc")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
    name = f"test-empty:{uuid.uuid4().hex[:12]}"
    client.api.import_image_from_data(content.getvalue(), *name.split(":"))
    try:
        yield name
    finally:
        client.images.remove(name)


def test_a_private_address_is_cloned_from_where_the_setting_has_it(
    here: Place, server: GitServer
) -> None:
    private = f"10.97.{server.address.split('.')[-1]}.1"
    ip("route", "add", f"{private}/32", "via", server.address)  # it goes with its interface
    server.space.ip("addr", "add", f"{private}/32", "dev", "eth0")
    here.names[NAME] = [private]
    url = server.url(host=NAME)

    assert f"{private} is private" in Cloner(here, ca_file=server.ca_file).refused(url)
    beside = (ip_network("10.97.0.0/32"),)
    assert "is private" in Cloner(here, ca_file=server.ca_file, allowed=beside).refused(url)
    allowed = (ip_network(f"{private}/32"),)
    commit, _ = Cloner(here, ca_file=server.ca_file, allowed=allowed).files(url)
    assert commit == server.repository.commits["main"]


def test_a_leased_network_reaches_one_port_of_its_addresses_and_nothing_else(here: Place) -> None:
    with ExitStack() as stack:
        world, address = stack.enter_context(outside())
        other, there = stack.enter_context(outside())
        stack.enter_context(world.serving(PORT, 80))
        stack.enter_context(other.serving(PORT))
        id = new_id(NETWORK)
        network = stack.enter_context(here.networks.opened(id, [IPv4Address(address)], PORT))
        spec = SandboxSpec(id="sbx_2", image=here.image, owner_id="run_2", network=network)
        here.runtime.create(spec)
        stack.callback(here.runtime.remove, "sbx_2")
        here.networks.enforce()  # as every worker of the host does all the time
        engine_has = here.client.api.inspect_network(network.name)
        host = engine_has["IPAM"]["Config"][0]["Gateway"]
        targets = [(address, PORT), (address, 80), (there, PORT), (host, PORT)]
        said = here.said("sbx_2", "python3", "-c", CONNECT, json.dumps(targets))
        assert json.loads(said) == [True, False, False, False]
    assert left(here) == []
