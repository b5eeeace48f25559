"""Making, adopting and removing sandboxes, also when only a half of one is there."""

import gc
import json
import subprocess
import threading
import uuid
from datetime import timedelta

import docker
import pytest
from docker.errors import NotFound

from director.domain.sandboxes import Command, SandboxSpec
from director.domain.times import utc_now
from director.sandbox.docker import DockerRuntime
from director.sandbox.runtime import SandboxError, SandboxNotFoundError

pytestmark = pytest.mark.docker


@pytest.fixture
def spec(image):
    return SandboxSpec(id=f"sbx_{uuid.uuid4().hex[:16]}", image=image, owner_id="run_7")


@pytest.fixture
def cleared(runtime, spec):
    """A spec whose sandbox is removed in the end."""
    yield spec
    runtime.remove(spec.id)


def owners(runtime):
    return {sandbox.id: sandbox.owner for sandbox in runtime.sandboxes()}


def traces(engine, home, sandbox_id):
    containers = engine.api.containers(
        all=True, filters={"label": f"director.sandbox={sandbox_id}"}
    )
    return containers, [path.name for path in (home / "sandboxes").glob(f"*{sandbox_id}*")]


def test_a_second_create_adopts_the_first(runtime, cleared, image):
    first, second = runtime.create(cleared), runtime.create(cleared)
    assert (first.created, second.created) == (True, False)
    assert first.resolved_image == second.resolved_image
    assert first.resolved_image.startswith(f"{image}@sha256:")


def test_many_creates_at_once_make_one_container(runtime, cleared, engine, home):
    made = []
    threads = [
        threading.Thread(target=lambda: made.append(runtime.create(cleared).created))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 4 + [True]
    assert len(traces(engine, home, cleared.id)[0]) == 1


def test_an_alias_gives_the_image_and_says_so(runtime, cleared, image):
    asked = cleared.model_copy(update={"image": "node:22-alpine"})
    info = runtime.create(asked)
    assert info.image == "node:22-alpine"
    assert info.resolved_image.startswith(f"{image}@sha256:")


@pytest.mark.parametrize("name", ["nowhere:1", "127.0.0.1:9/director/absent:1"])
def test_an_image_that_cannot_be_had_names_the_way_out(runtime, spec, engine, home, name):
    with pytest.raises(SandboxError, match="docker load") as error:
        runtime.create(spec.model_copy(update={"image": name}))
    assert name in error.value.message
    assert "node:22-alpine" in error.value.message
    assert not error.value.retryable
    assert traces(engine, home, spec.id) == ([], [])


def test_a_name_that_is_no_image_is_refused(runtime, spec):
    with pytest.raises(SandboxError, match=r"image|reference"):
        runtime.create(spec.model_copy(update={"image": "Not An Image"}))


def test_a_limit_that_makes_no_sense_is_refused(runtime, spec):
    with pytest.raises(SandboxError, match="at least"):
        runtime.create(spec.model_copy(update={"memory_mib": 1}))


def test_a_container_that_was_made_but_not_started_is_started(runtime, cleared, engine, run):
    runtime.create(cleared)
    engine.api.stop(f"director-{cleared.id}", timeout=5)
    assert not runtime.create(cleared).created
    assert run(cleared.id, "exit 3").code == 3


def test_a_frozen_sandbox_is_thawed(runtime, cleared, engine, run):
    runtime.create(cleared)
    engine.api.pause(f"director-{cleared.id}")
    assert not runtime.create(cleared).created
    assert run(cleared.id, "exit 3").code == 3


def test_a_container_without_its_files_is_made_anew(runtime, cleared, home, run):
    runtime.create(cleared)
    subprocess.run(["rm", "-rf", home / "sandboxes" / cleared.id], check=True)
    assert runtime.create(cleared).created
    assert run(cleared.id, "exit 3").code == 3


def test_files_without_their_container_keep_the_workspace(runtime, cleared, engine, run):
    runtime.create(cleared)
    run(cleared.id, "echo kept > file")
    engine.api.remove_container(f"director-{cleared.id}", force=True)
    assert runtime.create(cleared).created
    assert run(cleared.id, "cat file").stdout == b"kept\n"


def test_a_container_that_was_never_started_is_made_anew_with_the_workspace_as_it_is(
    runtime, cleared, engine, image, run
):
    runtime.create(cleared)
    run(cleared.id, "echo kept > file")
    name = f"director-{cleared.id}"
    labels = engine.api.inspect_container(name)["Config"]["Labels"]
    engine.api.remove_container(name, force=True)
    engine.api.create_container(image, "false", name=name, labels=labels)
    assert runtime.create(cleared).created
    assert run(cleared.id, "cat file").stdout == b"kept\n"


def of_epoch(spec, epoch):
    return spec.model_copy(update={"epoch": epoch})


def test_a_sandbox_tells_its_owner_its_epoch_and_when_it_was_made(runtime, cleared, engine, home):
    before = utc_now() - timedelta(seconds=2)
    runtime.create(of_epoch(cleared, 3))
    labels = engine.api.inspect_container(f"director-{cleared.id}")["Config"]["Labels"]
    record = json.loads((home / "sandboxes" / cleared.id / "made.json").read_text())
    assert (labels["director.epoch"], record["epoch"]) == ("3", 3)

    def found():
        return next(each for each in runtime.sandboxes() if each.id == cleared.id)

    whole = found()
    engine.api.remove_container(f"director-{cleared.id}", force=True)
    for each in (whole, found()):
        assert (each.owner, each.epoch) == ("run_7", 3)
        assert before < each.made_at <= utc_now()


@pytest.mark.parametrize("half", ["both", "container", "files"])
def test_a_sandbox_of_another_epoch_is_made_anew_with_nothing_of_the_older_one(
    runtime, cleared, engine, home, run, start, half
):
    runtime.create(cleared)
    run(cleared.id, "echo old > file")
    execution = start(cleared.id, "sleep 70")
    if half == "files":
        engine.api.remove_container(f"director-{cleared.id}", force=True)
    elif half == "container":
        subprocess.run(["rm", "-rf", home / "sandboxes" / cleared.id], check=True)

    made = [runtime.create(of_epoch(cleared, 1)).created for _ in range(2)]

    assert made == [True, False]
    assert run(cleared.id, "ls -A; pgrep sleep").stdout == b""
    assert execution.wait(30).cause == "lost"
    assert [each.epoch for each in runtime.sandboxes() if each.id == cleared.id] == [1]


def test_what_an_interrupted_removal_left_is_not_taken_for_a_workspace(runtime, cleared, home, run):
    runtime.create(cleared)
    run(cleared.id, "echo old > file")
    (home / "sandboxes" / cleared.id / "made.json").unlink()
    assert runtime.create(cleared).created
    assert run(cleared.id, "ls -A").stdout == b""


@pytest.mark.parametrize("half", ["both", "container", "files"])
def test_remove_spares_a_sandbox_of_another_epoch(runtime, cleared, engine, home, half):
    runtime.create(of_epoch(cleared, 2))
    if half == "files":
        engine.api.remove_container(f"director-{cleared.id}", force=True)
    elif half == "container":
        subprocess.run(["rm", "-rf", home / "sandboxes" / cleared.id], check=True)

    runtime.remove(cleared.id, epoch=1)
    assert cleared.id in owners(runtime)

    runtime.remove(cleared.id, epoch=2)
    assert traces(engine, home, cleared.id) == ([], [])
    runtime.remove(cleared.id, epoch=2)


def test_remove_leaves_nothing(runtime, spec, engine, home, run):
    runtime.create(spec)
    run(spec.id, "mkdir -p shut/in; touch shut/in/x; chmod 000 shut/in shut; sleep 70 &")
    run(spec.id, "i=0; while [ $i -lt 1200 ]; do mkdir d && cd d; i=$((i+1)); done")
    runtime.remove(spec.id)
    assert traces(engine, home, spec.id) == ([], [])
    runtime.remove(spec.id)
    with pytest.raises(SandboxNotFoundError):
        runtime.workspace(spec.id)


def test_a_retired_sandbox_has_no_container_and_comes_back_with_its_files(
    runtime, cleared, engine, home, run, start
):
    runtime.create(cleared)
    run(cleared.id, "echo kept >file")
    going = start(cleared.id, "sleep 70")
    runtime.retire(cleared.id, epoch=cleared.epoch + 1, wanted=lambda: True)
    runtime.retire(cleared.id, epoch=cleared.epoch, wanted=lambda: False)
    assert traces(engine, home, cleared.id)[0]
    runtime.retire(cleared.id, epoch=cleared.epoch, wanted=lambda: True)
    containers, files = traces(engine, home, cleared.id)
    assert not containers
    assert files
    assert going.wait(30).cause == "lost"
    runtime.retire(cleared.id, epoch=cleared.epoch, wanted=lambda: True)
    assert runtime.create(cleared).created
    assert run(cleared.id, "cat file").stdout == b"kept\n"


@pytest.mark.parametrize("files", [3, 1500])
def test_remove_follows_no_link(runtime, spec, engine, home, run, tmp_path, files):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("x")
    runtime.create(spec)
    links = f"ln -s {tmp_path}/kept folder; ln -s {tmp_path}/kept/file file"
    many = f"i=0; while [ $i -lt {files} ]; do : >$i; i=$((i+1)); done"
    assert run(spec.id, f"{links}; {many}").code == 0
    runtime.remove(spec.id)
    assert traces(engine, home, spec.id) == ([], [])
    assert (tmp_path / "kept" / "file").read_text() == "x"


@pytest.mark.parametrize("half", ["container", "files"])
def test_remove_works_when_only_one_half_is_there(runtime, spec, engine, home, half):
    runtime.create(spec)
    if half == "files":
        engine.api.remove_container(f"director-{spec.id}", force=True)
    else:
        subprocess.run(["rm", "-rf", home / "sandboxes" / spec.id], check=True)
    assert owners(runtime)[spec.id] == "run_7"
    runtime.remove(spec.id)
    assert traces(engine, home, spec.id) == ([], [])
    assert spec.id not in owners(runtime)


def test_a_command_whose_sandbox_is_removed_ends(runtime, spec, start):
    runtime.create(spec)
    execution = start(spec.id, "sleep 70")
    runtime.remove(spec.id)
    assert execution.wait(30).cause == "lost"
    assert execution.read("stdout", 0, 10) == b""
    execution.kill()


def test_another_installations_sandbox_is_neither_seen_nor_touched(
    runtime, cleared, engine, tmp_path, image
):
    runtime.create(cleared)
    other = DockerRuntime(engine, tmp_path, "another", {})
    assert other.sandboxes() == []
    for touch in (lambda: other.create(cleared), lambda: other.remove(cleared.id)):
        with pytest.raises(SandboxError, match="another installation"):
            touch()
    assert engine.api.inspect_container(f"director-{cleared.id}")["State"]["Running"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_does_not_answer_is_worth_a_retry(tmp_path, spec):
    client = docker.DockerClient(base_url=f"unix://{tmp_path}/none.sock", version="1.41")
    runtime = DockerRuntime(client, tmp_path, "none", {})
    with pytest.raises(SandboxError) as error:
        runtime.create(spec)
    assert error.value.retryable
    client.close()
    del error
    gc.collect()  # docker-py leaves a socket open that could not connect


def test_a_sandbox_that_cannot_hear_of_commands_is_made_anew_among_its_files(
    runtime, cleared, engine, image, home, run
):
    """As one of a version of Director whose supervisor was another."""
    runtime.create(cleared)
    run(cleared.id, "echo kept >file")
    name = f"director-{cleared.id}"
    labels = engine.api.inspect_container(name)["Config"]["Labels"]
    engine.api.remove_container(name, force=True)
    engine.api.create_container(image, ["60"], entrypoint=["sleep"], name=name, labels=labels)
    engine.api.start(name)
    assert runtime.create(cleared).created
    assert run(cleared.id, "cat file").stdout == b"kept\n"


def test_a_removed_container_is_really_gone(runtime, spec, engine, command):
    runtime.create(spec)
    runtime.remove(spec.id)
    with pytest.raises(NotFound):
        engine.api.inspect_container(f"director-{spec.id}")
    with pytest.raises(SandboxNotFoundError):
        runtime.run(spec.id, Command(id="x", argv=["true"], timeout_ms=1000))
