"""Small real projects with real test suites, brought in as archives."""

from typing import Any

import pytest
from e2e.installation import EXAMPLES, Data, Installation, packed

pytestmark = [pytest.mark.docker, pytest.mark.e2e]


def review(director: Installation, project: str, command: str) -> Data:
    """Run a project's tests, have them judged, and keep what is there then."""
    return director.user.run(
        command,
        {"type": "verify", "criteria": "tests pass"},
        {"type": "checkpoint", "name": "reviewed"},
        workspace={"archiveId": director.user.archive(packed(EXAMPLES / project))},
    )


@pytest.mark.parametrize(
    ("project", "command", "runner"),
    [
        ("node-wordcount", "npm test", "node:test"),
        ("python-invoice", "python3 -m pytest", "pytest"),
    ],
)
def test_a_project_whose_tests_pass_completes_with_their_counts(
    director: Installation, project: str, command: str, runner: str
) -> None:
    run = review(director, project, command)
    execute, verify, checkpoint = run["steps"]
    assert run["status"] == "completed", run["error"]
    assert execute["result"]["exitCode"] == 0
    assert verify["result"]["evidence"]["runner"] == runner
    counts = verify["result"]["counts"]
    assert counts["total"] == counts["passed"] > 5
    assert counts["failed"] == 0
    assert run["result"]["success"] is True
    assert run["result"]["output"] == verify["result"]["message"]
    assert str(counts["passed"]) in verify["result"]["message"]
    assert run["result"]["checkpointIds"] == [checkpoint["result"]["checkpointId"]]
    assert checkpoint["result"]["files"] >= file_count(project)


def file_count(project: str) -> int:
    paths = (EXAMPLES / project).rglob("*")
    return sum(path.is_file() and "__pycache__" not in path.parts for path in paths)


def test_a_project_whose_test_fails_ends_failed_and_names_the_test(director: Installation) -> None:
    run = review(director, "python-broken", "python3 -m pytest")
    execute, verify, checkpoint = run["steps"]
    assert run["status"] == "failed"
    assert execute["status"] == "completed"
    assert execute["result"]["exitCode"] == 1
    counts: dict[str, Any] = verify["result"]["counts"]
    assert counts["failed"] == 1
    assert counts["passed"] == counts["total"] - 1 > 0
    (failure,) = verify["result"]["evidence"]["failures"]
    assert "century" in failure
    assert failure in run["error"]["message"]
    assert run["error"]["code"] == "VERIFICATION_FAILED"
    assert "century" in director.user.output(run, 1)
    assert checkpoint["status"] in ("skipped", "pending")
