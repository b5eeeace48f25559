"""The API document's JavaScript, exactly as printed, by Node against a real Director."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
import pytest
from e2e.installation import EXAMPLES, Installation, packed

pytestmark = [pytest.mark.docker, pytest.mark.e2e]

DOCUMENT = Path(__file__).parent / "document"
PROGRAM = ("prelude", "websocket", "listen", "complete-workflow", "batch-operations", "report")

Report = dict[str, Any]
Played = Callable[..., Report]


@pytest.fixture(scope="module")
def play(director: Installation, tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Run the document's program in Node and give its report, with what it printed."""
    program = tmp_path_factory.mktemp("document") / "program.mjs"

    def play(**environ: str) -> Report:
        program.write_text("".join((DOCUMENT / f"{name}.js").read_text() for name in PROGRAM))
        said = _in_node(director, program, environ)
        (report,) = [line for line in said.splitlines() if line.startswith("REPORT ")]
        return {**json.loads(report.removeprefix("REPORT ")), "said": said}

    return play


@pytest.fixture(scope="module")
def printed(play: Played) -> Report:
    """The report of the program as it is printed."""
    return play()


def _in_node(director: Installation, program: Path, environ: dict[str, str]) -> str:
    api = director.stack.api
    client = docker.from_env()
    try:
        said: bytes = client.containers.run(
            director.image,
            ["node", "/program.mjs"],
            network_mode="host",
            volumes=[f"{program}:/program.mjs:ro"],
            labels={"DIRECTOR_TEST_RUN": os.environ.get("DIRECTOR_TEST_RUN", "by hand")},
            environment={
                "BASE": f"{api}/v1",
                "SOCKET": f"{api.replace('http', 'ws')}/v1/ws",
                "TOKEN": director.user.login(),
                **environ,
            },
            remove=True,
            stderr=True,
        )
    except docker.errors.ContainerError as error:
        raise AssertionError(error.stderr.decode()) from None
    finally:
        client.close()
    return said.decode()


def test_as_printed_the_workflow_fails_as_it_has_no_project_and_says_so(
    printed: Report,
) -> None:
    run = printed["run"]
    execute, verify = run["steps"]
    assert (execute["type"], execute["status"]) == ("execute", "completed")
    assert execute["result"]["exitCode"] != 0, "npm has no package.json"
    assert "package.json" in execute["result"]["stderr"]
    assert (verify["type"], verify["status"]) == ("verify", "failed")
    assert verify["error"]["code"] == "VERIFICATION_FAILED"
    assert f"exit code was {execute['result']['exitCode']}" in verify["error"]["message"]
    assert run["status"] == "failed"
    assert run["result"]["success"] is False
    assert run["error"]["step"] == verify["id"]
    assert (run["step"], run["totalSteps"], run["progress"]) == (1, 2, 50)


def test_with_a_project_in_the_workspace_the_workflow_as_printed_completes(
    play: Played, director: Installation
) -> None:
    report = play(ARCHIVE=director.user.archive(packed(EXAMPLES / "node-wordcount")))
    run = report["run"]
    assert run["status"] == "completed"
    assert run["result"]["success"] is True
    assert "tests passed" in run["result"]["output"]
    assert run["steps"][1]["result"]["counts"]["failed"] == 0
    assert (run["step"], run["totalSteps"], run["progress"]) == (2, 2, 100)


def test_every_call_of_the_document_answers_with_what_it_then_uses(printed: Report) -> None:
    session = printed["session"]["data"]
    assert (session["type"], session["name"]) == ("director", "Development Session")
    assert printed["department"]["data"]["sessionId"] == session["id"]
    assert printed["department"]["data"]["capabilities"] == ["javascript", "typescript"]
    assert printed["workflow"]["data"]["sessionId"] == session["id"]
    made = [answer["data"] for answer in printed["made"]]
    assert [one["name"] for one in made] == ["Frontend", "Backend", "DevOps"]
    assert {one["sessionId"] for one in made} == {session["id"]}


def test_the_printed_class_hears_of_progress_and_of_the_session(printed: Report) -> None:
    workflow_id, session_id = printed["run"]["workflowId"], printed["run"]["sessionId"]
    progress = [f for f in printed["frames"]["workflow_progress"] if f["workflowId"] == workflow_id]
    assert [frame["status"] for frame in progress][-1] == "failed"
    running = [frame["currentStep"] for frame in progress if frame["status"] == "running"]
    assert {"execute", "verify"} <= {step["type"] for step in running if step}
    assert {frame["totalSteps"] for frame in progress} == {2}
    steps = [frame["step"] for frame in progress]
    assert steps == sorted(steps)
    updates = [f for f in printed["frames"]["session_update"] if f["sessionId"] == session_id]
    assert updates[-1]["status"] == "active"
    assert updates[-1]["metrics"]["activeDepartments"] == 4
    assert "Workflow progress:" in printed["said"]
    assert "Session updated:" in printed["said"]
