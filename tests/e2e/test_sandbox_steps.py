"""What an `execute` step may do and see in its sandbox, asked through the API."""

import asyncio
import io
import json
import sqlite3
import tarfile
from pathlib import Path
from typing import Any

import pytest
from e2e.installation import Data, Installation, User
from support.waiting import until
from temporalio.client import Client
from websockets.sync.client import connect

pytestmark = [pytest.mark.docker, pytest.mark.e2e]


@pytest.fixture
def user(director: Installation) -> User:
    return director.user


BEAT = "(while :; do echo beat >> beats; sleep 0.05; done) & wait"
ESCAPED = "setsid sh -c 'while :; do echo beat >> beats; sleep 0.05; done' & wait"
STILL = "a=$(wc -c <beats); sleep 0.5; b=$(wc -c <beats); echo $a then $b; test $a -gt 0 -a $a = $b"


@pytest.mark.parametrize("command", [BEAT, ESCAPED])
def test_a_time_out_kills_the_whole_process_group(user: User, command: str) -> None:
    run = user.run(
        {"type": "execute", "command": command, "timeout": 700, "onFailure": "continue"}, STILL
    )
    beating, still = run["steps"]
    assert beating["status"] == "timed_out"
    assert beating["error"]["code"] == "TIMEOUT"
    assert "0.7 s" in beating["error"]["message"]
    assert still["status"] == "completed", still["result"]["stdout"]


def test_a_run_is_cancelled_only_when_its_container_is_gone(
    director: Installation, user: User
) -> None:
    workflow_id = user.workflow("trap '' TERM; echo on; while :; do sleep 1; done")
    run = user.start(workflow_id)
    container = f"director-sbx_{run['runId'].removeprefix('run_')}"
    until(lambda: "on" in user.output(run, 1), "the command runs")
    assert container in director.containers()
    answer = user.call("POST", f"/workflows/{workflow_id}/cancel")
    assert answer["status"] in ("cancelling", "cancelled")
    until(lambda: user.status(workflow_id)["status"] == "cancelled", "the run is cancelled")
    assert container not in director.containers()
    ended = user.status(workflow_id)
    assert ended["steps"][0]["status"] == "cancelled"
    assert ended["result"]["success"] is False


def test_variables_and_context_arrive_with_the_nearest_one_winning(user: User) -> None:
    shown = 'echo "$WORKFLOW $START $STEP"; echo {{context.reviewer}}; echo "$DIRECTOR_CONTEXT"'
    step = {"type": "execute", "command": shown, "environment": {"STEP": "step"}}
    run = user.run(
        step,
        environment={"WORKFLOW": "workflow", "START": "workflow", "STEP": "workflow"},
        start={
            "environment": {"START": "start", "STEP": "start"},
            "context": {"reviewer": "ai-assistant", "depth": {"of": [1, "zwölf"]}},
        },
    )
    lines = run["steps"][0]["result"]["stdout"].splitlines()
    assert lines[:2] == ["workflow start step", "ai-assistant"]
    assert json.loads(lines[2]) == {"reviewer": "ai-assistant", "depth": {"of": [1, "zwölf"]}}


def test_a_value_that_a_shell_would_act_on_fails_the_step_and_runs_nothing(user: User) -> None:
    run = user.run("echo {{context.name}}", start={"context": {"name": "x; touch /workspace/y"}})
    assert run["status"] == "failed"
    assert run["error"]["code"] == "INVALID_TEMPLATE"
    assert "name" in run["error"]["message"]


CANARIES = {"variable": "canary-in-a-variable-5a1e", "context": "canary-in-the-context-77b2"}


def test_no_secret_is_in_temporal_in_logs_or_in_what_listeners_are_told(
    director: Installation, user: User
) -> None:
    counts = 'printf %s "$SECRET" | wc -c; printf %s {{context.secret}} | wc -c'
    run = user.run(
        counts,
        {"type": "execute", "command": "false", "environment": {"OTHER": CANARIES["variable"]}},
        start={
            "environment": {"SECRET": CANARIES["variable"]},
            "context": {"secret": CANARIES["context"]},
        },
    )
    lengths = [len(CANARIES["variable"]), len(CANARIES["context"])]
    assert [int(line) for line in user.output(run, 1).split()] == lengths, "they arrived"
    places = {
        "the history": asyncio.run(_history(director, run["runId"])),
        "Temporal's files": _bytes(director.home, "temporal.db*"),
        "the logs": _bytes(director.home / "logs", "*.log"),
        "the frames": _frames(director, run["workflowId"]).encode(),
        "the event log": _event_rows(director.home).encode(),
    }
    for place, content in places.items():
        assert run["runId"].encode() in content, f"{place} is what was looked through"
        for canary in CANARIES.values():
            assert canary.encode() not in content, place


async def _history(director: Installation, run_id: str) -> bytes:
    client = await Client.connect(
        f"127.0.0.1:{director.stack.ports.temporal}", namespace="director"
    )
    history = await client.get_workflow_handle(run_id).fetch_history()
    described = await client.get_workflow_handle(run_id).describe()
    return history.to_json().encode() + repr(described.raw_description).encode()


def _bytes(folder: Path, pattern: str) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob(pattern))


def _frames(director: Installation, workflow_id: str) -> str:
    """All that a listener with a cursor is told, up to the end of this workflow's run."""
    told = ""
    with connect(director.stack.api.replace("http", "ws") + "/v1/ws") as socket:
        socket.send(json.dumps({"type": "auth", "token": director.user.token(), "cursor": 0}))
        while True:
            text = str(socket.recv(timeout=30))
            told += text
            data = json.loads(text)["data"]
            if data.get("workflowId") == workflow_id and data.get("status") == "failed":
                return told


def _event_rows(home: Path) -> str:
    database = sqlite3.connect(f"file:{home / 'director.db'}?mode=ro", uri=True)
    try:
        return json.dumps(database.execute("SELECT * FROM events").fetchall())
    finally:
        database.close()


def test_a_department_with_little_memory_tells_that_it_ran_out(user: User) -> None:
    session_id = user.session()
    limits = {"maxConcurrentTasks": 5, "resourceLimits": {"memory": 64, "cpu": 1.0}}
    body = {"sessionId": session_id, "name": "Small", "domain": "small", "config": limits}
    department = user.call("POST", "/departments", body)
    run = user.run(
        "python3 -c 'bytearray(200 << 20)'",
        session_id=session_id,
        departmentId=department["id"],
    )
    assert run["status"] == "failed"
    assert run["steps"][0]["result"]["oomKilled"] is True
    assert run["error"]["code"] == "OUT_OF_MEMORY"
    assert "memory" in run["error"]["message"]


def test_files_of_the_workspace_belong_to_the_sandboxs_user(user: User) -> None:
    files = {"a/b.txt": "hello\n", "run.sh": "#!/bin/sh\necho ran\n", "ünï.txt": "déjà\n"}
    run = user.run(
        "cat a/b.txt ünï.txt && sh run.sh && find . ! -user $(id -u)",
        "echo more >> a/b.txt && mkdir a/c && mv run.sh a/c && cat a/b.txt && test $(id -u) != 0",
        workspace={"files": files},
    )
    assert run["status"] == "completed", run["error"]
    assert user.output(run, 1) == "hello\ndéjà\nran\n"
    assert user.output(run, 2) == "hello\nmore\n"


TOOLS = """
git init -q there && cd there && echo a > a && git add a
git -c user.name=me -c user.email=me@here commit -q -m first && git log --format=%s
"""
PYTHON = """
import getpass, locale, multiprocessing, os, pathlib, socket, sys, tempfile
assert getpass.getuser() == "sandbox"
assert pathlib.Path.home() == pathlib.Path(os.environ["HOME"])
pathlib.Path.home().joinpath("kept").write_text("x")
assert locale.getpreferredencoding() == sys.stdout.encoding.upper() == "UTF-8"
assert multiprocessing.Pool(2).map(abs, [-1]) == [1], "needs /dev/shm"
server = socket.create_server((socket.gethostname(), 0))
socket.create_connection(("localhost", server.getsockname()[1]))
tempfile.TemporaryFile().write(b"x")
assert sys.stdin.read() == "" and not sys.stdout.isatty()
"""
NODE = """
const server = require('node:http').createServer((_, answer) => answer.end('served'));
server.listen(0, 'localhost', async () => {
  const answer = await fetch(`http://localhost:${server.address().port}`);
  console.log(require('node:os').userInfo().username, await answer.text());
  server.close();
});
"""


def test_a_project_finds_the_tools_and_places_that_test_suites_use(user: User) -> None:
    run = user.run(
        TOOLS, ["python3", "-c", PYTHON], ["node", "-e", NODE], "python3 -m venv v && v/bin/python"
    )
    assert run["status"] == "completed", run["error"]
    assert user.output(run, 1) == "first\n"
    assert user.output(run, 3) == "sandbox served\n"


def test_programs_of_an_archive_keep_their_modes_and_links(user: User) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        script = b"#!/bin/sh\necho ran\n"
        program = tarfile.TarInfo("bin/program")
        program.mode, program.size = 0o755, len(script)
        tar.addfile(program, io.BytesIO(script))
        link = tarfile.TarInfo("node_modules/.bin/program")
        link.type, link.linkname = tarfile.SYMTYPE, "../../bin/program"
        tar.addfile(link)
    archive = user.archive(content.getvalue())
    run = user.run("bin/program; node_modules/.bin/program", workspace={"archiveId": archive})
    assert user.output(run, 1) == "ran\nran\n"


def test_a_sandbox_has_no_network(director: Installation, user: User) -> None:
    port = director.stack.ports.api
    call = (
        f"import socket\n"
        f"for place in [('127.0.0.1', {port}), ('172.17.0.1', {port}), ('1.1.1.1', 53)]:\n"
        f"    try: socket.create_connection(place, 2); print('reached', place)\n"
        f"    except OSError as error: print('refused')\n"
    )
    run = user.run("ls /sys/class/net", ["python3", "-c", call])
    assert user.output(run, 1) == "lo\n"
    assert user.output(run, 2) == "refused\n" * 3


def test_two_runs_at_once_do_not_see_each_other(user: User) -> None:
    look = (
        "touch $NAME /tmp/$NAME ~/$NAME; sleep 1.2;"
        " ls /workspace /tmp ~; cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep ^NAME= | sort -u"
    )
    workflows = {name: user.workflow(look) for name in ("first", "second")}
    for name, workflow_id in workflows.items():
        user.start(workflow_id, {"environment": {"NAME": name}})
    runs: dict[str, Data] = {name: user.ended(id) for name, id in workflows.items()}
    spans = [(run["startedAt"], run["completedAt"]) for run in runs.values()]
    assert max(start for start, _ in spans) < min(end for _, end in spans), "they ran at once"
    for name, other in (("first", "second"), ("second", "first")):
        said = user.output(runs[name], 1)
        assert said.count(name) == 4
        assert other not in said


def test_an_image_that_is_not_here_is_what_its_alias_names_and_both_are_told(
    director: Installation, user: User
) -> None:
    config: dict[str, Any] = {"sandbox": {"image": "node:22-alpine"}}
    run = user.run(["node", "-p", "'still ' + 'node'"], config=config)
    assert user.output(run, 1) == "still node\n"
    assert run["image"] == "node:22-alpine"
    assert run["resolvedImage"].startswith(f"{director.image}@sha256:")


def test_an_image_that_cannot_be_had_fails_the_run_with_the_way_out(user: User) -> None:
    config: dict[str, Any] = {"sandbox": {"image": "nobody/nothing:0"}}
    run = user.run("true", config=config)
    assert run["status"] == "failed"
    assert run["error"]["code"] == "SANDBOX_FAILED"
    assert "nobody/nothing:0" in run["error"]["message"]


def test_a_command_that_is_killed_from_inside_its_sandbox_tells_its_exit_code(user: User) -> None:
    run = user.run("kill -9 $$")
    assert run["status"] == "failed"
    assert run["error"]["code"] == "COMMAND_FAILED"
    assert run["steps"][0]["result"]["exitCode"] == 137
    assert run["steps"][0]["result"]["oomKilled"] is False
